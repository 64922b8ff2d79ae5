"""Which sentences are computed together, and in what order.

Pure functions on lists of lengths: what they return can be written down by hand, and the tests do.

A batch is measured in *tokens*, not in sentences, since that is what it costs. Longest first: the largest batch comes at once, so
memory is at its peak, and a time estimate at its most pessimistic, from the start. Equal lengths stand side by side, because the
model computes each length group as one block. `engine.pack` chooses among the two plans here, by the device and by what was asked
for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Batch:
    """One call of the model.

    Attributes:
        indices: which sentences, as indices into the caller's list, in the order in which they are computed.
        groups: (sentences, length) for each length group, in that order.
    """

    indices: tuple[int, ...]
    groups: tuple[tuple[int, int], ...]

    @property
    def tokens(self) -> int:
        """What this batch costs."""
        return sum(sentences * length for sentences, length in self.groups)


def length_groups(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Consecutive equal lengths, counted.

    >>> length_groups([5, 5, 3])
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

    >>> [batch.indices for batch in plan([3, 1, 2], batch_tokens=4)]
    [(0,), (2, 1)]
    """
    indices = _longest_first(lengths)
    batches: list[Batch] = []
    start = stop = tokens = 0
    while start < len(indices):
        while stop < len(indices) and stop - start != batch_size:
            tokens += lengths[indices[stop]]
            if tokens > batch_tokens and stop > start:
                break
            stop += 1
        batches.append(_batch(indices[start:stop], lengths))
        start, tokens = stop, 0
    return batches


LEAST_TOKENS, MOST_TOKENS = 128, 256
"""The bounds of a batch's tokens on a processor. Fewer do not keep a core busy between Python's steps. More are no faster on one
core (sentences per second of all-MiniLM-L6-v2 at 128, 192, 256, 384 and 512 tokens: 532, 583, 589, 581, 589 short ones and 158,
168, 160, 173, 166 mixed ones), and every 100 tokens take 5 MB more for each worker."""


def balanced_batches(lengths: Sequence[int], threads: int, batch_size: int | None = None) -> list[Batch]:
    """`plan` for this number of threads, which compute batches and should finish at about the same time.

    Longest first, ties in the caller's order. There are as many batches for each thread, of equal shares of the tokens, which lie
    between about `LEAST_TOKENS` and `MOST_TOKENS`; a longer sentence makes a batch of its own. A batch may end a quarter below its
    share at most, where it needs the fewest padding tokens (see `bucket_size`), if batches to come make up for it.
    Against steps of 256 tokens, whatever is left over, this computes 1.2 % fewer tokens for the 2,552 short sentences of
    scripts/benchmark, and 16 % fewer on the busier of 2 cores for 64 of them.

    >>> [batch.tokens for batch in balanced_batches([10] * 30, threads=2)]
    [150, 150]
    >>> [batch.tokens for batch in balanced_batches([14] * 100, threads=2)]
    [224, 224, 224, 224, 252, 252]
    >>> [batch.tokens for batch in balanced_batches([14] * 10, threads=2)]
    [140]
    """
    indices = _longest_first(lengths)
    rest = sum(lengths)
    left = min(threads * -(-rest // (threads * MOST_TOKENS)), rest // LEAST_TOKENS)
    batches: list[Batch] = []
    start = 0
    while start < len(indices):
        left = max(-(-rest // MOST_TOKENS), min(left, 2 * rest // LEAST_TOKENS))
        share = rest / left
        end = stop = start
        kept = tokens = 0
        least = 1.0
        while stop < len(indices) and stop - start != batch_size:
            length = lengths[indices[stop]]
            if stop > start and (tokens + length / 2 > share or tokens + length > MOST_TOKENS):
                break
            stop, tokens = stop + 1, tokens + length
            waste = padding_tokens(tokens) / tokens
            if waste <= least or kept < 0.75 * share or left <= threads:
                end, kept, least = stop, tokens, waste
        batches.append(_batch(indices[start:end], lengths))
        start, rest, left = end, rest - kept, left - 1
    return batches


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda index: -lengths[index])


def _batch(indices: Sequence[int], lengths: Sequence[int]) -> Batch:
    return Batch(tuple(indices), length_groups([lengths[index] for index in indices]))


def bucket_size(tokens: int, multiple: int = 1) -> int:
    """The number of tokens that a batch of so many is padded to: the next of a few sizes, 4 to 16 to each doubling.

    They are multiples of 4: a matrix library computes rows in groups of 4, and a rest of 1 to 3 rows with other roundings; so every
    row has the same bits whatever the batch. And they are few: oneDNN prepares each product anew for each number of rows, in half a
    millisecond, and keeps what it prepared, nearly a megabyte; with any number of tokens that came to a gigabyte in time.

    >>> [bucket_size(tokens) for tokens in (3, 9, 17, 100, 250, 300)]
    [8, 12, 20, 112, 256, 304]
    """
    doubling = max(8, 1 << (tokens - 1).bit_length())  # the power of 2 that is not below
    step = max(4, min(16, doubling // 8), doubling // 32)
    size = max(8, -(-tokens // step) * step)
    return -(-size // multiple) * multiple


def padding_tokens(tokens: int, multiple: int = 1) -> int:
    """How many tokens to add to a batch. They belong to no sentence, and their vectors are dropped.

    >>> padding_tokens(30)
    2
    """
    return bucket_size(tokens, multiple) - tokens
