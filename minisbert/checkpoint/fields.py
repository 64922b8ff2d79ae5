"""Reads the json files of a checkpoint strictly, field by field.

Nothing is guessed. A field must be right, or absent if transformers or sentence-transformers has a default for it. Otherwise a
`CheckpointError` names the file and the field, and says what was found, what was expected, and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from minisbert.errors import CheckpointError

Find = Callable[[str], "Path | None"]
"""A file's path inside a checkpoint → its path on this machine, or None if the checkpoint has no such file."""

Choice = TypeVar("Choice", bound=str)

# Far above every published BERT. A larger value comes from a broken or hostile file, and must not allocate memory.
LARGEST_SIZE: Final = 1 << 20
LARGEST_WIDTH: Final = 1 << 16
LARGEST_JSON: Final = 64 << 20  # bytes

_REQUIRED: Final = object()

DEFAULT: Final = "the default"


class MissingFileError(CheckpointError):
    """A checkpoint lacks a required file. `load` adds to the message which other files it has.

    Attributes:
        folder: that of the module, inside the checkpoint.
    """

    def __init__(self, message: str, folder: str = "") -> None:
        super().__init__(message)
        self.folder = folder


class Fields:
    """One json object, read field by field. Every error names file, field, found and expected value."""

    def __init__(self, values: dict[str, object], file: str) -> None:
        self.values = values
        self.file = file

    def refuse(self, field: str, expected: str, remedy: str = "Correct the file, or take an unchanged copy.") -> NoReturn:
        """Raises a CheckpointError for a field."""
        found = brief(self.values[field]) if field in self.values else "no such field"
        raise CheckpointError(f"{self.file}: field {field!r}: found {found}, expected {expected}. {remedy}")

    def integer(self, field: str, *, minimum: int = 1, maximum: int = LARGEST_SIZE, default: object = _REQUIRED) -> int:
        """An integer from `minimum` to `maximum`. `true` is refused, although Python's bool is an int."""
        value = self.values.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            self.refuse(field, f"an integer from {minimum} to {maximum}")
        return value

    def below_one(self, field: str, *, default: float, zero: bool) -> float:
        """A number below 1 and above 0, or at least 0 if `zero` is true: the ε of a layer norm, a dropout probability."""
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
        """Where the value in force comes from: this file, or the default."""
        return self.file if self.values.get(field) is not None else DEFAULT

    def choice(self, field: str, choices: Sequence[Choice], *, default: object = _REQUIRED) -> Choice:
        """One of a few texts."""
        value = self.values.get(field, default)
        for choice in choices:
            if value == choice:
                return choice
        self.refuse(field, "one of " + ", ".join(choices))

    def must_be(self, field: str, expected: object, why: str) -> None:
        """Refuses a field that is present with any other value than `expected`, the only one that minisbert computes."""
        if self.values.get(field, expected) != expected:
            self.refuse(field, json.dumps(expected), why)


def refuse_remote_code(fields: Fields) -> None:
    """Refuses a checkpoint with `auto_map`, which names Python files of the checkpoint to run instead of BERT."""
    if fields.values.get("auto_map") is not None:
        fields.refuse(
            "auto_map",
            "no such field",
            "It names code that comes with the checkpoint, and minisbert runs none: load this checkpoint with "
            "sentence-transformers, if you trust that code.",
        )


def brief(value: object) -> str:
    """A json value for an error message: its text, shortened if it is long, and its type.

    >>> brief("yes")
    '"yes" (str)'
    """
    try:
        text = json.dumps(value, ensure_ascii=False)
    except ValueError:  # an integer of more digits than Python prints
        text = "an integer of too many digits"
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


def read_json(path: Path, file: str) -> object:
    """Parses one json file. NaN, duplicate keys, invalid UTF-8 and too deep nesting are refused.

    Args:
        path: the path of the file.
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
            f"{file}: not valid json ({error}). The file may be truncated or damaged; take an unchanged copy of it."
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
    """A load warning for the fields of a module that minisbert does not know; an empty list if there are none."""
    names = sorted(brief(name) for name in fields.values if name not in known)
    return [f"{fields.file}: not known here, and not used: {listed(names, 5)}"] if names else []


def listed(items: Sequence[str], most: int = 20) -> str:
    """The first `most` items, and the number of the others.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def inside(folder: str, file: str) -> str:
    """The path of a file inside the checkpoint; `folder` is that of its module, "" for the root."""
    return f"{folder}/{file}" if folder else file
