"""`verify_corpus`: compares a folder with its manifest, and its vectors with those that this machine computes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minisbert.corpus.folder import CorpusError, Folder, damage, differences
from minisbert.corpus.inputs import arrow, find_sources
from minisbert.corpus.plan import Shard, make_plan
from minisbert.corpus.rows import Reader
from minisbert.corpus.shards import SCALE, VECTOR, model_facts, same_kind, store, this_machine
from minisbert.encoder import SentenceEncoder
from minisbert.files.lines import long_fields

ROUNDING = 1e-6
"""The tolerance for each value between processors of different kinds, times the largest value if that is above 1."""

SHARDS = 16
"""The most shards from which rows are taken."""


@dataclass(frozen=True)
class Verified:
    """The result of a verification without errors.

    Attributes:
        out: the folder.
        shards: whose checksums were compared.
        rows: in them.
        sample: rows that were computed again.
        exact: how many of them must have equal bits, because a processor of this kind made them, and have.
        largest_difference: between a stored value and the one computed here; 0 if all bits are equal.
    """

    out: str
    shards: int
    rows: int
    sample: int
    exact: int
    largest_difference: float

    def to_dict(self) -> dict[str, Any]:
        """For json."""
        return asdict(self)


def verify_corpus(
    out: str | os.PathLike[str],
    *,
    sample: int = 256,
    seed: int = 0,
    model: str | os.PathLike[str] | SentenceEncoder | None = None,
    device: str | torch.device | None = None,
) -> Verified:
    """Compares the checksum of every shard and of every input, and computes a sample of rows again.

    Rows of a shard that a processor of this kind made must have the same bits. The others must be within 1e-6 (times the largest
    number, where that is above 1), or one step of float16 or int8. A bit of a binary vector may differ where the number is that
    close to 0.

    Args:
        out: a complete folder of `encode_corpus`.
        sample: the number of rows to compute again, from at most `SHARDS` shards; 0: none, and the inputs are not read.
        seed: which ones.
        model: the name or folder of the model, if it differs from the manifest's.
        device: as in `minisbert.load`.

    Returns:
        How many shards and rows there are, how many rows were computed again, and the largest difference.

    Raises:
        CorpusError: for the first deviation.
        OSError: if an input is gone.
    """
    arrow()
    folder = Folder(out)
    manifest = folder.read_complete()
    for entry in manifest["shards"]:
        reason = damage(folder.path / entry["file"], entry)
        if reason is not None:
            raise CorpusError(
                f"{folder.path / entry['file']}: {reason}. Run the command that made the corpus, which makes it again."
            )
    exact, largest, rows = 0, 0.0, 0
    if sample:
        with long_fields():
            exact, largest, rows = _recompute(folder.path, manifest, sample, seed, _encoder(manifest, model, device))
    return Verified(str(folder.path), len(manifest["shards"]), manifest["rows"], rows, exact, largest)


def _encoder(manifest: dict[str, Any], model: Any, device: Any) -> SentenceEncoder:
    if not isinstance(model, SentenceEncoder):
        import minisbert

        name = manifest["model"]["name"] if model is None else model
        model = minisbert.load(name, device=device, quantize=manifest["model"]["quantize"])
    here = model_facts(model)
    differ = differences({**manifest["model"], "name": ""}, {**here, "name": ""})
    if differ:
        raise CorpusError(f"model: {here['name']} is not the one of the corpus: {'; '.join(differ[:4])}. Name the right one.")
    return model


def _recompute(path: Path, manifest: dict[str, Any], sample: int, seed: int, encoder: SentenceEncoder) -> tuple[int, float, int]:
    settings = manifest["settings"]
    sources = find_sources([entry["path"] for entry in manifest["inputs"]], settings["format"])
    plan = make_plan(
        sources,
        text_column=settings["text_column"],
        id_column=settings["id_column"],
        columns=settings["columns"],
        rows_per_shard=settings["rows_per_shard"],
    )
    differ = differences(manifest["inputs"], list(plan.inputs), "inputs")
    if differ:
        raise CorpusError(f"the inputs are not those of the corpus: {'; '.join(differ[:4])}.")
    rng = random.Random(seed)  # noqa: S311 (a sample)
    chosen = sorted(rng.sample(range(len(plan.shards)), min(SHARDS, len(plan.shards))))
    here = this_machine(encoder, 0)
    reader = Reader(plan.sources, plan.layout)
    exact, largest, rows = 0, 0.0, 0
    ends = list(accumulate(plan.shards[number].rows for number in chosen))
    drawn = sorted(rng.sample(range(ends[-1]), min(sample, ends[-1])))
    for number, end in zip(chosen, ends, strict=True):
        shard = plan.shards[number]
        wanted = [row - end + shard.rows for row in drawn if end - shard.rows <= row < end]
        equal = same_kind(here, manifest["machines"][manifest["shards"][number]["machine"]])
        largest = max(largest, _compare(path / shard.name, shard, reader, wanted, manifest, encoder, equal=equal))
        rows += len(wanted)
        exact += len(wanted) if equal else 0
    return exact, largest, rows


def _compare(
    file: Path, shard: Shard, reader: Reader, wanted: list[int], manifest: dict[str, Any], encoder: SentenceEncoder, *, equal: bool
) -> float:
    """The largest difference between the stored rows and the same rows computed here.

    Raises:
        CorpusError: if a row differs by more than it may.
    """
    pa = arrow()
    settings = manifest["settings"]
    names = ["file", "row"] if settings["id_column"] is None else [settings["id_column"]]
    stored_as = [VECTOR, *([SCALE] if settings["dtype"] == "int8" else [])]
    table = arrow("pyarrow.parquet").read_table(file, columns=[*names, *stored_as]).take(pa.array(wanted, pa.int64()))
    texts: list[str | None] = []
    ids: list[object] = []
    at, chosen = 0, set(wanted)
    for piece in shard.pieces:
        for block in reader.read(piece):
            for index, text in enumerate(block.texts):
                if at + index in chosen:
                    texts.append(text)
                    position = {"file": block.path, "row": block.first + index}
                    ids.append(position if settings["id_column"] is None else block.columns[0][index].as_py())
            at += len(block)
    stored_ids = [row if settings["id_column"] is None else row[names[0]] for row in table.select(names).to_pylist()]
    present = [text is not None for text in texts]
    vectors = encoder.encode(
        [text for text in texts if text is not None],
        prompt=settings["prompt"],
        normalize_embeddings=settings["normalize_embeddings"],
        on_truncate="ignore",
        show_progress_bar=False,
    )
    computed = store(vectors, present, settings["dtype"])
    stored = [table.column(name).combine_chunks() for name in stored_as]
    for index, row in enumerate(wanted):
        where = f"{file.name}, row {row}"
        if ids[index] != stored_ids[index]:
            raise CorpusError(f"{where}: found {stored_ids[index]!r}, expected {ids[index]!r}.")
        if present[index] != stored[0][index].is_valid:
            found, expected = ("no", "a") if present[index] else ("a", "no")
            raise CorpusError(f"{where}: found {found} vector, expected {expected} vector.")
    if all(mine.equals(theirs) for mine, theirs in zip(computed, stored, strict=True)):
        return 0.0
    ours, theirs = (_tensor(arrays, present, vectors.shape[1], settings["dtype"]) for arrays in (computed, stored))
    difference = (ours - theirs).abs()  # [sample, dim]
    allowed = torch.zeros_like(difference) if equal else _allowed(settings["dtype"], vectors, theirs, encoder.checkpoint.quantize)
    bad = (difference > allowed).any(dim=1).nonzero().flatten().tolist()
    if bad or equal:
        row = [row for row, there in zip(wanted, present, strict=True) if there][bad[0] if bad else 0]
        raise CorpusError(
            f"{file.name}, row {row}: its vector differs by up to {float(difference.max()):.2e} from the one computed here, "
            f"expected {'equal bits, because a processor of this kind made it' if equal else 'rounding only'}."
        )
    return float(difference.max())


def _tensor(arrays: list[Any], present: list[bool], dimension: int, dtype: str) -> Tensor:
    """Stored vectors as float64 [rows that have one, dim]; bits as 0 and 1."""
    rows = [row for row, there in zip(arrays[0].to_pylist(), present, strict=True) if there]
    if dtype == "binary":
        places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1])
        packed = torch.tensor(rows)  # [rows, bytes]
        return (packed[:, :, None] & places).ne(0).flatten(1)[:, :dimension].double()
    vectors = torch.tensor(rows, dtype=torch.float64)
    if dtype == "int8":
        scales = [scale for scale, there in zip(arrays[1].to_pylist(), present, strict=True) if there]
        return vectors * torch.tensor(scales, dtype=torch.float64)[:, None]
    return vectors


def _allowed(dtype: str, vectors: Tensor, stored: Tensor, quantize: str | None) -> Tensor:
    """How far each value may be from the stored one on another kind of processor.

    A processor without VNNI has other int8 weights, and a value that is rounded otherwise to int8 moves by a whole step.
    """
    size = vectors.double().abs().amax(dim=1, keepdim=True)  # [sample, 1]
    rounding = size / 2 if quantize else ROUNDING * size.clamp_min(1)
    step: dict[str, Callable[[], Tensor]] = {
        "float32": lambda: rounding.expand_as(stored),
        "float16": lambda: rounding + stored.abs() * 2**-10 + 2**-24,
        "int8": lambda: (rounding + size / 127 * 1.01).expand_as(stored),
        "binary": lambda: vectors.double().abs().le(rounding).double(),
    }
    return step[dtype]()
