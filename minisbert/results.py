"""From the rows of batches to what the caller gets: a row for each text, in the order of the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minisbert.batching import Batch
from minisbert.bert import Run


@dataclass(frozen=True)
class Window:
    """Some texts on their way.

    Attributes:
        texts: the caller's.
        unique: each of them once.
        ids: the word pieces of each of `unique`.
        start: how many texts came before these, in earlier windows.
    """

    texts: list[str]
    unique: list[str]
    ids: list[list[int]]
    start: int


class TokenRows:
    """Takes padded token vectors as a tensor takes rows, and keeps of each sentence what is its own: [tokens, hidden]."""

    def __init__(self, ids: list[list[int]]) -> None:
        self.lengths = [len(some) for some in ids]
        self.rows: dict[int, Tensor] = {}

    def __setitem__(self, indices: list[int], values: Tensor, /) -> None:
        for index, value in zip(indices, values, strict=True):
            self.rows[index] = value[: self.lengths[index]].clone()  # or all of its batch would stay in memory with it

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]


def first_not_finite(vectors: Tensor, batch: Batch) -> int | None:
    """The lowest index in a batch whose vector, or vectors of tokens, hold NaN or infinite numbers: [sentences, …] in its order."""
    finite = vectors.isfinite()
    if finite.all():
        return None
    rows = finite.flatten(1).all(dim=1).tolist()
    return min(index for index, good in zip(batch.order, rows, strict=True) if not good)


def padded(token_vectors: Tensor, runs: Sequence[Run]) -> Tensor:
    """[tokens, hidden] → [sentences, longest, hidden], with zeros behind the shorter ones."""
    longest = max(length for _, length in runs)
    rectangles = []
    start = 0
    for sentences, length in runs:
        stop = start + sentences * length
        rectangles.append(F.pad(token_vectors[start:stop].view(sentences, length, -1), (0, 0, 0, longest - length)))
        start = stop
    return torch.cat(rectangles)


def in_order(rows: Tensor | TokenRows, window: Window, *, as_numpy: bool) -> Any:
    """The rows of the different texts → the rows of the caller's."""
    row = {text: index for index, text in enumerate(window.unique)}
    order = [row[text] for text in window.texts]
    if isinstance(rows, TokenRows):
        tokens = [rows[index].clone() for index in order]  # equal texts do not share memory: a caller may change one of them
        return [vectors.numpy() for vectors in tokens] if as_numpy else tokens
    vectors = rows if len(window.unique) == len(window.texts) else rows[order]
    return vectors.numpy() if as_numpy else vectors


def beginning(text: str, most: int = 40) -> str:
    """A text as an error shows it.

    >>> beginning("a" * 100, most=3)
    "'aaa'…"
    """
    return repr(text) if len(text) <= most else f"{text[:most]!r}…"
