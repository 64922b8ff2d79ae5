"""Reads, encodes and writes one shard, as a temporary parquet file that is then renamed."""

from __future__ import annotations

import os
import platform
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minisbert.checkpoint.cache import sha256
from minisbert.corpus.inputs import Source, arrow
from minisbert.corpus.plan import Shard
from minisbert.corpus.rows import BLOCK, Block, Layout, Reader
from minisbert.errors import MinisbertError
from minisbert.inference.stream import too_long

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

FORMULAS = {
    "float32": "the vector",
    "float16": "the vector, rounded to half precision",
    "int8": "round(127 * vector / max(abs(vector))); vector is about int8 * scale, scale = max(abs(vector)) / 127",
    "binary": "bit i is vector[i] > 0; 8 bits a byte, the first in the highest place, as numpy.packbits does",
}
"""How a vector is stored, by the name of the output's dtype."""

VECTOR = "vector"
SCALE = "scale"

Advance = Callable[[int, int], None]
"""Called with rows and tokens that are done."""


@dataclass(frozen=True)
class Job:
    """What every shard needs to know; it is sent to other processes.

    Attributes:
        sources: the input files.
        layout: the columns that are read.
        final: the output folder.
        writing: the folder for files that are not whole yet, on the same disk.
        dimension: of a vector, before it is stored as `dtype`.
        dtype: one of `FORMULAS`.
        prompt: put before each text.
        normalize: whether vectors are scaled to length 1.
        skip_errors: whether a failing row gets a null vector; else it ends the run.
        refuse_cut: whether a text above the model's limit ends the run.
        threads: threads that the whole run computes with, as the manifest says.
    """

    sources: tuple[Source, ...]
    layout: Layout
    final: Path
    writing: Path
    dimension: int
    dtype: str
    prompt: str
    normalize: bool
    skip_errors: bool
    refuse_cut: bool
    threads: int


