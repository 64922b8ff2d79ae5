"""The comparisons of the parity tests, and how close is equal. `test_faults.py` shows that none of them is blind.

Measured, the largest absolute difference (2 cores; numbers in hidden states reach 5, in all-MiniLM-L6-v2 10.5):

                        float64                     float32
                        hidden states   vectors     hidden states   vectors
    tiny models         6e-15           5e-15       4e-6            3e-6
    bert-base           2e-14           2e-14       5e-6            3e-6
    all-MiniLM-L6-v2    3e-14           7e-16       1.1e-5          2.4e-7
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from minisbert import Bert, SentenceEncoder, mean_pooling
from parity.capture import Batch, minisbert_states


class Bounds(NamedTuple):
    """The largest absolute difference that is still equal; no relative one comes on top."""

    states: float
    vectors: float


# Rounding leaves 1e-14 here, and the smallest of the planted faults 5e-7: this is the bound that tells mathematics from luck.
EXACT = Bounds(states=1e-12, vectors=1e-12)
TINY = {torch.float64: EXACT, torch.float32: Bounds(states=1e-5, vectors=1e-5)}
BERT_BASE = {torch.float64: EXACT, torch.float32: Bounds(states=1e-5, vectors=1e-5)}
MINILM = {torch.float64: EXACT, torch.float32: Bounds(states=5e-5, vectors=1e-6)}


def close(name: str, ours: Tensor, theirs: Tensor, atol: float) -> None:
    """The same shape, the same dtype, and no number further than `atol` from the other; an error begins with the name."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol, msg=lambda message: f"{name}: {message}")


def check_states(bert: Bert, batch: Batch, expected: Sequence[Tensor], atol: float) -> None:
    """Embeddings, every layer, the result and its mean, against the [batch, length, hidden] of a reference, first to last."""
    mask = batch.attention_mask != 0
    names = ["embeddings", *(f"layer {n + 1}" for n in range(len(bert.layers)))]
    for name, ours, theirs in zip(names, minisbert_states(bert, batch), expected, strict=True):
        close(name, ours[mask], theirs[mask], atol)

    result = bert(*batch)
    assert not result[~mask].any(), "result: not zero where the mask is 0"
    last = expected[-1].masked_fill(~mask[..., None], 0)  # a reference leaves anything there, the plain one even NaN
    close("result", result, last, atol)
    close("pooled", mean_pooling(result, batch.attention_mask), model_card_mean_pooling((last,), batch.attention_mask), atol)


def check_vectors(encoder: SentenceEncoder, sentences: list[str], expected: Tensor, atol: float) -> None:
    """The vectors of `encode`, against the [sentences, dim] of a reference."""
    close("vectors", encoder.encode(sentences, on_truncate="ignore"), expected, atol)


def model_card_mean_pooling(model_output: Sequence[Tensor], attention_mask: Tensor) -> Tensor:
    """The function of sentence-transformers' model cards, to the letter."""
    token_embeddings = model_output[0]  # First element of model_output contains all token embeddings
    input_mask_expanded = attention_mask.unsqueeze(-1).expand(token_embeddings.size()).float()
    return torch.sum(token_embeddings * input_mask_expanded, 1) / torch.clamp(input_mask_expanded.sum(1), min=1e-9)
