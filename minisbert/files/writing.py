"""Writes files that get their name only when they are complete. Never replaces a file that minisbert did not write."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

HEAD_BYTES = 4096
"""The number of bytes of an older file that are read to find out which program wrote it."""


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str], ours: Callable[[bytes], bool], name: str = "path") -> Iterator[Path]:
    """A temporary file beside `path` that replaces it at the end. Readers never see a partial file, and an error leaves none.

    Args:
        path: the file to write. If it is a link, its target is written.
        ours: whether minisbert wrote a file that begins with these bytes, at most `HEAD_BYTES`. An empty file may be replaced.
        name: the argument that gave the path, for messages.

    Raises:
        FileExistsError: if minisbert did not write the file that is there. It is checked again at the end.
        ValueError: if a folder or a device is there, or the folder cannot be written.
    """
    path = Path(path).resolve()
    _check(path, ours, name)
    if not path.parent.is_dir():
        raise ValueError(f"{name}: the folder {str(path.parent)!r} does not exist. Create it first.")
    try:
        handle, temporary_name = tempfile.mkstemp(prefix=".minisbert-", dir=path.parent)
    except OSError as error:
        raise ValueError(f"{name}: nothing can be written to the folder {str(path.parent)!r} ({error.strerror}).") from error
    os.close(handle)
    temporary = Path(temporary_name)
    try:
        yield temporary
        _check(path, ours, name)
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], text: str, ours: Callable[[bytes], bool], name: str = "path") -> None:
    """Writes a text as UTF-8 through `written_whole`; a device or a pipe is written directly."""
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        Path(path).write_text(text, encoding="utf-8", newline="\n")
        return
    with written_whole(path, ours, name) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _check(path: Path, ours: Callable[[bytes], bool], name: str) -> None:
    if path.is_dir():
        raise ValueError(f"{name}: {str(path)!r} is a folder, expected the name of a file.")
    if not path.exists():
        return
    if not path.is_file():
        raise ValueError(f"{name}: {str(path)!r} is not a regular file, expected one, or an unused name.")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head and not ours(head):
        raise FileExistsError(
            f"{name}: found {str(path)!r}, which minisbert did not write and which would be lost, expected a free name or an "
            "earlier result of the same kind. Give another name, or move it away."
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
