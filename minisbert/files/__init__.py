"""Reads texts from files and writes vectors to files, both as streams, so that memory never holds a whole file.

A file of vectors begins with a header that states their number, which is known only at the end. So space is reserved for the header
(both formats allow padding by spaces), then the rows are written as they come, and the header last.

    lines.py      text files, line by line, and the rows of tables in them
    writing.py    files that get their name only when they are complete

It imports inference, for the check of a text. It is imported by cli, corpus, train and tracing.
"""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import importlib
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from minisbert.errors import imported
from minisbert.files.lines import json_values, long_fields, numbered, table_cells
from minisbert.inference.inputs import check_text

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("txt", "jsonl", "csv", "tsv")
SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv"}


@contextlib.contextmanager
def open_texts(
    file: str, kind: str | None = None, column: str | None = None, delimiter: str | None = None
) -> Iterator[Iterator[str]]:
    """Opens a UTF-8 file of texts, which are read one by one.

    Args:
        file: its path; "-" is stdin. A file whose name ends in .gz or .zst is decompressed.
        kind: "txt", one text per line; "jsonl", one JSON text or object per line; "csv", whose first row has the names of the
            columns; "tsv", the same with tabs and without quotes. Default: by the file's name; "txt" for other names and stdin.
            Empty lines of a jsonl, csv or tsv file are skipped; those of a txt file are empty texts.
        column: the column of the texts, or the field of the objects of a jsonl file.
        delimiter: the character that separates the fields of a csv or tsv file. Default: a comma, or a tab.

    Raises:
        MissingExtraError: if it is .zst, and neither Python nor an installed package can read that.
        ValueError: if a line is not UTF-8, not of this format, or has no text in this column; names the file and the line.
        OSError: if it cannot be read.
    """
    name = "stdin" if file == "-" else file
    packed = Path(file).suffix.lower() if file.lower().endswith((".gz", ".zst")) else ""
    suffix = Path(file[: len(file) - len(packed)]).suffix.lower()
    if suffix == ".json" and kind is None:
        raise ValueError(f"{name}: found a JSON file, expected one of {', '.join(FORMATS)}. Write a JSON value a line, as .jsonl.")
    kind = kind or SUFFIXES.get(suffix, "txt")
    if kind == "txt" and column is not None:
        raise ValueError(f"--column: found {column!r}, expected none, as {name} is read as txt. Give its --format.")
    if kind in ("csv", "tsv") and column is None:
        raise ValueError(f"--column: not given, expected the name of the column of {name} that holds the texts.")
    if delimiter is not None:
        if kind not in ("csv", "tsv"):
            raise ValueError(f"--delimiter: found {delimiter!r}, expected none, as {name} is read as {kind}. Give its --format.")
        delimiter = "\t" if delimiter in ("tab", "\\t") else delimiter
        if len(delimiter) != 1 or delimiter in '\r\n"':
            raise ValueError(f"--delimiter: found {delimiter!r}, expected one character, such as ';', or the word tab.")
    with contextlib.ExitStack() as stack:
        opened = _stdin() if file == "-" else stack.enter_context(Path(file).open("rb"))
        lines = numbered(_unpacked(opened, packed, name), name)
        if kind == "txt":
            yield (line for _, line in lines)
        elif kind == "jsonl":
            yield _json_texts(lines, name, column)
        else:
            stack.enter_context(long_fields())
            delimiter = delimiter or ("," if kind == "csv" else "\t")
            cells = table_cells(lines, name, [column or ""], delimiter, quoted=kind == "csv", option="--delimiter")
            yield (text for _, (text,) in cells)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise ValueError("stdin: it is closed, expected sentences. Name a file, or pipe the sentences in.")
    if sys.stdin.isatty():
        print("minisbert: reading sentences from the terminal, one a line; end with Ctrl-D", file=sys.stderr)  # noqa: T201
    return sys.stdin.buffer


def _unpacked(file: BinaryIO, packed: str, name: str) -> Iterable[bytes]:
    """The lines of a file that may be compressed: `packed` is ".gz", ".zst" or ""."""
    if not packed:
        return file
    return _reported(gzip.open(file) if packed == ".gz" else _split(_zstd(file, name)), packed, name)


def _reported(lines: Iterable[bytes], packed: str, name: str) -> Iterator[bytes]:
    try:
        yield from lines
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{name}: not a whole {packed} file ({error}). Copy it again, or correct its suffix.") from error


def _zstd(file: BinaryIO, name: str) -> Iterator[bytes]:
    try:  # Python has it from 3.14 on
        new = importlib.import_module("compression.zstd").ZstdDecompressor
    except ImportError:
        new = imported("zstandard", "zstandard", f"{name}: ").ZstdDecompressor().decompressobj
    frame = None
    while data := file.read(1 << 16):
        while data:  # a file may hold several frames
            frame = frame or new()
            try:
                yield frame.decompress(data)
            except Exception as error:  # each of the two packages has its own
                raise EOFError(str(error)) from error
            data = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("it ends within a frame")


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _json_texts(lines: Iterable[tuple[int, str]], name: str, column: str | None) -> Iterator[str]:
    for place, value in json_values(lines, name):
        if isinstance(value, dict):
            fields = ", ".join(map(repr, value)) or "none"
            if column is None:
                raise ValueError(f"{place}: found an object with the fields {fields}. Name the one with the text: --column NAME.")
            if column not in value:
                raise ValueError(f"{place}: found the fields {fields}, expected {column!r} among them.")
            yield check_text(value[column], f"{place}, field {column!r}")
        elif column is not None:
            raise ValueError(f"{place}: found {type(value).__name__}, expected an object with a field {column!r}.")
        else:
            yield check_text(value, place)