def stored_type(dtype: str, dimension: int) -> Any:
    """The Arrow type of a stored vector, a list of fixed size; `dtype` is one of `FORMULAS`."""
    pa = arrow()
    items = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8(), "binary": pa.uint8()}
    return pa.list_(items[dtype], -(-dimension // 8) if dtype == "binary" else dimension)


def output_schema(layout: Layout, dtype: str, dimension: int) -> Any:
    """The Arrow schema of the shards: the id or the position, the columns asked for, the vector.

    Raises:
        ValueError: if a column has a name that the output needs.
    """
    pa = arrow()
    fields = [("file", pa.string()), ("row", pa.int64())] if layout.by_position else []
    own = [*(name for name, _ in fields), VECTOR, *([SCALE] if dtype == "int8" else [])]
    for name, _ in layout.fields:
        if name in own:
            raise ValueError(f"columns: {name!r} is a column of the output already. Rename it in the input, or leave it out.")
    fields += layout.fields
    fields.append((VECTOR, stored_type(dtype, dimension)))
    if dtype == "int8":
        fields.append((SCALE, pa.float32()))
    return pa.schema(fields)


def store(vectors: Tensor, present: list[bool], dtype: str) -> list[Any]:
    """Vectors → Arrow arrays, as `FORMULAS` says: the list of fixed size, and for int8 the scales.

    Args:
        vectors: float32 [rows that have one, dim].
        present: for each row whether it has a vector; the others get null.
        dtype: one of `FORMULAS`.
    """
    pa = arrow()
    rows, dimension = len(present), vectors.shape[1]
    scales: Tensor | None = None
    if dtype == "float16":
        vectors = vectors.half()
        if not vectors.isfinite().all():
            raise ValueError("dtype: a vector has values above 65504, which float16 cannot hold. Use float32.")
    elif dtype == "int8":
        scales = vectors.abs().amax(dim=1) / 127  # [present]
        vectors = (vectors / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round().to(torch.int8)
    elif dtype == "binary":
        bits = torch.nn.functional.pad(vectors > 0, (0, -dimension % 8)).view(len(vectors), -1, 8)  # [present, bytes, 8]
        places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)
        vectors = (bits * places).sum(dim=2, dtype=torch.uint8)  # [present, bytes]
    null = None
    if not all(present):
        where = torch.tensor(present)
        vectors = torch.zeros(rows, vectors.shape[1], dtype=vectors.dtype).masked_scatter(where[:, None], vectors)
        if scales is not None:
            scales = torch.zeros(rows).masked_scatter(where, scales)
        null = pa.array([not there for there in present])
    kind = stored_type(dtype, dimension)
    arrays = [pa.FixedSizeListArray.from_arrays(_values(vectors, kind.value_type), type=kind, mask=null)]
    if scales is not None:
        values = _values(scales, pa.float32())
        arrays.append(values if null is None else pa.compute.if_else(null, pa.scalar(None, pa.float32()), values))
    return arrays


def _values(tensor: Tensor, kind: Any) -> Any:
    """A tensor's elements as an Arrow array over the same memory; numpy is not needed."""
    pa = arrow()
    arrow("pyarrow.compute")
    tensor = tensor.contiguous()
    return pa.Array.from_buffers(kind, tensor.numel(), [None, pa.foreign_buffer(tensor.data_ptr(), tensor.nbytes, tensor)])


def write_shard(job: Job, shard: Shard, encoder: SentenceEncoder, reader: Reader, advance: Advance | None = None) -> dict[str, Any]:
    """Reads, encodes and writes a shard; the file is there as a whole or not at all.

    Returns:
        The shard's entry in the manifest, with the failed rows as "errors" and the machine as "machine".

    Raises:
        ValueError: for a failing row, unless these are skipped; for a broken or changed input.
        OSError: if something cannot be read or written.
        MinisbertError: if the encoder fails.
    """
    pq = arrow("pyarrow.parquet")
    schema = output_schema(job.layout, job.dtype, job.dimension)
    temporary = job.writing / f"{shard.name}.{uuid.uuid4().hex}"
    tally = Tally()
    try:
        with pq.ParquetWriter(temporary, schema, **_options(job)) as writer:
            for table in tables(job, shard, encoder, reader, schema, tally, advance):
                writer.write_table(table, row_group_size=BLOCK)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        size, digest = temporary.stat().st_size, sha256(temporary)
        temporary.replace(job.final / shard.name)
        sync_folder(job.final)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.filename is None and error.errno is not None:
            raise OSError(
                f"{job.final / shard.name}: cannot be written ({os.strerror(error.errno)}). Go on when it can."
            ) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    entry = {"shard": shard.index, "file": shard.name, "rows": shard.rows, "failed": len(tally.errors), "cut": tally.cut}
    entry |= {"longest": tally.longest, "tokens": tally.tokens, "bytes": size, "sha256": digest}
    return entry | {"machine": this_machine(encoder, job.threads), "errors": tally.errors}


def _options(job: Job) -> dict[str, Any]:
    """How parquet stores each column: vectors as they are, because their bits do not compress; the others with zstd."""
    others = [name for name, _ in job.layout.fields] + (["file", "row"] if job.layout.by_position else [])
    return {
        "compression": dict.fromkeys(others, "zstd") | {f"{VECTOR}.list.element": "none"},
        "use_dictionary": ["file"] if job.layout.by_position else False,
        "write_statistics": others or False,
    }


class Tally:
    """What is counted while a shard is encoded."""

    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []
        self.cut = 0
        self.longest = 0
        self.tokens = 0


def tables(
    job: Job, shard: Shard, encoder: SentenceEncoder, reader: Reader, schema: Any, tally: Tally, advance: Advance | None
) -> Iterator[Any]:
    """The row groups of a shard as Arrow tables, of `BLOCK` rows each but for the last."""
    waiting: deque[list[Block]] = deque()

    def texts() -> Iterator[str]:
        for group in _row_groups(block for piece in shard.pieces for block in reader.read(piece)):
            for block in group:
                for index, reason in sorted(block.reasons.items()):
                    failed = {"file": block.path, "row": block.first + index, "reason": reason, "shard": shard.index}
                    if not job.skip_errors:
                        raise ValueError(
                            f"{block.path}, row {failed['row']} (counted from 0): {reason}. Mend the row, or skip such rows "
                            "with on_error='skip' (--on-error skip)."
                        )
                    tally.errors.append(failed)
            waiting.append(group)
            for block in group:
                yield from (text for text in block.texts if text is not None)

    stream = encoder.encode_stream(
        texts(),
        window=BLOCK,
        prompt=job.prompt,
        normalize_embeddings=job.normalize,
        on_truncate="ignore",
        show_progress_bar=False,
    )
    vectors: list[Tensor] = []
    have = 0
    for rows in stream:
        vectors.append(rows)
        have += len(rows)
        while waiting and have >= (needed := _present(waiting[0]).count(True)):
            table, vectors = _table(job, waiting.popleft(), vectors, needed, schema)
            have -= needed
            yield table
            if advance is not None:
                advance(table.num_rows, stream.tokens - tally.tokens)
            tally.tokens = stream.tokens
    while waiting:  # groups in which every row failed
        table, vectors = _table(job, waiting.popleft(), vectors, 0, schema)
        yield table
        if advance is not None:
            advance(table.num_rows, 0)
    tally.tokens, tally.cut, tally.longest = stream.tokens, stream.cut, stream.longest
    if tally.cut and job.refuse_cut:
        raise ValueError(
            f"{shard.name}: {too_long(tally.cut, shard.rows, encoder.max_seq_length, '')}, the longest has {tally.longest}. "
            "Split long texts, or pass on_truncate='warn' to cut them."
        )


def _present(group: list[Block]) -> list[bool]:
    return [text is not None for block in group for text in block.texts]


def _row_groups(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Blocks in groups of exactly `BLOCK` rows, but for the last: the row groups of the output."""
    group: list[Block] = []
    room = BLOCK
    for block in blocks:
        rest = block
        while len(rest) >= room:
            yield [*group, rest.part(0, room)]
            rest = rest.part(room, len(rest))
            group, room = [], BLOCK
        if len(rest):
            group.append(rest)
            room -= len(rest)
    if group:
        yield group


def _table(job: Job, group: list[Block], vectors: list[Tensor], needed: int, schema: Any) -> tuple[Any, list[Tensor]]:
    """The table of a group, and the vectors that are left over."""
    pa = arrow()
    there = torch.cat(vectors) if vectors else torch.empty(0, job.dimension)
    present = _present(group)
    arrays: list[Any] = []
    if job.layout.by_position:
        arrays.append(pa.array([block.path for block in group for _ in block.texts], pa.string()))
        arrays.append(pa.array([block.first + index for block in group for index in range(len(block))], pa.int64()))
    for position, (_, kind) in enumerate(job.layout.fields):
        arrays.append(pa.chunked_array([block.columns[position] for block in group], kind).combine_chunks())
    arrays += store(there[:needed], present, job.dtype)
    rest = there[needed:]
    return pa.Table.from_arrays(arrays, schema=schema), [rest.clone()] if len(rest) else []


def sync_folder(folder: Path) -> None:
    """Has the names in a folder on the disk, where the system can do so."""
    if os.name == "nt":  # where a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def this_machine(encoder: SentenceEncoder, threads: int) -> dict[str, Any]:
    """What decides how this machine rounds: two shards from equal machines have equal bits. Threads do not change them."""
    machine = {"device": encoder.device.type, "processor": _processor(), "instructions": torch.backends.cpu.get_cpu_capability()}
    if encoder.device.type == "cuda":
        machine["device"] = torch.cuda.get_device_name(encoder.device)
    limits = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
    machine |= {name: os.environ[name] for name in limits if name in os.environ}
    return machine | {"threads": threads}


def same_kind(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two machines promise the same bits."""
    return {**one, "threads": 0} == {**other, "threads": 0}


def _processor() -> str:
    """The processor's name, family and model, which Linux tells; elsewhere what Python knows."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.partition("\n\n")[0].splitlines() if ":" in line)
    known = {name.strip(): value.strip() for name, value in fields.items()}
    parts = [known.get("model name", platform.machine())]
    parts += [f"{name} {known[name]}" for name in ("cpu family", "model") if name in known]
    return ", ".join(parts)


def model_facts(encoder: SentenceEncoder) -> dict[str, Any]:
    """What says which model it is: its name, revision, the sha256 of every file that was read, every setting in force.

    Raises:
        MinisbertError: if one of its files is gone.
    """
    info = encoder.info().to_dict()
    gone = [file["name"] for file in info["files"] if file["sha256"] is None]
    if gone:
        raise MinisbertError(
            f"{info['model']}: the file {gone[0]} is missing, so its sha256 cannot be computed. Load the model again."
        )
    return {
        "name": info["model"],
        "revision": info["revision"],
        "dtype": info["dtype"],
        "quantize": info["quantize"],
        "dimension": info["dimension"],
        "files": {file["name"]: file["sha256"] for file in info["files"]},
        "settings": {setting["name"]: setting["value"] for setting in info["settings"]},
    }
