"""Packs sentences into batches: how many tokens a batch has, and which sentences are in it.

Pure functions on lists of lengths; the tests compare them with batches written down by hand.

The size of a batch is its number of *tokens*, not of sentences, because time and memory depend on tokens. Sentences are sorted by
length, longest first, so that memory peaks in the first batch. Sorting also makes equal lengths adjacent, and the model computes
each length group as one block. `pack` decides how many tokens a batch has: on a CPU it takes `balanced_batches`; on a GPU, or if
`batch_tokens` is given, `plan`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

LEAST_TOKENS, MOST_TOKENS = 128, 256
"""The usual bounds of a batch's tokens on a CPU. In smaller batches, Python's overhead weighs more. Larger ones are no faster on
one core, and every 100 tokens take 5 MB more for each worker. Sentences per second of all-MiniLM-L6-v2 at 128, 192, 256, 384 and
512 tokens: 532, 583, 589, 581, 589 short ones, and 158, 168, 160, 173, 166 of mixed lengths."""

ACCELERATOR_TOKENS = 32_768
"""The most tokens in one batch on a GPU. An H100 encodes 61,000, 73,000 and 69,000 short sentences per second in bfloat16 with
batches of 16, 32 and 64 thousand tokens (scripts/gpu_benchmark.py --sweep)."""


@dataclass(frozen=True)
class Batch:
    """One call of the model.

    Attributes:
        indices: the sentences, as indices into the caller's list, in the order in which they are packed.
        groups: (sentences, length) for each length group, in the same order.
    """

    indices: tuple[int, ...]
    groups: tuple[tuple[int, int], ...]

    @property
    def tokens(self) -> int:
        """The number of tokens, without padding tokens."""
        return sum(sentences * length for sentences, length in self.groups)


def length_groups(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Counts consecutive equal lengths: (sentences, length) for each run of them.

    >>> length_groups([5, 5, 3])
    ((2, 5), (1, 3))
    """
    return tuple((len(list(group)), length) for length, group in groupby(lengths))


def pack(
    lengths: Sequence[int], device: torch.device, batch_tokens: int | None = None, batch_size: int | None = None
) -> list[Batch]:
    """The batches of sentences of these lengths: `balanced_batches` on a CPU; `plan` on a GPU, or if `batch_tokens` is given.

    Args:
        lengths: the number of tokens of each sentence.
        device: the device of the model.
        batch_tokens: the most tokens in a batch; None: what suits the device.
        batch_size: the most sentences in a batch; None: no limit.
    """
    if batch_tokens is None and device.type == "cpu":
        return balanced_batches(lengths, torch.get_num_threads(), batch_size)
    return plan(lengths, batch_tokens or ACCELERATOR_TOKENS, batch_size)


def plan(lengths: Sequence[int], batch_tokens: int, batch_size: int | None = None) -> list[Batch]:
    """Packs sentences into batches, longest first; sentences of equal length keep the caller's order.

    A batch ends where the next sentence would bring it above `batch_tokens` tokens or `batch_size` sentences. A sentence longer
    than `batch_tokens` is a batch by itself.

    Args:
        lengths: the number of tokens of each sentence.
        batch_tokens: the most tokens in a batch.
        batch_size: the most sentences in a batch; None: no limit.

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


def balanced_batches(lengths: Sequence[int], threads: int, batch_size: int | None = None) -> list[Batch]:
    """Packs sentences as `plan` does, into batches of about equal size, so that all threads finish at about the same time.

    Each thread gets the same number of batches if possible. The target size is the same for all batches, usually between
    `LEAST_TOKENS` and `MOST_TOKENS`; a longer sentence is a batch by itself. A batch may end up to a quarter below the target where
    it needs the fewest padding tokens (see `bucket_size`), if later batches can take the rest.
    Compared with batches of 256 tokens and a last one with the rest, this computes 1.2 % fewer tokens for the 2,552 short sentences
    of scripts/benchmark. For 64 of these, the busier of 2 cores computes 16 % fewer.

    Args:
        lengths: the number of tokens of each sentence.
        threads: how many threads compute batches.
        batch_size: the most sentences in a batch; None: no limit.

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
        least = math.inf
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


def bucket_size(tokens: int, multiple: int = 4) -> int:
    """The number of tokens that a batch is padded to with dummy tokens: the next larger of a few sizes.

    All sizes are multiples of 4, because matrix libraries compute rows in groups of 4 and round the last 1 to 3 rows differently.
    With whole groups, a row has the same bits whatever the batch. There are few sizes, because oneDNN prepares a product for each
    new number of rows, which takes half a millisecond and keeps nearly a megabyte. With any number of tokens, this memory grew to a
    gigabyte. From one power of 2 to the next there are at most 16 sizes.

    Args:
        tokens: the number of tokens of the batch.
        multiple: the size is also a multiple of this number; see `kernels.row_multiple`.

    >>> [bucket_size(tokens) for tokens in (3, 9, 17, 100, 250, 300)]
    [8, 12, 20, 112, 256, 304]
    """
    doubling = 1 << tokens.bit_length()  # the next power of 2
    step = max(4, min(16, doubling // 8), doubling // 32)
    size = max(8, -(-tokens // step) * step)
    return -(-size // multiple) * multiple


def padding_tokens(tokens: int, multiple: int = 4) -> int:
    """The number of dummy tokens to add to a batch (see `bucket_size`). Their vectors are dropped.

    >>> padding_tokens(30)
    2
    """
    return bucket_size(tokens, multiple) - tokens
