"""Reads files as a stream of blocks of rows, from any row on. A row without a text stays in its block, with the reason."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from minisbert.corpus.inputs import Source, arrow
from minisbert.files.lines import BYTE_ORDER_MARK, table_rows

BLOCK = 8192
"""The most rows in one block, and the rows in one row group of the output."""

BLOCK_CHARACTERS = 1 << 22
"""The most characters in a block of a line format, so that long texts do not fill the memory."""


@dataclass(frozen=True)
class Layout:
    """Which columns are read.

    Attributes:
        text: the column with the text.
        fields: name and Arrow type of each column that is copied to the output: the id first, if there is one.
        by_position: whether the output has the file and the row of each text, because there is no id column.
    """

    text: str
    fields: tuple[tuple[str, Any], ...]
    by_position: bool


@dataclass
class Block:
    """Some consecutive rows of one file.

    Attributes:
        path: the file.
        first: the number of the first row in its file, counted from 0.
        texts: a text for each row, or None.
        reasons: index in `texts` → why this row failed.
        columns: an Arrow array for each of the layout's fields.
    """

    path: str
    first: int
    texts: list[str | None]
    reasons: dict[int, str] = field(default_factory=dict)
    columns: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, start: int, stop: int) -> Block:
        """Rows `start` to `stop`, `stop` excluded."""
        reasons = {index - start: reason for index, reason in self.reasons.items() if start <= index < stop}
        columns = [column.slice(start, stop - start) for column in self.columns]
        return Block(self.path, self.first + start, self.texts[start:stop], reasons, columns)


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one file that belong to one shard.

    Attributes:
        file: the index of the file among the inputs.
        row: the number of the first row, counted from 0.
        rows: how many.
        offset: where the first row begins in the decompressed file, in bytes; 0 for parquet, which has row groups.
    """

    file: int
    row: int
    rows: int
    offset: int


class Reader:
    """Reads pieces of the inputs. A piece that begins where the last one ended is read on from there."""

    def __init__(self, sources: Sequence[Source], layout: Layout) -> None:
        self._sources = sources
        self._layout = layout
        self._at: tuple[int, int] | None = None
        self._blocks: Iterator[Block] = iter(())
        self._rest: Block | None = None

    def read(self, piece: Piece) -> Iterator[Block]:
        """The rows of a piece, some at a time.

        Raises:
            ValueError: if the file ends before the piece, or is broken.
            OSError: if it cannot be read.
        """
        source = self._sources[piece.file]
        if self._at != (piece.file, piece.row):
            self._rest = None
            self._blocks = read_blocks(source, self._layout, piece.row, piece.offset)
        self._at = None  # until this piece is read to its end
        left = piece.rows
        while left:
            block = self._rest or next(self._blocks, None)
            self._rest = None
            if block is None:
                row = piece.row + piece.rows - left
                raise ValueError(f"{source.path}: it ends after {row} rows, expected more. It was changed while it was read.")
            if len(block) > left:
                self._rest = block.part(left, len(block))
                block = block.part(0, left)
            left -= len(block)
            if not left:
                self._at = (piece.file, piece.row + piece.rows)
            yield block


def read_blocks(source: Source, layout: Layout, row: int = 0, offset: int = 0) -> Iterator[Block]:
    """The rows of a file from `row` on, which begins at `offset`."""
    if source.kind == "parquet":
        yield from _parquet(source, layout, row)
        return
    with contextlib.closing(source.open_lines(offset)) as stream, broken_is_an_error(source):
        yield from _blocks(_records(source, stream, layout, at_start=offset == 0), source, layout, row)