HEADER_BYTES = 192
"""The size of a header without notes."""


class VectorFile:
    """A .safetensors file with one tensor "embeddings" [rows, dim], or a .npy file of the same, written row by row.

    The functions of safetensors and numpy are not used, because they take all rows at once.

    Args:
        path: where to write.
        kind: ".safetensors" or ".npy".
        dimension: the dimension of each row.
        notes: the origin of the vectors, for the metadata of .safetensors; .npy has no metadata.
    """

    def __init__(self, path: Path, kind: str, dimension: int, notes: Mapping[str, str] | None = None) -> None:
        self.notes = {"__metadata__": {"made_by": "minisbert", **notes}} if notes and kind == ".safetensors" else {}
        more = len(json.dumps(self.notes).encode()) if self.notes else 0
        self.header_bytes = HEADER_BYTES + (more + 7) // 8 * 8
        self.kind = kind
        self.dimension = dimension
        self.rows = 0
        self.item = "F32"
        self._file = path.open("wb")
        self._file.write(b" " * self.header_bytes)

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
        """Writes the header, and waits until everything is on the disk."""
        self._file.seek(0)
        self._file.write(self.header())
        self._file.flush()
        os.fsync(self._file.fileno())

    def header(self) -> bytes:
        """The first `header_bytes` bytes of the file."""
        shape = [self.rows, self.dimension]
        if self.kind == ".npy":  # https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1.0
            code = {"F32": "<f4", "F64": "<f8"}[self.item]
            text = f"{{'descr': '{code}', 'fortran_order': False, 'shape': {tuple(shape)}, }}".encode()
            start = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
            return start + text.ljust(HEADER_BYTES - 11) + b"\n"
        # https://huggingface.co/docs/safetensors: the length of the header, the header, the values
        size = self.rows * self.dimension * (4 if self.item == "F32" else 8)
        entry = {"dtype": self.item, "shape": shape, "data_offsets": [0, size]}
        length = self.header_bytes - 8
        return length.to_bytes(8, "little") + json.dumps(self.notes | {"embeddings": entry}).encode().ljust(length)

    def __enter__(self) -> VectorFile:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        # Closing a file after an error of writing fails again, and would hide the first error.
        with contextlib.suppress(OSError) if error else contextlib.nullcontext():
            self._file.close()


def is_vector_file(head: bytes) -> bool:
    """Whether `VectorFile` wrote a file with this beginning."""
    length = (HEADER_BYTES - 8).to_bytes(8, "little")
    npy = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
    return head.startswith((length + b'{"embeddings"', npy)) or head[8:].startswith(b'{"__metadata__": {"made_by": "minisbert"')


def read_notes(path: Path) -> dict[str, str]:
    """The notes on the origin of the vectors of a file that `read_vectors` reads; empty if it has none."""
    if path.suffix.lower() != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        notes = file.metadata() or {}
    return notes if notes.get("made_by") == "minisbert" else {}


def read_vectors(path: Path, rows: int) -> Any:
    """Reads [rows, dim] from a file of `VectorFile`: a tensor, or a memory-mapped numpy array.

    Args:
        path: a .safetensors file with a tensor "embeddings", or a .npy file.
        rows: the expected number of rows.

    Raises:
        MissingExtraError: if it is .npy and numpy is not installed.
        ValueError: if it is another kind of file, broken, or has other content.
        OSError: if it cannot be read.
    """
    kind = path.suffix.lower()
    if kind not in (".safetensors", ".npy"):
        raise ValueError(f"--vectors: found {str(path)!r}, expected a name that ends in .safetensors or .npy.")
    with path.open("rb"):  # raises an error that names the file, which those of safetensors do not
        vectors = _read_npy(path) if kind == ".npy" else _read_safetensors(path)
    if len(vectors.shape) != 2 or len(vectors) != rows:
        raise ValueError(
            f"--vectors: {path} holds {list(vectors.shape)} values, expected one row for each of the {rows} sentences. "
            "Was the file changed since? Make them again with minisbert encode."
        )
    return vectors


def _read_npy(path: Path) -> Any:
    np = imported("numpy", "numpy", f"--vectors: {path}: ", ", or use .safetensors")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"--vectors: {path} is not a .npy file of numbers ({error}).") from error


def _read_safetensors(path: Path) -> Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            if "embeddings" not in names:
                raise ValueError(f"--vectors: {path} holds {', '.join(names) or 'nothing'}, expected a tensor 'embeddings'.")
            return file.get_tensor("embeddings")
    except SafetensorError as error:
        raise ValueError(f"--vectors: {path} is not a .safetensors file ({error}).") from error
