"""Text files, line by line, and the rows of .jsonl, .csv and .tsv files in them. Errors name the file and the line."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def numbered(file: Iterable[bytes], name: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of UTF-8, without a byte-order mark and the line ends: LF, CRLF, or CR if there is no LF.

    Raises:
        ValueError: if a line is not UTF-8.
    """
    for number, line in enumerate(_old_line_ends(file), start=1):
        data = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if number == 1 and not data:
            return  # nothing but a byte-order mark
        try:
            yield number, data.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}, line {number}: not UTF-8 ({error.reason}). Convert the file to UTF-8.") from error


def _old_line_ends(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines that end in CR alone, if the file has no LF at all; such a file is read as a whole."""
    for number, line in enumerate(lines):
        if number == 0 and b"\r" in line and not line.endswith(b"\n"):
            yield from line.removesuffix(b"\r").split(b"\r")
        else:
            yield line


def json_values(lines: Iterable[tuple[int, str]], name: str) -> Iterator[tuple[str, Any]]:
    """Yields the place of each line that is not blank, such as "file, line 3", and its value.

    Raises:
        ValueError: if a line is not JSON.
    """
    for number, line in lines:
        place = f"{name}, line {number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place}: not JSON ({error}). Expected one JSON value a line.") from error
        yield place, value


def table_rows(lines: Iterable[str], name: str, delimiter: str = ",", *, quoted: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of each row's last line, and the row.

    Without quotes, a field holds neither delimiters nor line ends, and a quotation mark is a plain character.

    Raises:
        ValueError: if the quotes are broken.
    """
    if not quoted:
        texts = (line.removesuffix("\n").removesuffix("\r") for line in lines)
        yield from ((number, text.split(delimiter)) for number, text in enumerate(texts, start=1))
        return
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise ValueError(
            f"{name}, line {rows.line_num}: not a table of fields with {delimiter!r} between them ({error})."
        ) from error


def table_cells(
    lines: Iterable[tuple[int, str]], name: str, columns: Sequence[str], delimiter: str, *, quoted: bool, option: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """Yields the place of each row, such as "file, line 3", and its cells in some columns. The first line has the column names.

    Args:
        lines: see `numbered`. Empty ones are skipped.
        name: of the file.
        columns: the names of the columns.
        delimiter: what separates the fields.
        quoted: see `table_rows`.
        option: what chooses another delimiter, for a message.

    Raises:
        ValueError: if a column is missing, or a row has more or fewer fields than the first.
    """
    rows = table_rows((line + "\n" for _, line in lines), name, delimiter, quoted=quoted)
    filled = ((number, row) for number, row in rows if row not in ([], [""]))
    _, names = next(filled, (0, None))
    if names is None:
        raise ValueError(f"{name}: found an empty file, expected a first line with the names of the columns.")
    places = [column_index(column, names, name, _other_delimiter(names, delimiter, column, option)) for column in columns]
    for number, row in filled:
        place = f"{name}, line {number}"
        if len(row) != len(names):
            raise ValueError(f"{place}: found {len(row)} fields, expected {len(names)}, as in the first line.")
        yield place, [row[index] for index in places]


def column_index(column: str, names: Sequence[str], place: str, advice: str = "") -> int:
    """The index of a column among the names.

    Raises:
        ValueError: if it is missing, or there more than once.
    """
    if names.count(column) != 1:
        found = f"{names.count(column)} times" if column in names else "not"
        known = ", ".join(map(repr, names)) or "none"
        raise ValueError(f"{place}: the column {column!r} is {found} among {known}; expected once.{advice}")
    return names.index(column)


def _other_delimiter(names: list[str], delimiter: str, column: str, option: str) -> str:
    """The advice for a table whose fields are separated by another character than was expected."""
    line = delimiter.join(names)
    for other, shown in (",", ","), (";", ";"), ("\t", "tab"), ("|", "|"):
        if option and other != delimiter and [part.strip(' "') for part in line.split(other)].count(column) == 1:
            return f" Its fields are separated by {other!r}: pass {option} {shown!r}."
    return ""


@contextlib.contextmanager
def long_fields() -> Iterator[None]:
    """Lets csv fields be longer than Python's default limit of 128 KiB."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)
