"""Texts from files and vectors to files, both as streams: neither ever stands in memory as a whole.

A file of vectors begins with a header that tells how many there are, which is known at the end only. So its place is kept free
(both formats let a header be filled up with spaces), the rows are written behind it as they come, and the header last.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from minisbert.errors import MissingExtraError
from minisbert.inference.inputs import check_text

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("txt", "jsonl", "csv", "tsv")
SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv"}


@contextlib.contextmanager
def open_texts(file: str, kind: str | None = None, column: str | None = None) -> Iterator[Iterator[str]]:
    """Opens a file of texts, UTF-8, to be read one by one.

    Args:
        file: its path; "-" is stdin.
        kind: "txt", a text a line; "jsonl", a JSON text or object a line; "csv", with a row of names first; "tsv", the same with
            tabs and without quotes. Default: by the file's name; "txt" for any other name and for stdin.
        column: which column holds the texts, or which field of the objects of a jsonl file.

    Raises:
        ValueError: naming the file and the line, for what is not UTF-8, not of that kind, or holds no text in that column.
        OSError: if it cannot be read.
    """
    name = "stdin" if file == "-" else file
    suffix = Path(file).suffix.lower()
    if suffix == ".json" and kind is None:
        raise ValueError(f"{name}: found a JSON file, expected one of {', '.join(FORMATS)}. Write a JSON value a line, as .jsonl.")
    kind = kind or SUFFIXES.get(suffix, "txt")
    if kind == "txt" and column is not None:
        raise ValueError(f"--column: found {column!r}, expected none, since {name} is read as txt. Name its --format.")
    if kind in ("csv", "tsv") and column is None:
        raise ValueError(f"--column: not given, expected the name of the column of {name} that holds the texts.")
    with contextlib.ExitStack() as stack:
        opened = _stdin() if file == "-" else stack.enter_context(Path(file).open("rb"))
        lines = _lines(opened, name)
        if kind == "txt":
            yield (line for _, line in lines)
        elif kind == "jsonl":
            yield _json_texts(lines, name, column)
        else:
            before = csv.field_size_limit(sys.maxsize)  # a long text is no error
            stack.callback(csv.field_size_limit, before)
            yield _table_texts(lines, name, "," if kind == "csv" else "\t", column or "")


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise ValueError("stdin: it is closed, expected sentences. Name a file, or pipe the sentences in.")
    if sys.stdin.isatty():
        print("minisbert: reading sentences from the terminal, one a line; end with Ctrl-D", file=sys.stderr)  # noqa: T201
    return sys.stdin.buffer


def _lines(file: Iterable[bytes], name: str) -> Iterator[tuple[int, str]]:
    """Numbered lines; a byte-order mark and the line ends (LF or CRLF) do not belong to them."""
    for number, line in enumerate(file, start=1):
        data = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if number == 1 and not data:
            return  # nothing but a byte-order mark
        try:
            yield number, data.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}, line {number}: not UTF-8 ({error.reason}). Convert the file to UTF-8.") from error


def _json_texts(lines: Iterable[tuple[int, str]], name: str, column: str | None) -> Iterator[str]:
    for number, line in lines:
        place = f"{name}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place}: not JSON ({error}). Expected one JSON value a line.") from error
        if isinstance(value, dict):
            fields = ", ".join(map(repr, value)) or "none"
            if column is None:
                raise ValueError(f"{place}: found an object with the fields {fields}. Name the one with the text: --column NAME.")
            if column not in value:
                raise ValueError(f"{place}: found the fields {fields}, expected {column!r} among them.")
            value, place = value[column], f"{place}, field {column!r}"
        elif column is not None:
            raise ValueError(f"{place}: found {type(value).__name__}, expected an object with a field {column!r}.")
        yield check_text(value, place)


class _Tabs(csv.excel_tab):
    quoting = csv.QUOTE_NONE


def _table_texts(lines: Iterable[tuple[int, str]], name: str, delimiter: str, column: str) -> Iterator[str]:
    # No quotes with tabs: a tab or a line end cannot be within a field then, and a quotation mark is a character as any other.
    dialect = csv.excel if delimiter == "," else _Tabs
    rows = csv.reader((line + "\n" for _, line in lines), dialect, strict=True)
    try:
        names = next(rows, None)
        if names is None:
            raise ValueError(f"{name}: found an empty file, expected a first line with the names of the columns.")
        if names.count(column) != 1:
            found = f"{names.count(column)} times" if column in names else "not"
            raise ValueError(f"{name}: the column {column!r} is {found} among {', '.join(map(repr, names))}; expected once.")
        index = names.index(column)
        for row in rows:
            if len(row) != len(names):
                raise ValueError(
                    f"{name}, line {rows.line_num}: found {len(row)} fields, expected {len(names)}, as in the first line."
                )
            yield row[index]
    except csv.Error as error:
        raise ValueError(
            f"{name}, line {rows.line_num}: not a table of fields with {delimiter!r} between them ({error})."
        ) from error


HEADER_BYTES = 192


class VectorFile:
    """A .safetensors file with one tensor "embeddings" [rows, dim], or a .npy file of the same, written row by row.

    Neither safetensors nor numpy is needed for it, whose own functions take all rows at once.

    Args:
        path: where to write.
        kind: ".safetensors" or ".npy".
        dimension: numbers in a row.
    """

    def __init__(self, path: Path, kind: str, dimension: int) -> None:
        self.kind = kind
        self.dimension = dimension
        self.rows = 0
        self.item = "F32"
        self._file = path.open("wb")
        self._file.write(b" " * HEADER_BYTES)

    def write(self, rows: Tensor) -> None:
        """Appends rows, [n, dim], float32 or float64."""
        rows = rows.contiguous()
        self.item = {4: "F32", 8: "F64"}[rows.element_size()]
        self.rows += len(rows)
        if rows.nbytes:
            # The tensor's own memory: no copy, and no numpy.
            self._file.write(memoryview((ctypes.c_char * rows.nbytes).from_address(rows.data_ptr())))
        self._file.flush()

    def finish(self) -> None:
        """Writes the header, and has everything on the disk."""
        self._file.seek(0)
        self._file.write(self.header())
        self._file.flush()
        os.fsync(self._file.fileno())

    def header(self) -> bytes:
        """The first `HEADER_BYTES` bytes of the file."""
        shape = [self.rows, self.dimension]
        if self.kind == ".npy":  # https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1.0
            code = {"F32": "<f4", "F64": "<f8"}[self.item]
            text = f"{{'descr': '{code}', 'fortran_order': False, 'shape': {tuple(shape)}, }}".encode()
            start = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
            return start + text.ljust(HEADER_BYTES - 11) + b"\n"
        # https://huggingface.co/docs/safetensors: the length of the header, the header, the numbers
        size = self.rows * self.dimension * (4 if self.item == "F32" else 8)
        entry = {"dtype": self.item, "shape": shape, "data_offsets": [0, size]}
        return (HEADER_BYTES - 8).to_bytes(8, "little") + json.dumps({"embeddings": entry}).encode().ljust(HEADER_BYTES - 8)

    def __enter__(self) -> VectorFile:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        # What could not be written fails again when the file is closed, and would stand for the first error.
        with contextlib.suppress(OSError) if error else contextlib.nullcontext():
            self._file.close()


def is_vector_file(head: bytes) -> bool:
    """Whether a file that begins so is one that `VectorFile` wrote."""
    length = (HEADER_BYTES - 8).to_bytes(8, "little")
    npy = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
    return head.startswith((length + b'{"embeddings"', length + b'{"__metadata__"', npy))


def read_vectors(path: Path, rows: int) -> Any:
    """The [rows, dim] of a file as `VectorFile` writes it: a tensor, or a numpy array that stays on the disk until it is sliced.

    Args:
        path: a .safetensors file with a tensor "embeddings", or a .npy file.
        rows: how many there have to be.

    Raises:
        MissingExtraError: if it is .npy and there is no numpy.
        ValueError: if it is another kind of file, broken, or holds something else.
        OSError: if it cannot be read.
    """
    kind = path.suffix.lower()
    if kind not in (".safetensors", ".npy"):
        raise ValueError(f"--vectors: found {str(path)!r}, expected a name that ends in .safetensors or .npy.")
    with path.open("rb"):  # what cannot be opened is an error that names the file, which those of safetensors do not
        vectors = _read_npy(path) if kind == ".npy" else _read_safetensors(path)
    if len(vectors.shape) != 2 or len(vectors) != rows:
        raise ValueError(
            f"--vectors: {path} holds {list(vectors.shape)} numbers, expected one row for each of the {rows} sentences. "
            "Was the file changed since? Make them anew with minisbert encode."
        )
    return vectors


def _read_npy(path: Path) -> Any:
    try:
        import numpy as np
    except ImportError as error:
        raise MissingExtraError(
            "--vectors: .npy needs numpy, which is not installed. Run pip install 'minisbert[numpy]', or use .safetensors."
        ) from error
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"--vectors: {path} is no .npy file of numbers ({error}).") from error


def _read_safetensors(path: Path) -> Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            if "embeddings" not in names:
                raise ValueError(f"--vectors: {path} holds {', '.join(names) or 'nothing'}, expected a tensor 'embeddings'.")
            return file.get_tensor("embeddings")
    except SafetensorError as error:
        raise ValueError(f"--vectors: {path} is no .safetensors file ({error}).") from error
