"""What a caller passes, checked: texts and options. Every refusal names what was found, what was expected, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from collections.abc import Set as AbstractSet


def read_texts(sentences: object) -> tuple[list[str], bool]:
    """The caller's sentences as a list of plain texts, and whether it was a single text.

    Anything that gives texts in an order will do: a list, a tuple, a generator, a numpy array of strings, a pandas Series. Neither
    numpy nor pandas is imported for it.

    Raises:
        TypeError: if it has no order (a set, a dict), is no collection of texts, or holds something that is no text.
        ValueError: if a text holds half a surrogate pair, or an array has more than one axis.

    >>> read_texts(text for text in ("a", "b"))
    (['a', 'b'], False)
    """
    if isinstance(sentences, str):
        return [check_text(sentences, "sentences")], True
    return list(iterate_texts(sentences)), False


def iterate_texts(sentences: object) -> Iterator[str]:
    """The texts of a collection, one by one, each of them checked when it comes; what is no collection is refused at once."""
    return (check_text(text, f"sentences[{index}]") for index, text in enumerate(_collection(sentences)))


def _collection(sentences: object) -> Iterable[object]:
    kind = type(sentences).__name__
    if isinstance(sentences, (AbstractSet, Mapping)) and not isinstance(sentences, KeysView):
        remedy = "Pass list(it.values()), say" if isinstance(sentences, Mapping) else "Pass sorted(it), say"
        raise TypeError(
            f"sentences: found {kind}, expected texts in an order, such as a list, since row i of the result belongs to text i. "
            f"{remedy}, and keep that list."
        )
    if isinstance(sentences, (bytes, bytearray, memoryview)):
        raise TypeError(f"sentences: found {kind}, expected str. Decode it first: data.decode('utf-8').")
    axes = getattr(sentences, "ndim", 1)  # numpy, pandas and torch all have it
    if axes != 1:
        raise ValueError(f"sentences: found {kind} with {axes} axes, expected one axis of texts. Pass one column of it.")
    if not isinstance(sentences, Iterable):
        raise TypeError(f"sentences: found {kind}, expected a str, or str in an order such as a list.")
    return sentences


def check_text(text: object, name: str) -> str:
    """The text itself, if it is one that can be tokenized."""
    if not isinstance(text, str):
        raise TypeError(f"{name}: found {type(text).__name__}, expected str.{_advice(text)}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{name}: found {text[error.start]!r} at character {error.start}, half a surrogate pair, expected Unicode text. "
                "It comes from bytes that were not UTF-8, or from a pair that was split; decode the text anew."
            ) from error
    return text


def _advice(entry: object) -> str:
    # NaN is what pandas has for a missing text, and newer versions have NA.
    if entry is None or (isinstance(entry, float) and math.isnan(entry)) or type(entry).__name__ == "NAType":
        return " A missing text has no vector; leave it out, or pass '' for it."
    if isinstance(entry, (list, tuple)) and len(entry) == 2 and all(isinstance(part, str) for part in entry):
        return (
            " A pair has no vector: this model gives each text its own, and two are compared by their vectors. "
            "Encode the first texts and the second texts, each as a list."
        )
    if isinstance(entry, (list, tuple)):
        return " Lists of lists are not flattened; pass one flat list."
    if isinstance(entry, (bytes, bytearray)):
        return " Decode it first: data.decode('utf-8')."
    return " Write it out first, such as str(number)." if isinstance(entry, (int, float)) else ""


def flag(name: str, value: object) -> bool:
    """True or False, and nothing that merely counts as one of them."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: found {type(value).__name__}, expected True or False.")
    return value


def count(name: str, value: object, *, optional: bool = True) -> int:
    """A whole number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: found {type(value).__name__}, expected an int{' or None' if optional else ''}.")
    if value < 1:
        raise ValueError(f"{name}: found {value}, expected at least 1.")
    return value


def choice(name: str, value: object, choices: Sequence[str]) -> str:
    """One of a few words."""
    expected = f"{', '.join(repr(word) for word in choices[:-1])} or {choices[-1]!r}"
    if not isinstance(value, str):
        raise TypeError(f"{name}: found {type(value).__name__}, expected {expected}.")
    if value not in choices:
        raise ValueError(f"{name}: found {value!r}, expected {expected}.")
    return value


def numpy_wanted(*, convert_to_numpy: bool | None = None, convert_to_tensor: bool | None = None) -> bool:
    """Whether arrays are asked for in place of tensors, by either of the two options that sentence-transformers has for it.

    There the default is an array, and here a tensor. What is asked for means the same: `convert_to_tensor=True` comes first.

    Raises:
        TypeError: if one of them is neither True, False nor None.
        ValueError: if both are False.

    >>> numpy_wanted(), numpy_wanted(convert_to_numpy=True), numpy_wanted(convert_to_tensor=False)
    (False, True, True)
    """
    for name, value in ("convert_to_numpy", convert_to_numpy), ("convert_to_tensor", convert_to_tensor):
        if value is not None:
            flag(name, value)
    if convert_to_tensor is False and convert_to_numpy is False:
        raise ValueError(
            "convert_to_tensor: found False, and convert_to_numpy as well, expected one of them at most. "
            "For a list of tensors pass neither, and take list(vectors)."
        )
    return not convert_to_tensor and bool(convert_to_numpy or convert_to_tensor is False)
