"""The output folder: its lock, its manifest, its journal, and what a resumed run keeps.

    vectors/shard-000000.parquet …        nothing but shards, so that every reader of parquet takes the folder as it is
    vectors/_minisbert/manifest.json      the model, every setting, the inputs; when all is done, every shard
    vectors/_minisbert/errors.jsonl       the rows that failed, with on_error="skip"; when all is done
    vectors/_minisbert/journal.jsonl      a line for each shard, while there are shards to do
    vectors/_minisbert/writing/           files that are not whole yet
    vectors/_minisbert/lock               locked by the run that works here

Names that begin with "_" are left out by readers of folders of parquet files (Arrow, Spark, Hive).

A shard is first renamed to its final name, and then gets a line in the journal. So a killed run leaves one of these: a file in
`writing`, which is removed; or a shard without a complete line in the journal, which is made again with the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from minisbert.checkpoint.cache import absolute, sha256
from minisbert.corpus.inputs import is_uri
from minisbert.corpus.shards import sync_folder
from minisbert.errors import MinisbertError, warn

FORMAT = 1
OWN = "_minisbert"


class CorpusError(MinisbertError):
    """An output folder cannot be used: it belongs to another corpus, another run works in it, or it is damaged."""


class Folder:
    """An output folder.

    Args:
        path: where it is or is to be.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        text = os.fspath(path)
        if is_uri(text):
            raise ValueError(
                f"out: found {text!r}, expected a folder on a disk, because a shard takes its name by renaming. "
                "Write to a folder, and copy it there."
            )
        self.path = absolute(text)
        self.own = self.path / OWN
        self.writing = self.own / "writing"
        self.manifest = self.own / "manifest.json"
        self.journal = self.own / "journal.jsonl"
        self.errors = self.own / "errors.jsonl"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder if necessary, and locks it for this run. The lock ends with the process.

        Raises:
            CorpusError: if it holds something else, or another run works in it.
            OSError: if it cannot be written.
        """
        if self.path.exists():
            if not self.path.is_dir():
                raise CorpusError(f"out: {str(self.path)!r} is a file, expected a folder or a free name.")
            strangers = sorted(entry.name for entry in self.path.iterdir() if entry.name != OWN)
            if strangers and not self.manifest.is_file():
                raise CorpusError(
                    f"out: the folder {str(self.path)!r} holds {strangers[0]!r} and no {OWN}/manifest.json, expected "
                    "an empty folder or one that minisbert corpus made. Name another."
                )
        self.own.mkdir(parents=True, exist_ok=True)
        with (self.own / "lock").open("a+") as file:
            if not _lock(file):
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise CorpusError(f"out: {holder} works in {str(self.path)!r} now. Wait until it is done, or name another folder.")
            file.truncate(0)
            file.write(f"process {os.getpid()}")
            file.flush()
            self.writing.mkdir(exist_ok=True)
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # a full disk has an error of its own already
                    file.truncate(0)

    def open(self, header: dict[str, Any]) -> dict[int, dict[str, Any]]:
        """Writes the header to a new manifest, or compares it with the existing one; removes incomplete files.

        Args:
            header: the model, the settings, the inputs: the same for every run in this folder.

        Returns:
            The entries of the shards that exist with the right checksum, by their indices.

        Raises:
            CorpusError: if the folder was made with another header; the message says what differs.
        """
        self._sweep()
        before = self._read_manifest()
        if before is None:
            self._write(self.manifest, json_text({**header, "complete": False}))
            return {}
        differ = differences({key: before.get(key) for key in header}, json.loads(json.dumps(header)))
        if differ:
            more = f" ({len(differ) - 4} more)" if len(differ) > 4 else ""
            raise CorpusError(
                f"out: {str(self.path)!r} was made with other settings: {'; '.join(differ[:4])}{more}. "
                "Name another folder, or resume with the same settings."
            )
        entries = self._entries(before)
        good = self._check(entries)
        lines = "".join(json.dumps(entry) + "\n" for entry in good.values())
        self._write(self.journal, lines)
        if before["complete"] and len(good) < len(entries):
            self._write(self.manifest, json_text({**header, "complete": False}))
        return good

    def record(self, entry: dict[str, Any]) -> None:
        """Notes in the journal that a shard is done."""
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def finish(self, header: dict[str, Any], entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Writes the errors and the complete manifest, which it returns, and removes the journal.

        The header is that of `open`; the entries are those of all shards.
        """
        machines: list[dict[str, Any]] = []
        shards: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        for entry in sorted(entries, key=lambda entry: entry["shard"]):
            shard = dict(entry)
            failed += shard.pop("errors")
            if shard["machine"] not in machines:
                machines.append(shard["machine"])
            shard["machine"] = machines.index(shard["machine"])
            shards.append(shard)
        if failed:
            self._write(self.errors, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in failed))
        manifest = {**header, "complete": True, "machines": machines, "shards": shards}
        self._write(self.manifest, json_text(manifest))
        self.journal.unlink(missing_ok=True)
        self._sweep()
        self.writing.rmdir()
        return manifest

    def read_complete(self) -> dict[str, Any]:
        """The manifest of a complete corpus.

        Raises:
            CorpusError: if there is none, or it is not complete.
        """
        manifest = self._read_manifest()
        if manifest is None:
            raise CorpusError(f"{str(self.path)!r} holds no {OWN}/manifest.json, expected a folder that minisbert corpus made.")
        if not manifest["complete"]:
            raise CorpusError(f"{str(self.path)!r} is not complete. Run the command that made it again, which resumes it.")
        return manifest

    def _sweep(self) -> None:
        """Removes files of killed writers. A writer that still runs ends with an error, because its file has no name any more."""
        for path in self.writing.iterdir():
            if re.search(r"\.[0-9a-f]{32}$", path.name):
                path.unlink(missing_ok=True)

    def _read_manifest(self) -> dict[str, Any] | None:
        try:
            manifest = json.loads(self.manifest.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CorpusError(f"{self.manifest}: no JSON ({error}). It was changed; name another folder.") from error
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
            raise CorpusError(f"{self.manifest}: found the format {found!r}, expected {FORMAT}. Use the minisbert that made it.")
        return manifest

    def _entries(self, manifest: dict[str, Any]) -> dict[int, dict[str, Any]]:
        """The entries that the journal has, or the manifest if it is complete."""
        entries: dict[int, dict[str, Any]] = {}
        if manifest["complete"]:
            for shard in manifest["shards"]:
                entries[shard["shard"]] = {**shard, "machine": manifest["machines"][shard["machine"]], "errors": []}
            if self.errors.exists():
                for line in self.errors.read_text("utf-8").splitlines():
                    row = json.loads(line)
                    entries[row["shard"]]["errors"].append(row)
            return entries
        if self.journal.exists():
            for line in self.journal.read_text("utf-8").splitlines():
                with contextlib.suppress(ValueError):  # half a line, from a kill
                    entry = json.loads(line)
                    entries[entry["shard"]] = entry
        return entries

    def _check(self, entries: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """The entries whose files are as they say."""
        good: dict[int, dict[str, Any]] = {}
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            reasons = pool.map(lambda entry: damage(self.path / entry["file"], entry), entries.values())
            for entry, reason in zip(entries.values(), reasons, strict=True):
                if reason is None:
                    good[entry["shard"]] = entry
                else:
                    warn(f"{entry['file']}: {reason}. The shard is made again.")
        return good

    def _write(self, path: Path, text: str) -> None:
        """Writes a temporary file, and renames it to its final name."""
        temporary = self.writing / f"{path.name}.{uuid.uuid4().hex}"
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(self.own)


def damage(path: Path, entry: dict[str, Any]) -> str | None:
    """What is wrong with a shard's file; None if its bytes are those that were written."""
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            return f"found {size} bytes, expected {entry['bytes']}"
        return None if sha256(path) == entry["sha256"] else "its sha256 is not the one that the manifest has"
    except FileNotFoundError:
        return "the file is missing"


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two json values, field by field.

    >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
    ['a.b is 1 there and 3 here']
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*before, *now]))
        return [text for key in keys for text in differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [text for i, pair in enumerate(zip(before, now, strict=True)) for text in differences(*pair, f"{name}[{i}]")]
    if before == now:
        return []
    if isinstance(before, list) and isinstance(now, list):
        return [f"{name} has {len(before)} entries there and {len(now)} here"]
    return [f"{name} is {_short(before)} there and {_short(now)} here"]


def _short(value: Any) -> str:
    """A json value for a message; of a long one the beginning and the end, where paths differ."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 90 else f"{text[:20]}…{text[-69:]}"


def json_text(value: Any) -> str:
    """A json file for people too."""
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _lock(file: IO[str]) -> bool:
    """Locks an open file for this process alone; False if another has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 20)  # beyond what is written, which others may read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
