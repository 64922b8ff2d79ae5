"""Exact search for the nearest rows of a corpus, block by block. Of equal scores, the earlier row comes first."""

from __future__ import annotations

from _queue import SimpleQueue
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minisbert.inference.threads import Task, computing, workers
from minisbert.inference.vectors import all_finite, as_matrix, check_finite

STEP = 48
"""MKL's kernels compute this number of rows of the corpus at a time, or a divisor of it. The last rows, beyond a multiple of the
kernel's number (24 in float64 with AVX-512), have other bits."""

LEAST_ROWS, MOST_ROWS, SCORES = 1024, 4096, 2**19
"""A block has a number of rows between these bounds that gives about `SCORES` scores, so that block and scores fit the cache."""

SHORT, LONG = 2.0**-50, 2.0**50
"""Vectors of a length between these are normalized directly, because float32 can hold the squares of their values."""


@dataclass(frozen=True)
class Scoring:
    """How blocks of vectors are scored against each other.

    Attributes:
        prepare: applied to the queries once, such as normalization.
        score: prepared queries [queries, dim] and a block [rows, dim] → [queries, rows].
        shows_bad_rows: whether a row with NaN or infinity has no finite scores, so that checking the scores is enough.
        threaded: whether several threads may call `score` at once.
    """

    prepare: Callable[[Tensor], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    shows_bad_rows: bool = False
    threaded: bool = True

    def scores(self, queries: Tensor, block: Tensor, name: str, start: int) -> Tensor:
        """Checked scores [queries, rows] of prepared queries with a block, whose first row is row `start` of `name`."""
        if not self.shows_bad_rows:
            check_finite(name, block, start)
        scores = self.score(queries, block)
        if not isinstance(scores, Tensor) or scores.shape != (len(queries), len(block)):
            found = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"score_function: it gave {found}, expected a tensor {[len(queries), len(block)]}.")
        scores = scores.detach()
        if not all_finite(scores):
            check_finite(name, block, start)
            raise ValueError(
                f"score_function: found {scores[~scores.isfinite()][0].item()} in the scores of rows {start} to "
                f"{start + len(block) - 1}, expected finite values. Normalize the vectors, or take 'cosine'."
            )
        return scores if scores.is_floating_point() else scores.double()


