"""Replaces an older checkpoint by a new folder, and never anything but a checkpoint.

The new folder is written beside the target, and replaces it in one step. Only files that belong to the older checkpoint are
removed, one by one: those of `MODEL_FILES` and `ROOT_FILES`, those of the module folders that its modules.json lists, and the
shards that an index lists. Any other file stops the replacement.

    .name.saving-x1y2z3w4/         beside the target `name`, locked by the process that saves
        minisbert.saving           says whose folder this is
        checkpoint/                the new checkpoint; after the exchange, the older one
        old/                       the older one for a moment, where the system cannot exchange two folders
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from minisbert.checkpoint.cache import WEIGHTS

SHARD = re.compile(r"(model|pytorch_model)-\d{5}-of-\d{5}\.(safetensors|bin)", re.ASCII)

MODULE_FILES = ("config.json", *WEIGHTS, *(f"{name}.index.json" for name in WEIGHTS))
"""The files that the folder of any module may hold."""

MODEL_FILES = (
    *MODULE_FILES,
    *("sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "unigram.json"),
)
"""The files that the folder of the first module, usually the root, may hold."""

KEPT = ("README.md", ".gitattributes")
"""Files that people write beside a checkpoint. They are kept."""

ROOT_FILES = ("modules.json", "config_sentence_transformers.json", *KEPT)

MARK, MARK_TEXT = "minisbert.saving", b"minisbert writes a checkpoint in this folder, and removes it when it is done.\n"


def check_replaceable(target: Path) -> None:
    """Refuses to replace anything but a checkpoint.

    Raises:
        FileExistsError: if it holds anything else; the message names the first file that belongs to no checkpoint.
    """
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise FileExistsError(f"{target}: found a file, expected a folder, or nothing yet. Give another path.")
    _, strange = _contents(target)
    if strange:
        raise FileExistsError(
            f"{target}: found {strange!r}, which belongs to no checkpoint and would be lost, expected a new or empty folder, or "
            "one that holds a checkpoint and nothing else. Give another path, or move it away."
        )
    if any(target.iterdir()) and not _is_checkpoint(target):
        raise FileExistsError(
            f"{target}: found neither a modules.json nor a config.json of a model, so this is no checkpoint; expected a new or "
            "empty folder. Give another path."
        )


def _is_checkpoint(folder: Path) -> bool:
    """Whether modules.json or config.json is that of a model, and not another program's file of the same name."""
    rows, config = _json(folder / "modules.json"), _json(folder / "config.json")
    modules = isinstance(rows, list) and any(isinstance(row, dict) and isinstance(row.get("type"), str) for row in rows)
    return modules or (isinstance(config, dict) and isinstance(config.get("model_type"), str))


def _contents(folder: Path) -> tuple[list[str], str]:
    """The contents of a checkpoint's folder, as paths inside it.

    Returns:
        The files and folders that belong to the checkpoint, each folder after its contents, and modules.json last; and the first
        file or folder that does not belong to it, or "".
    """
    modules = [_plain_path(row.get("path")) for row in _rows(folder)]
    model = modules[0] if modules else ""
    files = {*ROOT_FILES}
    for place in {"", model, *modules}:
        files |= {_join(place, name) for name in (MODEL_FILES if place in ("", model) else MODULE_FILES)}
        for weights in WEIGHTS:
            files |= {_join(place, shard) for shard in _shards(folder / place / f"{weights}.index.json")}
    folders = {str(parent) for place in modules for parent in (Path(place), *Path(place).parents)} - {"."}
    found: list[str] = []
    strange: list[str] = []
    for at, inner_folders, inner_files in os.walk(folder, topdown=False, onerror=_raise):
        place = os.path.relpath(at, folder) if Path(at) != folder else ""
        links = [name for name in inner_folders if (Path(at) / name).is_symlink()]  # os.walk lists links to folders as folders
        for name in sorted([*inner_files, *links]):
            path = _join(place, name)
            (found if path in files and name not in links else strange).append(path)
        if place in folders:
            found.append(place)
        elif place and not inner_files and not inner_folders:
            strange.append(place)
    found.sort(key=lambda path: path == "modules.json")
    return found, min(strange, default="")


def _raise(error: OSError) -> None:
    raise error


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows = _json(folder / "modules.json")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _shards(index: Path) -> set[str]:
    """The shards that an index lists, if they have the names of shards."""
    where = _json(index)
    where = where.get("weight_map") if isinstance(where, dict) else None
    shards = where.values() if isinstance(where, dict) else ()
    return {shard for shard in shards if isinstance(shard, str) and SHARD.fullmatch(shard)}


