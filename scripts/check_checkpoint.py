"""Compares a checkpoint with transformers and sentence-transformers, layer by layer, and gives a verdict.

    python scripts/check_checkpoint.py MODEL [--dtype float64] [--json]

MODEL is a folder or a name on the hub. On built-in sentences, the script compares the ids, the output of the embeddings and of
every layer, and the final vectors. Exit code 0: the same; 1: different; 2: cannot be checked (a reason is given).

It needs the references: pip install transformers sentence-transformers
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

SENTENCES = [
    "A man is eating food.",
    "Someone is having a meal.",
    "The cat sat on the mat, and the dog didn't mind at all!",
    "Crème brûlée à la façon du chef, naïve Ångström, İstanbul, ΣΊΣΥΦΟΣ",
    "男は食べ物を食べている。有人在吃饭。남자가 음식을 먹고 있다.",
    "emoji 😀 👨‍👩‍👧, رجل يأكل الطعام, איש אוכל אוכל, мужчина ест еду",
    "UPPER CamelCase under_score don't a.b@c.de https://x.y/z?q=1 3.14 1,000,000 C++",
    "",
    "?",
    "a longer text, beyond any limit that there is, " * 60,
]

BOUNDS = {"float64": (1e-12, 1e-12), "float32": (5e-5, 1e-5)}
"""The allowed rounding of hidden states and of vectors, relative to the largest value there, or to 1 if that is larger."""


class Row(NamedTuple):
    """One comparison."""

    name: str
    difference: float
    bound: float

    @property
    def same(self) -> bool:
        """Whether it is within the bound; NaN is not."""
        return self.difference <= self.bound


def compare(model: str, dtype_name: str) -> list[Row]:
    """All comparisons, from the ids to the vectors."""
    import torch
    from sentence_transformers import SentenceTransformer
    from torch import nn

    import minisbert

    dtype = getattr(torch, dtype_name)
    states_bound, vectors_bound = BOUNDS[dtype_name]
    encoder = minisbert.load(model, dtype=dtype)
    # The same files that minisbert has read, wherever they are.
    folder = str(encoder.files["config.json"].parent) if "config.json" in encoder.files else model
    kwargs: dict[str, Any] = {"model_kwargs": {"dtype": dtype, "attn_implementation": "eager"}}
    reference = SentenceTransformer(folder, device="cpu", **kwargs).eval()

    tokenizer, bert = reference.tokenizer, reference[0].auto_model
    limit = reference.max_seq_length
    ours = encoder.tokenizer(SENTENCES).ids
    theirs = tokenizer(SENTENCES, truncation=True, max_length=limit)["input_ids"]
    rows = [
        Row("limit", abs(encoder.max_seq_length - limit), 0),
        Row("ids", sum(a != b for a, b in zip(ours, theirs, strict=True)), 0),
    ]
    if not rows[-1].same:
        return rows

    def difference(one: torch.Tensor, other: torch.Tensor) -> float:
        scale = max(1.0, float(other.abs().max()))
        return float((one - other).abs().max()) / scale if one.shape == other.shape else float("inf")

    names = ["embeddings", *(f"layer {number + 1}" for number in range(len(encoder.bert.layers)))]
    worst = dict.fromkeys(names, 0.0)
    for ids in ours:
        packed: list[torch.Tensor] = []

        def note(_module: nn.Module, _arguments: object, output: torch.Tensor, packed: list[torch.Tensor] = packed) -> None:
            packed.append(output)

        batch = torch.tensor([ids])
        with ExitStack() as hooks, torch.inference_mode():
            for module in (encoder.bert.embeddings, *encoder.bert.layers):
                hooks.callback(module.register_forward_hook(note).remove)
            encoder.bert(batch)
            expected = bert(input_ids=batch, attention_mask=torch.ones_like(batch), output_hidden_states=True).hidden_states
        for name, one, other in zip(names, packed, expected, strict=True):
            worst[name] = max(worst[name], difference(one, other[0]))
    rows += [Row(name, worst[name], states_bound) for name in names]

    vectors = encoder.encode(SENTENCES, on_truncate="ignore")
    expected_vectors = reference.encode(SENTENCES, convert_to_tensor=True, show_progress_bar=False)
    rows.append(Row("vectors", difference(vectors, expected_vectors), vectors_bound))
    return rows


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the warnings and progress bars of the references inside this context."""
    import transformers

    verbosity = transformers.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        try:
            yield
        finally:
            transformers.logging.enable_progress_bar()
            transformers.logging.set_verbosity(verbosity)


def main(arguments: list[str] | None = None) -> int:
    """Runs the comparison and prints it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder that holds a checkpoint, or a name on the hub")
    parser.add_argument(
        "--dtype", choices=sorted(BOUNDS), default="float64", help="default: float64, which tells other mathematics from rounding"
    )
    parser.add_argument("--json", action="store_true", help="print json instead of a table")
    options = parser.parse_args(arguments)
    try:
        with _quiet():
            rows = compare(options.model, options.dtype)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        if options.json:
            print(json.dumps({"model": options.model, "verdict": "cannot be checked", "reason": message}))
        else:
            print(f"cannot be checked: {message}", file=sys.stderr)
        return 2

    wrong = [row for row in rows if not row.same]
    largest = max((row for row in rows if row.name not in ("limit", "ids")), key=lambda row: row.difference, default=rows[-1])
    verdict = "different" if wrong else "same"
    if options.json:
        table = [row._asdict() | {"same": row.same} for row in rows]
        result = {"model": options.model, "dtype": options.dtype, "verdict": verdict, "largest": largest.difference, "rows": table}
        print(json.dumps(result, indent=2))
    else:
        print(f"{'':<12} {'difference':>12} {'bound':>12}")
        for row in rows:
            print(f"{row.name:<12} {row.difference:>12.3g} {row.bound:>12.3g}{'' if row.same else '   DIFFERENT'}")
        first = f", first at: {wrong[0].name}" if wrong else ""
        print(f"{verdict}: the largest difference is {largest.difference:.3g} ({largest.name}, {options.dtype}){first}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
