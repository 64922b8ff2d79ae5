"""Runs a plan: ids of many sentences and the batches they form → their rows, each in its place."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from minisbert.batching import Batch, runs_of, spare_tokens
from minisbert.bert import Run

Forward = Callable[[Tensor, Sequence[Run]], Tensor]
"""[tokens] ids and the runs they form → [sentences, dim], one row for each sentence, in the order of the runs."""


class Rows(Protocol):
    """Where results go: a tensor [sentences, dim], or what takes rows as a tensor does."""

    def __setitem__(self, indices: list[int], values: Tensor, /) -> None: ...


def compute(
    forward: Forward, ids: Sequence[Sequence[int]], batches: Sequence[Batch], rows: Rows, device: torch.device
) -> Generator[Batch, None, None]:
    """Computes batch after batch into `rows`, and yields each one when it is done.

    Args:
        forward: the model.
        ids: the word pieces of each sentence.
        batches: as `batching.plan` packs them.
        rows: [sentences, dim], on the CPU, filled here.
        device: where the model computes.
    """
    for batch in batches:
        pieces = [piece for index in batch.order for piece in ids[index]]
        spare = spare_tokens(len(pieces))
        runs = (*batch.runs, (1, spare)) if spare else batch.runs
        packed = torch.tensor(pieces + pieces[:1] * spare, device=device)  # [tokens]
        # Only the model runs in inference mode: a caller may train something on top of the rows.
        with torch.inference_mode():
            vectors = forward(packed, runs)[: len(batch.order)]
        rows[list(batch.order)] = vectors.cpu()
        yield batch


def halving(forward: Forward) -> Forward:
    """A model that, when the accelerator's memory does not hold a batch, computes the batch in two halves, and so on.

    Args:
        forward: [tokens] ids and their runs → [tokens, hidden].

    Raises:
        torch.OutOfMemoryError: if it does not even hold a single sentence.
    """

    def forward_in_parts(packed: Tensor, runs: Sequence[Run]) -> Tensor:
        try:
            return forward(packed, runs)
        except torch.cuda.OutOfMemoryError as error:
            reason = str(error)
        # Outside of the except block, where the error no longer keeps what was computed so far alive.
        lengths = [length for sentences, length in runs for _ in range(sentences)]
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
        return torch.cat([forward_in_parts(part, runs_of(its_lengths)) for part, its_lengths in parts])

    return forward_in_parts
