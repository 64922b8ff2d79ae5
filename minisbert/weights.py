"""From the hub's names to ours, and back.

`TABLE` is the whole translation; the rest of the file reads the files and checks every tensor before the first one is used. The
historical names:

    bert.…                    the prefix of checkpoints saved with a head on top (BertForMaskedLM and the like)
    LayerNorm.gamma, .beta    the names of TensorFlow's BERT for weight and bias, kept by the first PyTorch ports
    query, key, value         three layers there, one fused layer here: one product instead of three
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minisbert.bert import Bert
from minisbert.config import BertConfig, Find, inside
from minisbert.errors import CheckpointError

# (names on the hub, our name). {n} is a layer, {p} is weight or bias. Several names: stacked along the first axis, in this order.
TABLE: tuple[tuple[tuple[str, ...], str], ...] = (
    (("embeddings.word_embeddings.weight",), "embeddings.word.weight"),
    (("embeddings.position_embeddings.weight",), "embeddings.position.weight"),
    (("embeddings.token_type_embeddings.weight",), "embeddings.token_type.weight"),
    (("embeddings.LayerNorm.{p}",), "embeddings.norm.{p}"),
    (
        (
            "encoder.layer.{n}.attention.self.query.{p}",
            "encoder.layer.{n}.attention.self.key.{p}",
            "encoder.layer.{n}.attention.self.value.{p}",
        ),
        "layers.{n}.attention.qkv.{p}",
    ),
    (("encoder.layer.{n}.attention.output.dense.{p}",), "layers.{n}.attention.out.{p}"),
    (("encoder.layer.{n}.attention.output.LayerNorm.{p}",), "layers.{n}.attention_norm.{p}"),
    (("encoder.layer.{n}.intermediate.dense.{p}",), "layers.{n}.feed_forward.up.{p}"),
    (("encoder.layer.{n}.output.dense.{p}",), "layers.{n}.feed_forward.down.{p}"),
    (("encoder.layer.{n}.output.LayerNorm.{p}",), "layers.{n}.feed_forward_norm.{p}"),
)

# What else lies in published files, and why a sentence vector does not need it. Anything else that is unused is named in a warning.
LEFTOVERS: tuple[tuple[str, str], ...] = (
    (r"embeddings\.position_ids", "the numbers 0, 1, 2 …, saved by old versions of transformers"),
    (r"embeddings\.token_type_ids", "zeros, saved likewise"),
    (r"pooler\..*", "the next-sentence head's input, a layer on top of [CLS] that sentence vectors do not use"),
    (r"cls\..*", "the masked-word and next-sentence heads of pre-training"),
    (r"classifier\..*", "a classification head"),
    (r"qa_outputs\..*", "a question-answering head"),
)

FLOATS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """One tensor of a file, not read yet. `dtype` is None when it is no floating-point number, `kind` its name in the file."""

    name: str
    file: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None
    kind: str
    read: Callable[[], Tensor]


def names(config: BertConfig) -> dict[str, tuple[str, ...]]:
    """`TABLE` written out for a model of that many layers: our name → the names on the hub."""
    table = {}
    for theirs, ours in TABLE:
        for layer in range(config.num_hidden_layers) if "{n}" in ours else [0]:
            for part in ("weight", "bias") if "{p}" in ours else [""]:
                table[ours.format(n=layer, p=part)] = tuple(name.format(n=layer, p=part) for name in theirs)
    return table


def to_hub_names(bert: Bert) -> dict[str, Tensor]:
    """The weights under the hub's names, q/k/v split again: what transformers' `BertModel.load_state_dict` takes."""
    state = bert.state_dict()
    return {
        name: part
        for ours, theirs in names(bert.config).items()
        for name, part in zip(theirs, state[ours].chunk(len(theirs)), strict=True)
    }


def current_name(name: str) -> str:
    """A name of any era as the hub writes it today.

    >>> current_name("bert.embeddings.LayerNorm.gamma")
    'embeddings.LayerNorm.weight'
    """
    name = name.removeprefix("bert.")
    return re.sub(r"LayerNorm\.(gamma|beta)$", lambda old: "LayerNorm." + {"gamma": "weight", "beta": "bias"}[old[1]], name)


def load_weights(bert: Bert, stored: Iterable[Stored], dtype: torch.dtype = torch.float32) -> list[str]:
    """Fills a model that was built on the meta device, with a strict check of every tensor first.

    One tensor at a time goes from the file to where it stays, so that memory holds the weights once. Half-precision files are
    widened, which is exact; a float64 file is narrowed to `dtype`, and that is remarked upon.

    Returns:
        What a user should be told.

    Raises:
        CheckpointError: listing every tensor that is missing, misshapen, not floating-point, given twice, or not finite.
    """
    found: dict[str, Stored] = {}
    problems: list[str] = []
    for tensor in stored:
        name = current_name(tensor.name)
        if name in found:
            problems.append(f"{tensor.name}: the same tensor as {found[name].name}; expected one of the two")
        found[name] = tensor

    table = names(bert.config)
    expected = {name: parameter.shape for name, parameter in bert.named_parameters()}
    for ours, theirs in table.items():
        rows = expected[ours][0] // len(theirs)
        shape = (rows, *expected[ours][1:])
        for name in theirs:
            if name not in found:
                problems.append(f"{name} (here {ours}): missing, expected {list(shape)}")
            elif found[name].shape != shape:
                problems.append(f"{found[name].name} (here {ours}): found {list(found[name].shape)}, expected {list(shape)}")
            elif found[name].dtype is None:
                problems.append(f"{found[name].name} (here {ours}): found {found[name].kind}, expected floating-point numbers")
    if problems:
        raise _complaint(problems, found.values())

    state = {}
    for ours, theirs in table.items():
        whole = torch.empty(expected[ours], dtype=dtype)
        for name, part in zip(theirs, whole.chunk(len(theirs)), strict=True):
            part.copy_(found[name].read().reshape(part.shape))
        # A sum is the cheapest thing that a single NaN or infinity shows in; only then is it worth looking closer.
        if not whole.sum(dtype=torch.float64).isfinite():
            problems.append(f"{', '.join(theirs)} (here {ours}): found NaN or infinite values, expected finite numbers")
        state[ours] = whole
    if problems:
        raise _complaint(problems, found.values())
    bert.load_state_dict(state, assign=True)

    used = {name for theirs in table.values() for name in theirs}
    remarks = []
    unused = [found[name].name for name in found if name not in used and not _is_leftover(name)]
    if unused:
        remarks.append(f"the checkpoint has tensors that are not used: {_some(unused)}")
    if dtype == torch.float32 and any(found[name].dtype == torch.float64 for name in used):
        remarks.append("the checkpoint's weights are float64 and were rounded to float32; ask for dtype=torch.float64 to keep them")
    return remarks


def load_head(head: nn.Module, stored: Sequence[Stored], dtype: torch.dtype, config: str) -> list[str]:
    """Fills a module of `pooling.build_heads`, whose tensors have the checkpoint's own names, with the same strict check.

    Args:
        head: built on the meta device.
        stored: the tensors that lie in its folder.
        dtype: the precision to hold them in.
        config: the file that gave the shapes, for messages.

    Returns:
        What a user should be told.

    Raises:
        CheckpointError: listing every tensor that is missing, misshapen, not floating-point, or not finite.
    """
    found = {tensor.name: tensor for tensor in stored}
    problems = []
    state = {}
    for name, parameter in head.named_parameters():
        if name not in found:
            problems.append(f"{name}: missing, expected {list(parameter.shape)}")
        elif found[name].shape != parameter.shape:
            problems.append(f"{name}: found {list(found[name].shape)}, expected {list(parameter.shape)}")
        elif found[name].dtype is None:
            problems.append(f"{name}: found {found[name].kind}, expected floating-point numbers")
        else:
            state[name] = found[name]
    values = {} if problems else {name: tensor.read().to(dtype) for name, tensor in state.items()}
    problems += [f"{name}: found NaN or infinite values" for name, value in values.items() if not value.isfinite().all()]
    if problems:
        raise _complaint(problems, found.values(), config)
    head.load_state_dict({name: value.clone() for name, value in values.items()}, assign=True)
    unused = [name for name in found if name not in values]
    return [f"{stored[0].file} has tensors that are not used: {_some(unused)}"] if unused else []


def _is_leftover(name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern, _ in LEFTOVERS)


def _some(items: list[str], most: int = 20) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _complaint(problems: list[str], found: Iterable[Stored], config: str = "config.json") -> CheckpointError:
    files = sorted({tensor.file for tensor in found}) or ["the weights"]
    shown = problems[:40]
    if len(problems) > len(shown):
        shown.append(f"… and {len(problems) - len(shown)} more")
    return CheckpointError(
        f"{_some(files)}: {len(problems)} of the tensors are not what {config} asks for. The weights and {config} must come "
        "from the same model; take an unchanged copy of both.\n  " + "\n  ".join(shown)
    )


def open_weights(find: Find, folder: str) -> list[Stored]:
    """The tensors of a checkpoint: from `model.safetensors`, else from `pytorch_model.bin`. Nothing in them is ever run.

    Raises:
        CheckpointError: if neither file is there, or if one is broken.
    """
    safe, pickled = inside(folder, "model.safetensors"), inside(folder, "pytorch_model.bin")
    if (path := find(safe)) is not None:
        return list(_open_safetensors(path, safe))
    if (path := find(pickled)) is not None:
        return list(_open_pickled(path, pickled))
    raise CheckpointError(
        f"{safe} and {pickled}: neither is in the checkpoint, expected one of them. "
        "Add the weights, or download the checkpoint anew."
    )


def _open_safetensors(path: Path, file: str) -> Iterable[Stored]:
    def reader(name: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            # The file is opened anew for each tensor, since an open one is mapped into memory, and all its pages that were read
            # stay there until it is closed: this way it never stands in memory beside the parameters.
            with safe_open(path, framework="pt") as opened:
                return opened.get_tensor(name)

        return read

    try:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a dict)
                header = opened.get_slice(name)
                kind = header.get_dtype()
                yield Stored(name, file, tuple(header.get_shape()), FLOATS.get(kind), kind, reader(name))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: not a safetensors file that can be read ({error}). It may be cut off or damaged; download it anew."
        ) from error


def _open_pickled(path: Path, file: str) -> Iterable[Stored]:
    try:
        # weights_only: PyTorch's restricted reader, which knows tensors and plain containers, and calls nothing.
        state: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, tar and storage each raise their own kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{file}: not a file of plain PyTorch weights ({reason}). Only tensors are read from it, and no code in it is run; "
            "take a copy from a source you trust, best as model.safetensors."
        ) from error
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{file}: found a {type(state).__name__}, expected a dictionary of tensors by name.")
    for name, tensor in state.items():
        if isinstance(name, str) and isinstance(tensor, Tensor):
            floating = tensor.dtype if tensor.dtype in FLOATS.values() else None
            kind = str(tensor.dtype).removeprefix("torch.")
            yield Stored(name, file, tuple(tensor.shape), floating, kind, tensor.detach)
