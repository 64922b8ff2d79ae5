"""Runs a plan: ids of many sentences, and the batches they form → their rows, each in its place.

Several batches are computed at once, each by a worker thread of its own on one core, instead of one batch after the other on all
cores: nobody waits for anybody between two operations, and small operations are spread over the cores too. On 2 cores that gives
8 % more short sentences per second, and as many of mixed lengths from batches of an eighth of the size (scripts/benchmark.py,
"Tried and dropped"). A single batch is computed on all cores, so that one sentence is waited for less, by models that round alike
there; the others' goes to a worker too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, as_completed
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from minisbert.bert import LengthGroup
from minisbert.inference.batching import Batch, length_groups, padding_tokens
from minisbert.inference.threads import workers

Forward = Callable[[Tensor, Sequence[LengthGroup]], Tensor]
"""[tokens] ids and the runs they form → [sentences, dim], one row for each sentence, in the order of the runs."""


class Rows(Protocol):
    """Where results go: a tensor [sentences, dim], or what takes rows as a tensor does."""

    def __setitem__(self, indices: list[int], values: Tensor, /) -> None: ...


def compute(
    forward: Forward,
    ids: Sequence[Sequence[int]],
    batches: Sequence[Batch],
    rows: Rows,
    device: torch.device,
    *,
    check: Callable[[Batch, Tensor], None] | None = None,
    alone_on_all_cores: bool = False,
) -> Generator[Batch, None, None]:
    """Computes all batches into `rows`, and yields each one when it is done, whichever is first.

    When the caller stops early, or one batch fails, the batches that have not begun are dropped.

    Args:
        forward: the model; called by several threads at once.
        ids: the word pieces of each sentence.
        batches: as `batching.plan` packs them.
        rows: [sentences, dim], on the CPU, filled here.
        device: where the model computes.
        check: called with each batch and its vectors, by the thread that computed them. What it raises is raised here.
        alone_on_all_cores: whether a single batch is computed right here, on all cores: for a model that gives the same bits there.
    """

    def run(batch: Batch) -> Batch:
        pieces = [piece for index in batch.indices for piece in ids[index]]
        spare = padding_tokens(len(pieces))
        groups = (*batch.groups, (spare, 1)) if spare else batch.groups
        packed = torch.tensor(pieces + pieces[:1] * spare, device=device)  # [tokens]
        # Only the model runs in inference mode: a caller may train something on top of the rows.
        with torch.inference_mode():
            vectors = forward(packed, groups)[: len(batch.indices)].cpu()
        # Not by the caller of this generator: one small operation on all cores, and OpenMP's threads spin for 6 ms in the hope of
        # another, on the cores that the workers need. That took an eighth of the speed (scripts/benchmark.py, "Tried and dropped").
        if check is not None:
            check(batch, vectors)
        rows[list(batch.indices)] = vectors
        return batch

    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or (alone_on_all_cores and len(batches) == 1):
        yield from map(run, batches)
        return
    pool = workers(threads)
    futures = [pool.submit(partial(run, batch)) for batch in batches]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        _drop(futures)


def with_oom_retry(forward: Forward) -> Forward:
    """A model that, when the accelerator's memory does not hold a batch, computes the batch in two halves, and so on.

    Args:
        forward: [tokens] ids and their runs → [tokens, hidden].

    Raises:
        torch.OutOfMemoryError: if it does not even hold a single sentence.
    """

    def forward_in_parts(packed: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        try:
            return forward(packed, groups)
        except torch.cuda.OutOfMemoryError as error:
            reason = str(error)
        # Outside of the except block, where the error no longer keeps what was computed so far alive.
        lengths = [length for sentences, length in groups for _ in range(sentences)]
        if len(lengths) == 1:
            raise torch.cuda.OutOfMemoryError(
                f"one sentence of {lengths[0]} tokens, alone, does not fit the memory of {packed.device}. Free memory there, set a "
                f"lower max_seq_length, load with dtype=torch.float16, or use device='cpu'. ({reason})"
            )
        if packed.is_cuda:
            torch.cuda.empty_cache()
        half = len(lengths) // 2
        tokens = sum(lengths[:half])
        parts = (packed[:tokens], lengths[:half]), (packed[tokens:], lengths[half:])
        return torch.cat([forward_in_parts(part, length_groups(its_lengths)) for part, its_lengths in parts])

    return forward_in_parts


def _drop(futures: Sequence[Future[Batch]]) -> None:
    """Takes back what has not begun, and waits for what has: nothing writes into the rows when this returns."""
    for future in futures:
        future.cancel()
    for future in futures:
        if not future.cancelled():
            future.exception()
