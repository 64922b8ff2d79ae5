"""What can go wrong, by kind.

Every message says what was found, what was expected, and what to do. Wrong argument types and values are
`TypeError` and `ValueError`, as everywhere in Python; these classes are for what only minisbert knows about.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class MinisbertError(Exception):
    """The base of every error that minisbert raises on its own account."""


class CheckpointError(MinisbertError):
    """The files of a checkpoint are missing, broken, contradictory, or of a kind that minisbert does not run."""


class ModelNotFoundError(MinisbertError):
    """The model was not found; the message lists the places that were searched and what each one answered."""


class MissingExtraError(MinisbertError, ImportError):
    """An optional package is needed for what was asked; the message says how to install it."""


class NotFiniteError(MinisbertError):
    """A vector would hold NaN or infinite values; the message names the first text whose vector does."""


class MinisbertWarning(UserWarning):
    """Something that changes a result, or may surprise, and is not an error."""


def imported(name: str, package: str, place: str = "", instead: str = "") -> Any:
    """A module of an optional package.

    Args:
        name: of the module, such as "ray.data".
        package: what installs it, as pip names it.
        place: what needs it, for the message.
        instead: what else the caller could do, for the message.

    Raises:
        MissingExtraError: if it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"{place}{package} cannot be imported ({error}). Run pip install {shlex.quote(package)}{instead}."
        ) from error


_PACKAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")  # noqa: PTH100, PTH118, PTH120 - with a slash at its end


def warn(message: str) -> None:
    """Gives a `MinisbertWarning` at the line of the caller's program: the innermost one that is not in this package."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        frame = frame.f_back
    place = frame.f_code.co_filename, frame.f_lineno
    module, registry = frame.f_globals.get("__name__", ""), frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, MinisbertWarning, *place, module=module, registry=registry)


@contextmanager
def rust_errors(complaint: Callable[[str], CheckpointError]) -> Iterator[None]:
    """Turns whatever a Rust library raises at a broken file into one error; safetensors and tokenizers raise bare Exceptions.

    A bug in such a library shows as a `PanicException`, which is a BaseException, so that no `except Exception` catches it. Here it
    means no more than any other error: the file cannot be read.

    Args:
        complaint: the reason → the error.
    """
    try:
        yield
    except CheckpointError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # Ctrl-C and the like
        lines = str(error).splitlines() or [type(error).__name__]
        raise complaint(lines[0][:200]) from error
