"""From what the user names (files, folders, globs, URIs) to a list of files, each with its format; and how they are opened."""

from __future__ import annotations

import glob
import importlib
import io
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any

from minisbert.checkpoint.cache import absolute
from minisbert.errors import imported, warn

SUFFIXES = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
}
FORMATS = tuple(dict.fromkeys(SUFFIXES.values()))
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Suffix → pyarrow's name of the compression. Parquet has its own compression inside."""


def arrow(name: str = "pyarrow") -> Any:
    """The module pyarrow, or one inside it such as "pyarrow.parquet".

    Raises:
        MissingExtraError: if it is not installed.
    """
    return imported(name, "pyarrow")


@dataclass(frozen=True)
class Source:
    """An input file.

    Attributes:
        path: an absolute path, or a URI such as s3://bucket/file.parquet.
        kind: one of `FORMATS`.
        compression: "gzip", "zstd" or None.
    """

    path: str
    kind: str
    compression: str | None = None

    @property
    def remote(self) -> bool:
        """Whether it is named by a URI."""
        return is_uri(self.path)

    def open_raw(self) -> Any:
        """The file as it is stored, for random access: a `pyarrow.NativeFile`.

        Raises:
            OSError: if it cannot be opened.
        """
        if not self.remote:
            return arrow().OSFile(self.path)
        system, path = file_system(self.path)
        return system.open_input_file(path)

    def open_lines(self, offset: int = 0) -> IO[bytes]:
        """The decompressed bytes from `offset` on, for reading line by line.

        A compressed file has no random access: the bytes before `offset` are decompressed and dropped.

        Raises:
            OSError: if it cannot be opened or decompressed.
        """
        if not self.remote and self.compression is None:
            file = open(self.path, "rb")  # noqa: PTH123, SIM115 (handed to the caller)
            file.seek(offset)
            return file
        raw = self.open_raw()
        if self.compression is None:
            raw.seek(offset)
            return io.BufferedReader(raw, 1 << 20)
        stream = io.BufferedReader(arrow().CompressedInputStream(raw, self.compression), 1 << 20)
        while offset > 0 and (dropped := len(stream.read(min(offset, 1 << 20)))):
            offset -= dropped
        return stream


def is_uri(name: str) -> bool:
    """Whether a name is a URI, such as s3://bucket/file, and not the path of a file here."""
    return "://" in name


def file_system(uri: str) -> tuple[Any, str]:
    """A pyarrow file system and the path inside it: pyarrow's own where it has one, else fsspec's.

    Raises:
        ValueError: if neither knows the scheme.
        MissingExtraError: if pyarrow is not installed.
    """
    fs = arrow("pyarrow.fs")
    try:
        system, path = fs.FileSystem.from_uri(uri)
    except (ValueError, NotImplementedError) as error:
        scheme = uri.partition("://")[0]
        try:
            fsspec = importlib.import_module("fsspec")
            other, path = fsspec.core.url_to_fs(uri)
        except (ImportError, ValueError) as second:
            raise ValueError(
                f"{uri}: neither pyarrow ({error}) nor fsspec ({second}) opens {scheme}://. Install fsspec and its package for it."
            ) from second
        system = fs.PyFileSystem(fs.FSSpecHandler(other))
    return system, path


def find_sources(inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], kind: str | None = None) -> list[Source]:
    """The files that the inputs name, in the order of the inputs; those of a folder or a glob sorted by name.

    Args:
        inputs: files, folders (searched recursively; names that begin with "." or "_" are left out), globs, URIs.
        kind: one of `FORMATS`, for all of them. Default: by each file's name.

    Raises:
        ValueError: if an input names no file, a file's format is unknown, or a file is named twice.
        OSError: if a folder cannot be read.
    """
    if kind is not None and kind not in FORMATS:
        raise ValueError(f"format: found {kind!r}, expected one of {', '.join(FORMATS)}.")
    names = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    if not names:
        raise ValueError("inputs: found none, expected files, folders or globs.")
    sources: list[Source] = []
    for name in [os.fspath(name) for name in names]:
        sources += _remote(name, kind) if is_uri(name) else _local(name, kind)
    seen: set[str] = set()
    for source in sources:
        if source.path in seen:
            raise ValueError(f"inputs: {source.path} is named twice. Name each file once.")
        seen.add(source.path)
    return sources