@contextlib.contextmanager
def broken_is_an_error(source: Source) -> Iterator[None]:
    """Turns what pyarrow raises at a broken file into an error that names it."""
    pa = arrow()
    try:
        yield
    except (pa.ArrowException, EOFError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise ValueError(
            f"{source.path}: the {source.kind} file is broken ({lines[0].rstrip('.')}). Replace it, and go on."
        ) from error
    except OSError as error:
        if error.filename is not None:
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        raise OSError(f"{source.path}: cannot be read ({lines[0].rstrip('.')}).") from error


def open_parquet(source: Source) -> Any:
    """A `pyarrow.parquet.ParquetFile` that reads row groups as a stream, whatever their size."""
    return arrow("pyarrow.parquet").ParquetFile(source.open_raw(), pre_buffer=False, buffer_size=1 << 20)


def _parquet(source: Source, layout: Layout, row: int) -> Iterator[Block]:
    with broken_is_an_error(source), open_parquet(source) as file:
        start, group, groups = 0, 0, file.metadata.num_row_groups
        while group < groups and start + file.metadata.row_group(group).num_rows <= row:
            start += file.metadata.row_group(group).num_rows
            group += 1
        names = list(dict.fromkeys([layout.text, *(name for name, _ in layout.fields)]))
        skip = row - start
        for batch in file.iter_batches(batch_size=BLOCK, row_groups=list(range(group, groups)), columns=names):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            kept = batch.slice(skip)
            skip = 0
            texts, reasons = _texts(kept.column(layout.text))
            yield Block(source.path, row, texts, reasons, [kept.column(name) for name, _ in layout.fields])
            row += kept.num_rows


def _texts(column: Any) -> tuple[list[str | None], dict[int, str]]:
    """The texts of an Arrow array. Its bytes may be no UTF-8, which is not checked when they are written."""
    values: list[object]
    reasons: dict[int, str] = {}
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = []
        for index, scalar in enumerate(column):
            try:
                values.append(scalar.as_py())
            except UnicodeDecodeError as error:
                values.append(None)
                reasons[index] = f"not UTF-8 ({error.reason})"
    return _only_texts(values, reasons), reasons


def _only_texts(values: Iterable[object], reasons: dict[int, str]) -> list[str | None]:
    """The values that are texts; why another one is none is added to the reasons."""
    texts: list[str | None] = []
    for index, value in enumerate(values):
        reason = reasons.get(index) or why_no_text(value)
        if reason:
            reasons[index] = reason
        texts.append(None if reason else value)  # type: ignore[arg-type]
    return texts


def why_no_text(value: object) -> str | None:
    """Why a value cannot be encoded; None for a text.

    >>> why_no_text("a"), why_no_text(None), why_no_text(1)
    (None, 'null, expected a text', 'found int, expected a text')
    """
    if isinstance(value, str):
        if value.isascii():
            return None
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"a lone surrogate at character {error.start}, expected Unicode text"
        return None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "null, expected a text"
    return f"found {type(value).__name__}, expected a text"


@dataclass
class Record:
    """A row of a line format: its text or the reason why it has none, and the values of the layout's fields."""

    text: object
    values: Sequence[object]
    reason: str | None = None


def _blocks(records: Iterable[Record], source: Source, layout: Layout, row: int) -> Iterator[Block]:
    some: list[Record] = []
    held = 0
    for record in records:
        some.append(record)
        held += len(record.text) if isinstance(record.text, str) else 0
        if len(some) == BLOCK or held >= BLOCK_CHARACTERS:
            yield _block(some, source, layout, row)
            row += len(some)
            some, held = [], 0
    if some:
        yield _block(some, source, layout, row)


def _block(records: list[Record], source: Source, layout: Layout, row: int) -> Block:
    reasons = {index: record.reason for index, record in enumerate(records) if record.reason}
    texts = _only_texts((record.text for record in records), reasons)
    columns = []
    for position, (name, kind) in enumerate(layout.fields):
        columns.append(_array([record.values[position] for record in records], name, kind, reasons))
    for index in reasons:
        texts[index] = None
    return Block(source.path, row, texts, reasons, columns)


def _array(values: list[object], name: str, kind: Any, reasons: dict[int, str]) -> Any:
    """An Arrow array of a column; a value of another type is null, and its row fails."""
    pa = arrow()
    wrong = (pa.ArrowException, TypeError, ValueError, OverflowError)
    try:
        return pa.array(values, type=kind)
    except wrong:
        fitting: list[object] = []
        for index, value in enumerate(values):
            try:
                pa.array([value], type=kind)
                fitting.append(value)
            except wrong:
                fitting.append(None)
                reasons.setdefault(index, f"{name!r}: found {type(value).__name__}, expected {kind}, as in the first rows")
        return pa.array(fitting, type=kind)


def _records(source: Source, stream: Iterable[bytes], layout: Layout, *, at_start: bool) -> Iterator[Record]:
    lines = without_mark(stream) if at_start else iter(stream)
    if source.kind == "txt":
        yield from (_plain(line) for line in lines)
    elif source.kind == "jsonl":
        names = [name for name, _ in layout.fields]
        yield from (_json(line, layout.text, names) for line in lines)
    else:
        header = layout_of_table(source)
        index = header.index(layout.text)
        fields = [header.index(name) for name, _ in layout.fields]
        rows = source_rows(source, lines)
        if at_start:
            next(rows)
        for _, row in rows:
            if len(row) != len(header):
                yield Record(None, [None] * len(fields), f"found {len(row)} fields, expected {len(header)}, as in the first line")
            else:
                yield Record(row[index], [row[at] for at in fields])


def layout_of_table(source: Source) -> list[str]:
    """The names of the columns, from the first line of a csv or tsv file.

    Raises:
        ValueError: if the file is empty.
    """
    with contextlib.closing(source.open_lines()) as stream, broken_is_an_error(source):
        for _, names in source_rows(source, without_mark(stream)):
            return names
    raise ValueError(f"{source.path}: found an empty file, expected a first line with the names of the columns.")


def without_mark(stream: Iterable[bytes]) -> Iterator[bytes]:
    """The lines without a byte-order mark at the beginning."""
    for number, line in enumerate(stream):
        data = line.removeprefix(BYTE_ORDER_MARK) if number == 0 else line
        if data:
            yield data


def source_rows(source: Source, lines: Iterable[bytes]) -> Iterator[tuple[int, list[str]]]:
    """The rows of a csv file, or of a tsv file, which has no quotes. What is not UTF-8 becomes lone surrogates: its row fails."""
    texts = (line.decode("utf-8", "surrogateescape") for line in lines)
    quoted = source.kind == "csv"
    return table_rows(texts, f"{source.path}, in what was read", "," if quoted else "\t", quoted=quoted)


def _plain(line: bytes) -> Record:
    try:
        return Record(line.removesuffix(b"\n").removesuffix(b"\r").decode(), ())
    except UnicodeDecodeError as error:
        return Record(None, (), f"not UTF-8 ({error.reason})")


def _json(line: bytes, column: str, names: list[str]) -> Record:
    nothing = [None] * len(names)
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Record(None, nothing, f"not UTF-8 ({error.reason})")
    except (ValueError, RecursionError) as error:
        return Record(None, nothing, f"not JSON ({error})")
    if not isinstance(value, dict):
        return Record(None, nothing, f"found {type(value).__name__}, expected an object with a field {column!r}")
    missing = [name for name in (column, *names) if name not in value]
    values = [value.get(name) for name in names]
    if missing:
        return Record(None, values, f"no field {missing[0]!r} among {', '.join(map(repr, value)) or 'none'}")
    return Record(value[column], values)
