"""Which sentences are computed together, and in what order.

Pure functions on lists of lengths: what they return can be written down by hand, and the tests do.

A batch is measured in *tokens*, not in sentences, since that is what it costs. Longest first: the largest batch comes at once, so
memory is at its peak, and a time estimate at its most pessimistic, from the start. Equal lengths stand side by side, because the
model computes each run of them as one rectangle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Batch:
    """One call of the model.

    Attributes:
        order: which sentences, as indices into the caller's list, in the order in which they are computed.
        runs: (sentences, length) for each stretch of equal length, in that order.
    """

    order: tuple[int, ...]
    runs: tuple[tuple[int, int], ...]

    @property
    def tokens(self) -> int:
        """What this batch costs."""
        return sum(sentences * length for sentences, length in self.runs)


def runs_of(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Stretches of equal length.

    >>> runs_of([5, 5, 3])
    ((2, 5), (1, 3))
    """
    return tuple((len(list(group)), length) for length, group in groupby(lengths))


def plan(lengths: Sequence[int], batch_tokens: int, batch_size: int | None = None) -> list[Batch]:
    """Packs sentences into batches, longest first, ties in the caller's order.

    A batch is closed when the next sentence would take it above `batch_tokens` tokens or `batch_size` sentences. A sentence that is
    longer than `batch_tokens` makes a batch of its own.

    Args:
        lengths: tokens of each sentence.
        batch_tokens: the most tokens of one batch.
        batch_size: the most sentences of one batch; None: no limit.

    >>> [batch.order for batch in plan([3, 1, 2], batch_tokens=4)]
    [(0,), (2, 1)]
    """
    batches: list[Batch] = []
    order: list[int] = []
    tokens = 0

    def close() -> None:
        nonlocal order, tokens
        if order:
            batches.append(Batch(tuple(order), runs_of([lengths[index] for index in order])))
        order, tokens = [], 0

    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if tokens + lengths[index] > batch_tokens or len(order) == batch_size:
            close()
        order.append(index)
        tokens += lengths[index]
    close()
    return batches


LEAST_TOKENS, MOST_TOKENS = 128, 256
"""The bounds of a batch's tokens. Fewer do not keep a core busy between Python's steps. More are no faster on one core (sentences
per second of all-MiniLM-L6-v2 at 256, 512, 768 and 1,536 tokens: 603, 585, 561, 585 short ones and 131, 130, 129, 134 mixed ones),
and every 100 tokens take 5 MB more for each worker."""


def fair_share(tokens: int, threads: int) -> int:
    """How many tokens a batch should have so that so many threads are done with all of them at about the same time.

    >>> fair_share(tokens=400, threads=2), fair_share(tokens=1_000_000, threads=2), fair_share(tokens=9, threads=2)
    (200, 256, 128)
    """
    return min(MOST_TOKENS, max(LEAST_TOKENS, -(-tokens // threads)))


def filled(tokens: int) -> int:
    """The number of tokens that a batch of so many is filled up to: the next of a few sizes, 4 or 8 to each doubling.

    They are multiples of 4: a matrix library computes rows in groups of 4, and a rest of 1 to 3 rows with other roundings; so every
    row has the same bits in any company. And they are few: oneDNN prepares each product anew for each number of rows, in half a
    millisecond, and keeps what it prepared, nearly a megabyte; with any number of tokens that came to a gigabyte in time.

    >>> [filled(tokens) for tokens in (3, 9, 17, 100, 250, 1000)]
    [8, 12, 20, 112, 256, 1024]
    """
    doubling = max(8, 1 << (tokens - 1).bit_length())  # the power of 2 that is not below
    step = max(4, doubling // (8 if doubling <= 128 else 16))
    return max(8, -(-tokens // step) * step)


def spare_tokens(tokens: int) -> int:
    """How many tokens to add to a batch, as sentences of one token each that nobody reads, to fill it up.

    >>> spare_tokens(30)
    2
    """
    return filled(tokens) - tokens