def _local(name: str, kind: str | None) -> list[Source]:
    path = str(absolute(name))
    if os.path.isdir(path):  # noqa: PTH112
        found = [os.path.join(top, file) for top, _, files in os.walk(path) for file in files]  # noqa: PTH118
        return _of_folder(name, path, found, kind)
    if os.path.exists(path):  # noqa: PTH110
        return [_source(path, kind)]
    if glob.has_magic(name):
        files = [file for file in sorted(glob.glob(path, recursive=True)) if os.path.isfile(file)]  # noqa: PTH113, PTH207
        if files:
            return [_source(file, kind) for file in files]
    raise ValueError(f"inputs: found no file {name!r}, expected a file, a folder or a glob that matches some.")


def _remote(uri: str, kind: str | None) -> list[Source]:
    fs = arrow("pyarrow.fs")
    name, options = _without_options(uri)
    head = re.split(r"[*?\[]", name, maxsplit=1)[0]
    base = name if head == name else head.rpartition("/")[0]
    system, path = file_system(base + options)
    prefix = base[: len(base) - len(path)] if base.endswith(path) else base.partition("://")[0] + "://"
    if head == name and system.get_file_info(path).type == fs.FileType.File:
        return [_source(uri, kind)]
    infos = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    found = [prefix + info.path for info in infos if info.type == fs.FileType.File]
    if found and head == name:
        return _of_folder(uri, prefix + path, found, kind, options)
    matches = sorted(filter(re.compile(_pattern(name)).fullmatch, found))
    if not matches:
        raise ValueError(f"inputs: found no file {uri!r}, expected a file, a folder or a glob that matches some.")
    return [_source(file + options, kind) for file in matches]


def _without_options(uri: str) -> tuple[str, str]:
    """A URI and the options for pyarrow at its end; a "?" without a name and "=" after it is a glob's.

    >>> _without_options("s3://bucket/x?.csv?region=eu-west-1&scheme=http")
    ('s3://bucket/x?.csv', '?region=eu-west-1&scheme=http')
    """
    name = re.sub(r"\?\w+=.*", "", uri) if is_uri(uri) else uri
    return name, uri[len(name) :]


def _pattern(glob_: str) -> str:
    """A glob as a regular expression; "*" stays within a folder, "**/" does not.

    >>> _pattern("s3://b/**/x*")
    's3://b/(?:.*/)?x[^/]*'
    """
    pieces = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", glob_)
    special = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return "".join(special.get(piece) or (piece if piece.startswith("[") else re.escape(piece)) for piece in pieces)


def _of_folder(name: str, folder: str, files: list[str], kind: str | None, options: str = "") -> list[Source]:
    """The files of a folder whose format is known; the rest is named in a warning."""
    visible = [file for file in sorted(files) if not re.search(r"(^|[/\\])[._]", file[len(folder) :])]
    known = [file for file in visible if kind or _kind(file)[0]]
    if not known:
        raise ValueError(f"inputs: the folder {name!r} holds no file whose name ends in {', '.join(SUFFIXES)}.")
    if len(known) < len(visible):
        other = next(file for file in visible if file not in set(known))
        warn(
            f"inputs: {len(visible) - len(known)} files of {name!r} are left out, such as {os.path.basename(other)!r}. "  # noqa: PTH119
            f"Names end in {', '.join(SUFFIXES)}.",
        )
    return [_source(file + options, kind) for file in known]


def _kind(path: str) -> tuple[str | None, str | None]:
    """The format and the compression that a name says."""
    stem, suffix = os.path.splitext(_without_options(path)[0])  # noqa: PTH122 (it may be a URI, which is no path)
    compression = COMPRESSIONS.get(suffix.lower())
    if compression is not None:
        suffix = os.path.splitext(stem)[1]  # noqa: PTH122
    kind = SUFFIXES.get(suffix.lower())
    return (None if compression and kind == "parquet" else kind), compression


def _source(path: str, kind: str | None) -> Source:
    found, compression = _kind(path)
    if kind is None and found is None:
        raise ValueError(f"{path}: the name says no format, expected one that ends in {', '.join(SUFFIXES)}. Or name the format.")
    return Source(path, kind or found or "", compression)
