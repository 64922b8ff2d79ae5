"""The nearest rows of a corpus, block by block: exact, with memory for one block, ties by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from minisbert.inference.threads import computing


def nearest(
    queries: Tensor,
    corpus: Iterable[tuple[int, Tensor]],
    top_k: int,
    prepare: Callable[[Tensor], Tensor],
    score: Callable[[Tensor, Tensor], Tensor],
    own: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The best `top_k` scores of each query and their rows in the corpus, both [queries, k], by score and then by row.

    With `own`, the queries are the rows of the corpus from `own` on, and each row's score with itself is minus infinity.
    """
    values = queries.new_empty(len(queries), 0)
    ids = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start, block in corpus:
        scores = score(queries, prepare(block))
        if not isinstance(scores, Tensor) or scores.shape != (len(queries), len(block)):
            found = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"score_function: it gave {found}, expected a tensor {[len(queries), len(block)]}.")
        scores = scores.detach()
        if not scores.isfinite().all():
            raise ValueError(
                f"score_function: found {scores[~scores.isfinite()][0].item()} in the scores of rows {start} to "
                f"{start + len(block) - 1}, expected finite values. Normalize the vectors, or take 'cosine'."
            )
        if own is not None:
            itself = torch.arange(own, own + len(queries), device=scores.device) - start  # the column of each row
            (here,) = ((itself >= 0) & (itself < len(block))).nonzero(as_tuple=True)
            scores = scores.clone()
            scores[here, itself[here]] = -torch.inf
        best, columns = best_of(scores, top_k)
        # What was found before stands first, so that of equal scores the earlier row stays first.
        values, order = torch.cat([values, best], dim=1).sort(dim=1, descending=True, stable=True)
        values, ids = values[:, :top_k], torch.cat([ids, columns + start], dim=1).gather(1, order)[:, :top_k]
    return values, ids


def best_of(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The largest `top_k` scores of each row of [rows, columns], and their columns: by score, and of equal scores the first.

    `topk` alone leaves open which of several equal scores it takes.

    >>> best_of(torch.tensor([[1.0, 3.0, 2.0, 3.0, 3.0]]), 2)
    (tensor([[3., 3.]]), tensor([[1, 3]]))
    """
    k = min(top_k, scores.shape[1])
    least = scores.topk(k, dim=1).values[:, -1:]
    rows, columns = (scores >= least).nonzero(as_tuple=True)  # at least k in each row, in order
    values = scores[rows, columns]
    order = values.argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]
    counts = rows.bincount(minlength=len(scores))
    picked = order[(counts.cumsum(0) - counts)[:, None] + torch.arange(k, device=scores.device)]  # [rows, k]
    return values[picked], columns[picked]


def distinct_of(scores: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Each pair once, with its first score, in the order of the pairs."""
    pairs, order = pairs.sort(stable=True)
    first = torch.ones_like(pairs, dtype=torch.bool)
    first[1:] = pairs[1:] != pairs[:-1]
    return scores[order][first], pairs[first]


def dot_product(a: Tensor, b: Tensor) -> Tensor:
    """All dot products of two blocks, [rows of a, rows of b], each of them the same bits whatever the other rows are.

    The kernels for matrices whose sides are no multiple of 16 add in another order at the rim, and equal vectors would not tie.
    """
    padded_a, padded_b = (F.pad(block, (0, 0, 0, -len(block) % 16)) if len(block) % 16 else block for block in (a, b))
    with computing():
        return (padded_a @ padded_b.T)[: len(a), : len(b)]


def normalized(vectors: Tensor) -> Tensor:
    """Each row scaled to length 1; a zero vector stays one.

    Divides by the largest value first, because the squares of very small or very large values are 0 or infinite.
    """
    if not vectors.numel():
        return vectors
    scale = vectors.detach().abs().amax(dim=-1, keepdim=True)
    vectors = vectors / scale.where(scale > 0, 1)
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.where(length > 0, 1)
