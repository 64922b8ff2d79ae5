"""The exceptions, and how warnings are given.

Every message says what was found, what was expected, and what to do. Wrong types and values of arguments raise `TypeError` and
`ValueError`, as usual in Python; these classes are for all other errors.
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
    """The base class of minisbert's own errors."""


class CheckpointError(MinisbertError):
    """The files of a checkpoint are missing, broken, contradictory, or not supported."""


class ModelNotFoundError(MinisbertError):
    """The model was not found; the message lists the places that were searched, and the result of each."""


class MissingExtraError(MinisbertError, ImportError):
    """An optional package is needed but not installed; the message says how to install it."""


class NotFiniteError(MinisbertError):
    """A vector would hold NaN or infinite values; the message names the first text with such a vector."""


class MinisbertWarning(UserWarning):
    """Something that changes a result or may be unexpected, but is not an error."""


def imported(name: str, package: str, place: str = "", instead: str = "") -> Any:
    """Imports a module of an optional package.

    Args:
        name: the name of the module, such as "ray.data".
        package: the package that contains it, as pip names it.
        place: what needs it, for the message.
        instead: an alternative for the caller, for the message.

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
    """Gives a `MinisbertWarning` at the line of the caller's program: the innermost frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        frame = frame.f_back
    place = frame.f_code.co_filename, frame.f_lineno
    module, registry = frame.f_globals.get("__name__", ""), frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, MinisbertWarning, *place, module=module, registry=registry)


@contextmanager
def rust_errors(complaint: Callable[[str], CheckpointError]) -> Iterator[None]:
    """Converts every error of a Rust library for a broken file into one error; safetensors and tokenizers raise bare Exceptions.

    A bug in such a library raises a `PanicException`, a BaseException that `except Exception` does not catch. It is treated as any
    other error: the file cannot be read.

    Args:
        complaint: the reason → the error to raise.
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
