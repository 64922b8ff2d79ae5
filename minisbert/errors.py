"""What can go wrong, by kind.

Every message says what was found, what was expected, and what to do. Wrong argument types and values are
`TypeError` and `ValueError`, as everywhere in Python; these classes are for what only minisbert knows about.
"""

from __future__ import annotations


class MinisbertError(Exception):
    """The base of every error that minisbert raises on its own account."""


class CheckpointError(MinisbertError):
    """The files of a checkpoint are missing, broken, contradictory, or of a kind that minisbert does not run."""


class ModelNotFoundError(MinisbertError):
    """No place that was asked has the model; the message lists the places and what each one answered."""


class MissingExtraError(MinisbertError, ImportError):
    """An optional package is needed for what was asked; the message names the extra that installs it."""


class NotFiniteError(MinisbertError):
    """A vector would hold NaN or infinite numbers; the message names the first text whose vector does."""


class MinisbertWarning(UserWarning):
    """Something that changes a result, or may surprise, and is not an error."""
