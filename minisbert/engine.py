"""Runs a plan: ids of many sentences and the batches they form → their rows, each in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from minisbert.batching import Batch, spare_tokens
from minisbert.bert import Run

Forward = Callable[[Tensor, Sequence[Run]], Tensor]
"""[tokens] ids and the runs they form → [sentences, dim], one row for each sentence, in the order of the runs."""


def compute(
    forward: Forward, ids: Sequence[Sequence[int]], batches: Sequence[Batch], rows: Tensor, device: torch.device
) -> Iterator[Batch]:
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