def nearest(
    queries: Tensor, corpus: Any, size: int, top_k: int, scoring: Scoring, name: str, own: int | None = None
) -> tuple[Tensor, Tensor]:
    """The best `top_k` scores of each query and their rows in the corpus, both [queries, k], by score and then by row.

    On a CPU, each worker scores its own blocks on one core, because a product of few queries is too small for several cores.

    Args:
        queries: [queries, dim].
        corpus: [rows, dim], sliceable.
        size: the most rows of the corpus in a block.
        top_k: the number of rows to find for each query.
        scoring: how queries and blocks are compared.
        name: the caller's argument that is the corpus, for messages.
        own: if given, query i is row `own` + i of the corpus, and its score with itself is minus infinity.
    """
    threads = torch.get_num_threads() if queries.device.type == "cpu" and scoring.threaded else 1
    if scoring.threaded:
        size = min(size, max(LEAST_ROWS, min(MOST_ROWS, SCORES // max(1, len(queries)))))
    size = block_size(size)
    count = -(-len(corpus) // size)
    starts = iter(range(0, len(corpus), size))
    bests = [Best(queries, top_k) for _ in range(max(1, min(threads, count)))]
    idle, errors = deque(bests), list[tuple[int, Exception]]()
    prepared = scoring.prepare(queries)

    def step() -> None:
        if errors:  # all blocks before the failed one have begun
            return
        best = idle.popleft()  # taken before the block, so that each `Best` gets its blocks in the order of their rows
        start = next(starts)
        try:
            block = as_matrix(name, corpus[start : start + size]).to(queries.dtype)
            scores = scoring.scores(prepared, block, name, start)
            best.add(scores if own is None else _without_itself(scores, own - start), start)
        except Exception as error:  # raised below, when the blocks before this one are done
            errors.append((start, error))
        finally:
            idle.append(best)

    if len(bests) == 1:
        for _ in range(count):
            step()
    else:
        done: SimpleQueue[Task[None]] = SimpleQueue()
        tasks = [Task(step, done) for _ in range(count)]
        pool = workers(threads)
        try:
            for task in tasks:
                pool.submit(task)
            for _ in tasks:
                done.get().result()
        finally:
            Task.drop(tasks)
    if errors:
        try:
            raise min(errors, key=lambda found: found[0])[1]  # the earliest row, whichever thread was first
        finally:
            errors.clear()  # otherwise the error and this frame would refer to each other
    values, ids = (torch.cat(parts, dim=1) for parts in zip(*(best.found() for best in bests), strict=True))
    if len(bests) > 1:
        ids, order = ids.sort(dim=1)
        values, columns = best_of(values.gather(1, order), top_k)
        ids = ids.gather(1, columns)
    return values, ids


def _without_itself(scores: Tensor, first: int) -> Tensor:
    """Sets the score of each row with itself, which is in column `first` + row, to minus infinity."""
    itself = torch.arange(first, first + len(scores), device=scores.device)  # the column of each row
    (here,) = ((itself >= 0) & (itself < scores.shape[1])).nonzero(as_tuple=True)
    if len(here):
        scores = scores.clone()  # it may belong to the score function
        scores[here, itself[here]] = -torch.inf
    return scores


class Best:
    """The best scores so far of each query and their rows: by score, and of equal scores the earlier row.

    After `top_k` rows, a later row counts only if its score is larger than the smallest of them. Such candidates are collected, and
    merged into the result when they outnumber the results.
    """

    def __init__(self, queries: Tensor, top_k: int) -> None:
        self._top_k = top_k
        self._first = [queries.new_empty(len(queries), 0)]  # all scores, until there are top_k rows
        self._rows: list[Tensor] = []  # the rows of the corpus of these columns
        self._values = self._ids = torch.empty(0)
        self._candidates: list[tuple[Tensor, Tensor, Tensor]] = []  # queries, scores, rows
        self._number = 0  # of rows in `_first`, or of scores in `_candidates`

    def add(self, scores: Tensor, start: int) -> None:
        """Adds the scores of the next block, [queries, rows], whose first row is `start`."""
        if self._first:
            self._first.append(scores if scores.shape[1] >= self._top_k else scores.clone())  # it may belong to the score function
            self._rows.append(torch.arange(start, start + scores.shape[1], device=scores.device))
            self._number += scores.shape[1]
            if self._number >= self._top_k:
                self._fill()
            return
        rows, columns = larger(scores, self._values[:, -1:])
        if len(rows):
            self._candidates.append((rows, scores[rows, columns].to(self._values.dtype), columns + start))
            self._number += len(rows)
        if self._number > self._values.numel():
            self._merge()

    def found(self) -> tuple[Tensor, Tensor]:
        """The scores and the rows, both [queries, at most top_k]."""
        if self._first:
            self._fill()
        self._merge()
        return self._values, self._ids

    def _fill(self) -> None:
        self._values, columns = best_of(torch.cat(self._first, dim=1), self._top_k)
        self._ids = torch.cat(self._rows)[columns] if self._rows else columns
        self._first, self._rows, self._number = [], [], 0

    def _merge(self) -> None:
        if self._candidates:
            queries = torch.arange(len(self._values), device=self._ids.device).repeat_interleave(self._values.shape[1])
            parts = zip((queries, self._values.flatten(), self._ids.flatten()), *self._candidates, strict=True)
            queries, values, ids = map(torch.cat, parts)
            order = _first_of_each(queries, values, self._top_k, len(self._values))
            self._values, self._ids = values[order], ids[order]
            self._candidates, self._number = [], 0


def larger(scores: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and columns of the scores [rows, columns] that are larger than `least` [rows, 1], row by row.

    >>> larger(torch.tensor([[1.0, 3.0], [2.0, 3.0]]), torch.tensor([[1.0], [1.0]]))
    (tensor([0, 1, 1]), tensor([1, 0, 1]))
    """
    (some,) = (scores.amax(dim=1) > least[:, 0]).nonzero(as_tuple=True)  # fast, and later blocks have few such rows
    rows, columns = (scores[some] > least[some]).nonzero(as_tuple=True)
    return some[rows], columns


def best_of(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The largest `top_k` scores of each row of [rows, columns], and their columns: by score, and of equal scores the first.

    `topk` alone may return any of several equal scores.

    >>> best_of(torch.tensor([[1.0, 3.0, 2.0, 3.0, 3.0]]), 2)
    (tensor([[3., 3.]]), tensor([[1, 3]]))
    """
    k = min(top_k, scores.shape[1])
    least = scores.topk(k, dim=1).values[:, -1:]
    rows, columns = (scores >= least).nonzero(as_tuple=True)  # at least k in each row, in order
    values = scores[rows, columns]
    picked = _first_of_each(rows, values, k, len(scores))
    return values[picked], columns[picked]


def _first_of_each(rows: Tensor, values: Tensor, k: int, count: int) -> Tensor:
    """The indices of the largest `k` values of each of `count` rows, [count, k]; of equal values, the first."""
    order = values.argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]
    counts = rows.bincount(minlength=count)
    return order[(counts.cumsum(0) - counts)[:, None] + torch.arange(k, device=rows.device)]


def best_pairs(found: list[tuple[Tensor, Tensor]], most: int) -> tuple[Tensor, Tensor]:
    """Merges lists of scores and pairs: each pair once, with its first score; the best `most` pairs, best first."""
    scores, pairs = (torch.cat(parts) for parts in zip(*found, strict=True))
    pairs, order = pairs.sort(stable=True)
    first = torch.ones_like(pairs, dtype=torch.bool)
    first[1:] = pairs[1:] != pairs[:-1]
    scores, pairs = scores[order[first]], pairs[first]
    order = scores.argsort(descending=True, stable=True)[:most]
    return scores[order], pairs[order]


def block_size(rows: int) -> int:
    """The largest multiple of `STEP` up to `rows`; `rows` itself if it is less than a step.

    >>> block_size(4096), block_size(7)
    (4080, 7)
    """
    return rows - rows % STEP or rows


def dot_product(a: Tensor, b: Tensor) -> Tensor:
    """All dot products of two blocks, [rows of a, rows of b]. The bits of each are the same whatever the other rows are.

    Both blocks are padded, because the kernels for the last rows and columns of a matrix add in another order, so that equal
    vectors could have different scores. `a` is padded to a multiple of 4 only: for a single query, 16 would take 1.4 times as long.
    """
    rows, columns = len(a), len(b)
    a, b = (F.pad(block, (0, 0, 0, -len(block) % step)) if len(block) % step else block for block, step in ((a, 4), (b, STEP)))
    with computing():
        return (a @ b.T)[:rows, :columns]


def cosines(queries: Tensor, block: Tensor) -> Tensor:
    """The cosines of normalized queries [queries, dim] with the rows of a block [rows, dim]: [queries, rows].

    The scores are divided by the lengths, because a normalized copy of the block would take longer than the product of one query.
    """
    length = torch.linalg.vector_norm(block, dim=-1, keepdim=True)  # [rows, 1]
    ordinary = (length > SHORT) & (length < LONG)
    if not ordinary.all():
        block = torch.where(ordinary, block, _normalized_by_largest(block))
        length = length.where(ordinary, 1)
    return dot_product(queries, block).div_(length[:, 0])


def normalized(vectors: Tensor) -> Tensor:
    """Scales each row to length 1. A zero vector is unchanged, and a row with NaN or infinity becomes NaN.

    The squares of very small or large values underflow or overflow, so such rows are first divided by their largest value.
    """
    if not vectors.numel():
        return vectors
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    ordinary = (length > SHORT) & (length < LONG)
    if ordinary.all():
        return vectors / length
    return torch.where(ordinary, vectors / length.where(ordinary, 1), _normalized_by_largest(vectors))


def _normalized_by_largest(vectors: Tensor) -> Tensor:
    scale = vectors.detach().abs().amax(dim=-1, keepdim=True)
    vectors = vectors / scale.where(scale > 0, 1)
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.where(length > 0, 1)
