"""How the json files of a checkpoint are read: strictly, field by field.

Nothing here is guessed. A field is either right, or absent with a default that the reference (transformers,
sentence-transformers) has too, or it raises a `CheckpointError` that names the file, the field, what was found, what was
expected, and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from minisbert.errors import CheckpointError

Find = Callable[[str], "Path | None"]
"""Given a file's path inside a checkpoint, where it lies on this machine, or None if the checkpoint has no such file."""

Choice = TypeVar("Choice", bound=str)

# Far above every published BERT. A larger number is a broken or hostile file, and must not reserve any memory.
LARGEST_SIZE: Final = 1 << 20
LARGEST_WIDTH: Final = 1 << 16
LARGEST_JSON: Final = 64 << 20  # bytes

_REQUIRED: Final = object()

DEFAULT: Final = "the default"


class MissingFileError(CheckpointError):
    """A checkpoint lacks a file that is needed; `load` adds what it has instead.

    Attributes:
        folder: that of the module, inside the checkpoint.
    """

    def __init__(self, message: str, folder: str = "") -> None:
        super().__init__(message)
        self.folder = folder


class Fields:
    """One json object, read field by field; every complaint names file, field, found and expected."""

    def __init__(self, values: dict[str, object], file: str) -> None:
        self.values = values
        self.file = file

    def refuse(self, field: str, expected: str, remedy: str = "Correct the file, or take an unchanged copy.") -> NoReturn:
        """Raises the CheckpointError that says what is wrong with a field."""
        found = brief(self.values[field]) if field in self.values else "no such field"
        raise CheckpointError(f"{self.file}: field {field!r}: found {found}, expected {expected}. {remedy}")

    def integer(self, field: str, *, minimum: int = 1, maximum: int = LARGEST_SIZE, default: object = _REQUIRED) -> int:
        """An integer from `minimum` to `maximum`. `true` is not a number, although Python says so."""
        value = self.values.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            self.refuse(field, f"an integer from {minimum} to {maximum}")
        return value

    def below_one(self, field: str, *, default: float, zero: bool) -> float:
        """A number above 0, or from 0 if `zero` says so, and below 1: the ε of a layer norm, a share that dropout drops."""
        value = self.values.get(field, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1 or not (value or zero):
            self.refuse(field, f"a number {'from' if zero else 'above'} 0 and below 1")
        return float(value)

    def boolean(self, field: str, *, default: bool | None) -> bool | None:
        """True or false; `null` and a field that is not there both mean the default."""
        value = self.values.get(field)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(field, "true or false")
        return value

    def string(self, field: str, *, default: object = _REQUIRED) -> str:
        """A text."""
        value = self.values.get(field, default)
        if not isinstance(value, str):
            self.refuse(field, "a text")
        return value

    def text(self, field: str) -> str | None:
        """A text; `null` and a field that is not there both mean None."""
        return None if self.values.get(field) is None else self.string(field)

    def source(self, field: str) -> str:
        """Where the value in force comes from: this file, or nowhere."""
        return self.file if self.values.get(field) is not None else DEFAULT

    def choice(self, field: str, choices: Sequence[Choice], *, default: object = _REQUIRED) -> Choice:
        """One of a few texts."""
        value = self.values.get(field, default)
        for choice in choices:
            if value == choice:
                return choice
        self.refuse(field, "one of " + ", ".join(choices))

    def must_be(self, field: str, expected: object, why: str) -> None:
        """Refuses a switch that is set to anything but what minisbert does."""
        if self.values.get(field, expected) != expected:
            self.refuse(field, json.dumps(expected), why)


def refuse_remote_code(fields: Fields) -> None:
    """`auto_map` names Python files of the checkpoint that were meant to be run instead of BERT."""
    if fields.values.get("auto_map") is not None:
        fields.refuse(
            "auto_map",
            "no such field",
            "It names code that comes with the checkpoint, and minisbert runs none: load this checkpoint with "
            "sentence-transformers, if you trust that code.",
        )


def brief(value: object) -> str:
    """A json value as it stands in an error message: its text, cut when long, and its type.

    >>> brief("yes")
    '"yes" (str)'
    """
    try:
        text = json.dumps(value, ensure_ascii=False)
    except ValueError:  # an integer of more digits than Python prints
        text = "a number beyond measure"
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


def read_json(path: Path, file: str) -> object:
    """Parses one json file, refusing what json forbids or leaves open: NaN, a key given twice, bad UTF-8, endless nesting.

    Args:
        path: where the file lies.
        file: its name inside the checkpoint, for messages.
    """

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        values = dict(pairs)
        if len(values) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"the key {twice!r} is given twice")
        return values

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a json number")

    try:
        size = path.stat().st_size
        if size > LARGEST_JSON:
            raise CheckpointError(
                f"{file}: {size:,} bytes, expected at most {LARGEST_JSON:,}. Take an unchanged copy of the checkpoint."
            )
        text = path.read_bytes().decode()
        value: object = json.loads(text, object_pairs_hook=once, parse_constant=no_constant)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()  # json accepts a lone surrogate, and all code after it fails on one
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file}: not valid json ({error}). The file may be cut off or damaged; take an unchanged copy of it."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error}). Check the file and its permissions.") from error
    return value


def read_fields(find: Find, file: str) -> Fields | None:
    """The fields of a json file that holds one object, or None if the checkpoint has no such file."""
    path = find(file)
    if path is None:
        return None
    values = read_json(path, file)
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: found {brief(values)}, expected a json object {{...}}. Take an unchanged copy of it.")
    return Fields(values, file)


def unknown(fields: Fields, known: set[str]) -> list[str]:
    """A load warning about fields of a module that minisbert does not know and does not use."""
    names = sorted(brief(name) for name in fields.values if name not in known)
    return [f"{fields.file}: not known here, and not used: {listed(names, 5)}"] if names else []


def listed(items: Sequence[str], most: int) -> str:
    """The first of them, and how many more there are.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def inside(folder: str, file: str) -> str:
    """The path of a module's file inside the checkpoint; the folder of the first module is usually its root, ""."""
    return f"{folder}/{file}" if folder else file
