"""The comparisons of the parity tests, and how close is equal. `test_faults.py` shows that none of them is blind.

What counts is rounding, and rounding differs from processor to processor: another instruction set sums in another order. So every
bound is relative to the largest value that is compared, or absolute where all values are below 1. Where a formula amplifies
rounding, the bound follows from the formula; see `close_scores`.

Measured, the largest absolute difference (2 cores; values in hidden states reach 5, in all-MiniLM-L6-v2 10.5):

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
    """The largest difference that is still equal, for values up to 1; for larger values it grows with the largest of them."""

    states: float
    vectors: float


# Rounding leaves 1e-14 here, and the smallest of the planted faults 5e-7: this is the bound that tells mathematics from luck.
EXACT = Bounds(states=1e-12, vectors=1e-12)
TINY = {torch.float64: EXACT, torch.float32: Bounds(states=1e-5, vectors=1e-5)}
BERT_BASE = {torch.float64: EXACT, torch.float32: Bounds(states=1e-5, vectors=1e-5)}
MINILM = {torch.float64: EXACT, torch.float32: Bounds(states=5e-5, vectors=1e-6)}


def close(name: str, ours: Tensor, theirs: Tensor, bound: float) -> None:
    """The same shape and dtype, and no value further than `bound` from the other, times the largest value where that exceeds 1."""
    largest = float(theirs.abs().max()) if theirs.numel() else 0.0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=bound * max(1.0, largest), msg=lambda message: f"{name}: {message}")


# A sum of products of some hundred terms, in any order, is off by a few dozen units in the last place at most.
UNITS = 128


def close_scores(name: str, ours: Tensor, theirs: Tensor, a: Tensor, b: Tensor, *, euclidean: bool = False) -> None:
    """Scores of the same vectors by two programs, whose rounding alone may differ.

    A euclidean distance is computed as √(|a|² + |b|² − 2 a·b). The sum under the root is off by e, some units in the last place of
    its largest term, so the distance d is off by √(d² + e) − d: by e / 2d for large d, and by √e near 0.

    Args:
        name: begins the error.
        ours: the scores of minisbert.
        theirs: the scores of the reference.
        a: [rows, dim], the vectors on one side.
        b: [rows, dim], those on the other.
        euclidean: whether the scores are negative euclidean distances.
    """
    unit = UNITS * torch.finfo(theirs.dtype).eps
    squares = float(a.double().norm(dim=-1).max() ** 2 + b.double().norm(dim=-1).max() ** 2)
    bound = torch.full_like(theirs, unit * max(squares, float(theirs.abs().max()))).double()
    if euclidean:
        bound = bound + (theirs.double() ** 2 + unit * squares).sqrt() - theirs.double().abs()
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), name
    off = (ours.double() - theirs.double()).abs()
    assert (off <= bound).all(), f"{name}: off by {off.max().item():.3g}, {(off / bound).max().item():.2f} times the bound"


def check_states(bert: Bert, batch: Batch, expected: Sequence[Tensor], bound: float) -> None:
    """Embeddings, every layer, the result and its mean, against the [batch, length, hidden] of a reference, first to last."""
    mask = batch.attention_mask != 0
    names = ["embeddings", *(f"layer {n + 1}" for n in range(len(bert.layers)))]
    for name, ours, theirs in zip(names, minisbert_states(bert, batch), expected, strict=True):
        close(name, ours[mask], theirs[mask], bound)

    result = bert(*batch)
    assert not result[~mask].any(), "result: not zero where the mask is 0"
    last = expected[-1].masked_fill(~mask[..., None], 0)  # a reference leaves anything there, the plain one even NaN
    close("result", result, last, bound)
    close("pooled", mean_pooling(result, batch.attention_mask), model_card_mean_pooling((last,), batch.attention_mask), bound)


def check_vectors(encoder: SentenceEncoder, sentences: list[str], expected: Tensor, bound: float) -> None:
    """The vectors of `encode`, against the [sentences, dim] of a reference."""
    close("vectors", encoder.encode(sentences, on_truncate="ignore"), expected, bound)


def model_card_mean_pooling(model_output: Sequence[Tensor], attention_mask: Tensor) -> Tensor:
    """The function of sentence-transformers' model cards, to the letter."""
    token_embeddings = model_output[0]  # First element of model_output contains all token embeddings
    input_mask_expanded = attention_mask.unsqueeze(-1).expand(token_embeddings.size()).float()
    return torch.sum(token_embeddings * input_mask_expanded, 1) / torch.clamp(input_mask_expanded.sum(1), min=1e-9)