def _plain_path(path: object) -> str:
    """A module's folder as modules.json gives it; "" for the root, and for a path outside the checkpoint."""
    if not isinstance(path, str) or Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
        return ""
    return "" if Path(path) == Path() else str(Path(path))


def _join(place: str, name: str) -> str:
    return str(Path(place) / name)


def _json(path: Path) -> Any:
    """The content of a json file, or None if it cannot be read, which loading the checkpoint reports."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _remove(folder: Path) -> None:
    """Removes the files of a checkpoint, and its folder if it is empty then."""
    with suppress(OSError):
        for path in [*(_contents(folder)[0]), ""]:
            place = folder / path
            place.rmdir() if place.is_dir() else place.unlink()  # a link to a folder is never listed


# --- beside the target --------------------------------------------------------------------------------------------------------


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """An empty folder on the same disk, which is removed afterwards. Also removes folders that killed processes have left."""
    start = f".{target.name}.saving-"
    for left in sorted(target.parent.glob(f"{glob.escape(start)}????????")):
        if not left.is_symlink() and (lock := _lock(left)) is not None:  # no process holds it
            _clear(left, target)
            os.close(lock)
    # It is renamed to a name of that pattern after it is locked, because another process would remove it if it were unlocked.
    unlocked = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
    (unlocked / MARK).write_bytes(MARK_TEXT)
    lock = _lock(unlocked)
    folder = unlocked.rename(target.parent / f"{start}{unlocked.name.rpartition('-')[2]}")
    try:
        inner = folder / "checkpoint"
        inner.mkdir()
        yield inner
    finally:
        _clear(folder, target)
        if lock is not None:
            os.close(lock)


def _clear(folder: Path, target: Path) -> None:
    """Removes a folder that `beside` made, unless other files were put into it."""
    with suppress(OSError):
        if (folder / MARK).read_bytes() != MARK_TEXT:
            return
        old = folder / "old"
        if old.is_dir() and not os.path.lexists(target):  # killed between two renamings
            old.rename(target)
        for inner in folder / "checkpoint", old:
            if inner.is_dir() and not inner.is_symlink():
                _remove(inner)
        if {path.name for path in folder.iterdir()} == {MARK}:
            (folder / MARK).unlink()
            folder.rmdir()


def _lock(folder: Path) -> int | None:
    """Locks a folder until the process ends; None if another process has locked it."""
    try:
        import fcntl
    except ImportError:  # Windows, where leftovers stay
        return None
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return None
    return opened


def flush(folder: Path) -> None:
    """Waits until all files are on the disk, because the content must be there before the folder gets its name."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_symlink() or (path.is_dir() and os.name == "nt"):
            continue
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        except OSError:  # some file systems cannot do this for folders
            if path.is_file():
                raise
        finally:
            os.close(opened)


# --- in its place -------------------------------------------------------------------------------------------------------------


def keep(target: Path, new: Path) -> None:
    """Copies the files of `KEPT` from the older checkpoint; a link stays a link."""
    for name in KEPT:
        if os.path.lexists(target / name):
            shutil.copy2(target / name, new / name, follow_symlinks=False)


def replace(new: Path, target: Path) -> None:
    """Moves a folder of `beside` to the target. An older checkpoint there is moved to where the new one was.

    Raises:
        FileExistsError: if the target holds anything but a checkpoint; it stays unchanged.
    """
    check_replaceable(target)  # it may have changed since the first check
    if not target.exists() or not any(target.iterdir()):
        if target.exists() and os.name == "nt":
            target.rmdir()
        new.rename(target)
        return
    _swap(new, target)
    try:
        check_replaceable(new)  # the older one, which may have changed until it was moved; no other process knows its new name
    except FileExistsError as error:
        _swap(new, target)
        raise FileExistsError(str(error).replace(str(new), str(target), 1)) from None
    for name in KEPT:  # they may have changed since they were copied
        if os.path.lexists(new / name):
            (new / name).replace(target / name)


def _swap(new: Path, target: Path) -> None:
    if not _exchange(new, target):
        # If the system cannot exchange two folders, neither has the name for a moment; both are complete.
        old = new.parent / "old"
        target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
        old.rename(new)


def _exchange(a: Path, b: Path) -> bool:
    """Exchanges two folders in one step, if the system can: Linux since 3.15, macOS since 10.12. Returns whether it did."""
    import ctypes

    if os.name != "posix":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    here, there = os.fsencode(a), os.fsencode(b)
    if hasattr(library, "renameat2"):
        current_folder, exchange = -100, 2
        return bool(library.renameat2(current_folder, here, current_folder, there, exchange) == 0)
    if hasattr(library, "renamex_np"):
        swap = 2
        return bool(library.renamex_np(here, there, swap) == 0)
    return False
