"""One pass over the inputs that counts their rows, and says which rows each shard holds.

A shard is `rows_per_shard` consecutive rows of all inputs one after another, so that the shards depend on the inputs alone. Parquet
files say in their footers how many rows they have. Line formats are read once, which is a thousand times faster than encoding them,
and the pass notes the byte at which each shard begins. The bytes are hashed on the way: a resume must find the same inputs.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from minisbert.corpus.inputs import Source, arrow
from minisbert.corpus.rows import Layout, Piece, broken_is_an_error, layout_of_table, open_parquet, source_rows
from minisbert.files.lines import BYTE_ORDER_MARK, column_index

SAMPLE = 1000
"""Rows of a jsonl file from which the types of its fields are inferred."""


@dataclass(frozen=True)
class Shard:
    """Consecutive rows of the corpus that become one file."""

    index: int
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(piece.rows for piece in self.pieces)

    @property
    def name(self) -> str:
        """The file's name."""
        return f"shard-{self.index:06d}.parquet"


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes:
        sources: the input files.
        layout: the columns that are read.
        shards: all shards, in order.
        inputs: for each file its path, bytes, rows and sha256, as the manifest has them.
    """

    sources: tuple[Source, ...]
    layout: Layout
    shards: tuple[Shard, ...]
    inputs: tuple[dict[str, Any], ...]

    @property
    def rows(self) -> int:
        """The rows of all inputs."""
        return sum(shard.rows for shard in self.shards)


def make_plan(
    sources: Sequence[Source],
    *,
    text_column: str,
    id_column: str | None,
    columns: Sequence[str],
    rows_per_shard: int,
) -> Plan:
    """Reads the inputs once; see above.

    Raises:
        ValueError: if a column is missing or of another type than in the first file, a file is broken, or there are no rows.
        OSError: if a file cannot be read.
    """
    layout = find_layout(sources, text_column, id_column, columns)
    pieces: list[list[Piece]] = []
    room = 0  # rows that the last shard still takes
    inputs = []
    for number, source in enumerate(sources):
        with broken_is_an_error(source):
            facts, offsets = _measure(source, first=room, step=rows_per_shard)
        inputs.append(facts)
        row, begin = 0, facts.pop("begin")
        while row < facts["rows"]:
            if not room:
                pieces.append([])
                room = rows_per_shard
            rows = min(room, facts["rows"] - row)
            pieces[-1].append(Piece(number, row, rows, offsets[row] if row else begin))
            row += rows
            room -= rows
    if not pieces:
        raise ValueError(f"inputs: the {len(sources)} files hold no rows, expected at least one.")
    shards = tuple(Shard(index, tuple(some)) for index, some in enumerate(pieces))
    return Plan(tuple(sources), layout, shards, tuple(inputs))


def find_layout(sources: Sequence[Source], text_column: str, id_column: str | None, columns: Sequence[str]) -> Layout:
    """The columns and their types, as the first file has them. The others must have the same.

    Types of csv and tsv are strings; those of jsonl are inferred from the first rows of the first file, and a later value of
    another type makes its row fail.
    """
    names = [*([id_column] if id_column is not None else []), *columns]
    if len(set(names)) < len(names):
        raise ValueError(f"columns: found {', '.join(map(repr, names))}, expected each name once, the id column among them.")
    first: list[tuple[str, Any]] | None = None
    for source in sources:
        if first is not None and source.kind == "jsonl":
            continue  # each row is checked when it is read
        with broken_is_an_error(source):
            found = _types(source, text_column, names)
        first = found if first is None else first
        for (name, kind), (_, expected) in zip(found, first, strict=True):
            if kind != expected:
                raise ValueError(f"{source.path}: the column {name!r} is {kind}, expected {expected}, as in {sources[0].path}.")
    return Layout(text_column, tuple(first or ()), by_position=id_column is None)


def _types(source: Source, text: str, names: Sequence[str]) -> list[tuple[str, Any]]:
    pa = arrow()
    if source.kind == "txt":
        if names:
            raise ValueError(
                f"{source.path}: txt has no columns, found {', '.join(map(repr, names))}. Leave out the id and columns."
            )
        return []
    if source.kind == "parquet":
        with open_parquet(source) as file:
            schema = file.schema_arrow
        for name in (text, *names):
            column_index(name, schema.names, source.path)
        kind = schema.field(text).type
        inner = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)):
            raise ValueError(f"{source.path}: the column {text!r} is {kind}, expected string.")
        return [(name, schema.field(name).type) for name in names]
    if source.kind in ("csv", "tsv"):
        header = layout_of_table(source)
        for name in (text, *names):
            column_index(name, header, source.path)
        return [(name, pa.string()) for name in names]
    return _json_types(source, names)


def _json_types(source: Source, names: Sequence[str]) -> list[tuple[str, Any]]:
    import json

    pa = arrow()
    values: dict[str, list[object]] = {name: [] for name in names}
    with contextlib.closing(source.open_lines()) as stream:
        for line in islice(stream, SAMPLE) if names else ():
            try:
                value = json.loads(line)
            except ValueError:
                continue  # the row fails when it is read
            for name in names:
                if isinstance(value, dict) and value.get(name) is not None:
                    values[name].append(value[name])
    types = []
    for name, some in values.items():
        if not some:
            raise ValueError(f"{source.path}: no row of the first {SAMPLE} has a field {name!r} with a value.")
        try:
            types.append((name, pa.infer_type(some)))
        except (pa.ArrowException, TypeError) as error:
            raise ValueError(f"{source.path}: the field {name!r} has values of different types ({error}).") from error
    return types


def _measure(source: Source, first: int, step: int) -> tuple[dict[str, Any], dict[int, int]]:
    """The facts of a file, and the byte offsets of rows `first`, `first + step`, … (row 0 is in the facts, as "begin")."""
    digest, begin = hashlib.sha256(), 0
    if source.kind == "parquet":
        with open_parquet(source) as file:
            rows = file.metadata.num_rows
        marks, size = dict.fromkeys(range(first, rows, step), 0), _hash_parquet(source, digest)
    else:
        with contextlib.closing(source.open_lines()) as stream:
            if source.kind == "csv":
                rows, size, begin, marks = _mark_records(source, stream, digest.update, first, step)
            else:
                rows, size, begin, marks = _mark_lines(stream, digest.update, first, step, header=source.kind == "tsv")
    return {"path": source.path, "bytes": size, "rows": rows, "sha256": digest.hexdigest(), "begin": begin}, marks


def _hash_parquet(source: Source, digest: Any) -> int:
    """Hashes a local file as a whole; of a remote one, which may be large and far away, the footer, which names every page."""
    with source.open_raw() as raw:
        size = int(raw.size())
        if source.remote:
            raw.seek(size - 8)
            length = int.from_bytes(raw.read(4), "little")
            raw.seek(max(size - 8 - length, 0))
        while block := raw.read(1 << 20):
            digest.update(block)
    return size


def _mark_lines(
    stream: IO[bytes], hashed: Callable[[bytes], None], first: int, step: int, *, header: bool
) -> tuple[int, int, int, dict[int, int]]:
    """Rows, bytes, the offset of row 0 and those of the marked rows of a file with a row a line."""
    before = int(header)
    line = first + before  # the next line whose beginning is wanted
    lines = position = begin = 0
    marks: dict[int, int] = {}
    last = b""
    while block := stream.read(1 << 20):
        hashed(block)
        count = block.count(b"\n")
        at, passed = -1, lines
        if header and not begin and count and not lines:
            begin = position + block.index(b"\n") + 1
        while line <= lines + count:
            while passed < line:
                at = block.index(b"\n", at + 1)
                passed += 1
            marks[line - before] = position + at + 1
            line += step
        lines += count
        position += len(block)
        last = block[-1:] if position > 3 or block != BYTE_ORDER_MARK else b"\n"
    rows = lines + (last not in (b"", b"\n")) - before
    return max(rows, 0), position, begin, marks


def _mark_records(
    source: Source, stream: IO[bytes], hashed: Callable[[bytes], None], first: int, step: int
) -> tuple[int, int, int, dict[int, int]]:
    """The same for csv, where a row may go over several lines."""
    position = 0

    def lines() -> Iterator[bytes]:
        nonlocal position
        for number, line in enumerate(stream):
            hashed(line)
            position += len(line)
            yield line.removeprefix(BYTE_ORDER_MARK) if number == 0 else line

    records = source_rows(source, lines())
    next(records, None)
    begin = position
    marks: dict[int, int] = {}
    rows = 0
    for _ in records:  # the reader takes no line more than the row needs
        rows += 1
        if rows >= first and (rows - first) % step == 0:
            marks[rows] = position
    return rows, position, begin, marks
