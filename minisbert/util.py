"""Similarity, semantic search, paraphrase mining and community detection, under the names of `sentence_transformers.util`.

The functions take [rows, dim] as a tensor, a numpy array, or a list of vectors. They compute in float32, or in float64 if one side
is float64. In the formulas, `a·b` is the dot product, and `|a|` is the square root of `a·a`.

    name        all against all   pair by pair              score
    cosine      cos_sim           pairwise_cos_sim          a·b / (|a| |b|)
    dot         dot_score         pairwise_dot_score        a·b
    euclidean   euclidean_sim     pairwise_euclidean_sim    -|a - b|
    manhattan   manhattan_sim     pairwise_manhattan_sim    minus the sum of the absolute differences

A larger score means closer, so distances are negative. All functions treat unusual input alike:

- A single vector [dim] is one row.
- Half precision and integers are computed in float32, because rounding to half precision would make different scores equal.
- The cosine of a zero vector with any vector is 0. The length of other vectors does not matter, however small or large it is.
- NaN and infinity are refused; the error names the first row that holds one.
- Vectors of different dimensions, or on different devices, are refused. An empty list has no rows and fits any dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import torch
from torch import Tensor

from minisbert.inference.inputs import choice, count, flag
from minisbert.inference.search import Scoring, best_pairs, cosines, dot_product, nearest, normalized
from minisbert.inference.stream import progress_bar
from minisbert.inference.threads import apart, computes
from minisbert.inference.vectors import (
    Vectors,
    as_matrices,
    as_matrix,
    as_pairs,
    as_sliceable,
    blocks_of,
    check_finite,
    check_same_width,
)

if TYPE_CHECKING:
    import numpy as np  # noqa: F401 # `Vectors` names its arrays, and the API reference resolves that name here

ScoreFunction: TypeAlias = "str | Callable[[Tensor, Tensor], Tensor]"
"""A name such as "cosine", or a function of [queries, dim] and [corpus, dim] that gives [queries, corpus]."""


class Hit(TypedDict):
    """A result of a search: the index of a row of the corpus, and its score."""

    corpus_id: int
    score: float


# All against all


def similarity(a: Vectors, b: Vectors, fn: str = "cosine") -> Tensor:
    """Every row of `a` against every row of `b`.

    Args:
        a: [rows of a, dim], or [dim].
        b: [rows of b, dim], or [dim].
        fn: "cosine", "dot", "euclidean" or "manhattan".

    Returns:
        [rows of a, rows of b], float32 or float64.

    Raises:
        TypeError: if something is no vector.
        ValueError: if the widths differ, a value is not finite, or there is no such `fn`.

    >>> similarity([[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [4.0, 4.0]])
    tensor([[1.0000, 0.7071],
            [0.0000, 0.7071]])
    """
    return _FUNCTIONS[choice("fn", fn, tuple(_FUNCTIONS))][0](a, b)


@computes
def cos_sim(a: Vectors, b: Vectors) -> Tensor:
    """The cosine of every row of `a` with every row of `b`: [rows of a, rows of b]."""
    a, b = as_matrices(a, b)
    return dot_product(normalized(a), normalized(b))


@computes
def dot_score(a: Vectors, b: Vectors) -> Tensor:
    """The dot product of every row of `a` with every row of `b`: [rows of a, rows of b]."""
    a, b = as_matrices(a, b)
    return dot_product(a, b)


@computes
def euclidean_sim(a: Vectors, b: Vectors) -> Tensor:
    """Minus the euclidean distance of every row of `a` from every row of `b`: [rows of a, rows of b].

    It is computed from differences. Dot products would be faster, but equal vectors of length 1 would have distances up to 5e-4.
    """
    return -torch.cdist(*as_matrices(a, b), compute_mode="donot_use_mm_for_euclid_dist")


@computes
def manhattan_sim(a: Vectors, b: Vectors) -> Tensor:
    """Minus the manhattan distance of every row of `a` from every row of `b`: [rows of a, rows of b]."""
    return -torch.cdist(*as_matrices(a, b), p=1)


# Pair by pair


def similarity_pairwise(a: Vectors, b: Vectors, fn: str = "cosine") -> Tensor:
    """Each row of `a` against the row of `b` with the same index.

    Args:
        a: [rows, dim], or [dim].
        b: [rows, dim], or [dim].
        fn: "cosine", "dot", "euclidean" or "manhattan".

    Returns:
        [rows]. A single vector is compared with every row of the other side. Two single vectors give a scalar, [].

    Raises:
        TypeError: if something is no vector.
        ValueError: if the widths or the numbers of rows differ, a value is not finite, or there is no such `fn`.

    >>> similarity_pairwise([[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [3.0, 3.0]], "euclidean")
    tensor([-2.0000, -3.1623])
    """
    return _FUNCTIONS[choice("fn", fn, tuple(_FUNCTIONS))][1](a, b)


@computes
def pairwise_cos_sim(a: Vectors, b: Vectors) -> Tensor:
    """The cosine of each row of `a` with the same row of `b`: [rows]."""
    a, b = as_pairs(a, b)
    return (normalized(a) * normalized(b)).sum(dim=-1)


@computes
def pairwise_dot_score(a: Vectors, b: Vectors) -> Tensor:
    """The dot product of each row of `a` with the same row of `b`: [rows]."""
    a, b = as_pairs(a, b)
    return (a * b).sum(dim=-1)


@computes
def pairwise_euclidean_sim(a: Vectors, b: Vectors) -> Tensor:
    """Minus the euclidean distance of each row of `a` from the same row of `b`: [rows]."""
    a, b = as_pairs(a, b)
    return -torch.linalg.vector_norm(a - b, dim=-1)


@computes
def pairwise_manhattan_sim(a: Vectors, b: Vectors) -> Tensor:
    """Minus the manhattan distance of each row of `a` from the same row of `b`: [rows]."""
    a, b = as_pairs(a, b)
    return -(a - b).abs().sum(dim=-1)


_FUNCTIONS = {
    "cosine": (cos_sim, pairwise_cos_sim),
    "dot": (dot_score, pairwise_dot_score),
    "euclidean": (euclidean_sim, pairwise_euclidean_sim),
    "manhattan": (manhattan_sim, pairwise_manhattan_sim),
}


# Search


@apart
def semantic_search(
    query_embeddings: Vectors,
    corpus_embeddings: Vectors,
    *,
    top_k: int = 10,
    score_function: ScoreFunction = "cosine",
    query_chunk_size: int = 1024,
    corpus_chunk_size: int = 4096,
) -> list[list[Hit]]:
    """Finds the rows of the corpus that are closest to each query, exactly: best first; of equal scores, the earlier row first.

    The corpus is read in blocks, so the search needs memory for one block only. The corpus may be a `numpy.memmap`, or in half
    precision. The block sizes change the speed, not the result, because a score depends on its two vectors only.

    Args:
        query_embeddings: [queries, dim], or [dim] for one query.
        corpus_embeddings: [rows, dim].
        top_k: the number of rows to find for each query; all rows if the corpus has fewer.
        score_function: "cosine", "dot", "euclidean", "manhattan", or a function of [queries, dim] and [corpus, dim].
        query_chunk_size: the number of queries in a block.
        corpus_chunk_size: the most rows of the corpus in a block.

    Returns:
        For each query a list of `{"corpus_id": row, "score": score}`; empty lists for an empty corpus.

    Raises:
        TypeError: if something is no vector, or an option of the wrong type.
        ValueError: if the widths differ, a value is not finite, a score overflows, or an option is out of its range.

    >>> semantic_search([1.0, 0.0], [[0.0, 1.0], [2.0, 0.0], [3.0, 0.0]], top_k=2)
    [[{'corpus_id': 1, 'score': 1.0}, {'corpus_id': 2, 'score': 1.0}]]
    """
    queries = as_matrix("query_embeddings", query_embeddings)
    corpus = as_sliceable("corpus_embeddings", corpus_embeddings)
    check_same_width("query_embeddings", queries, "corpus_embeddings", corpus)
    like = as_matrix("corpus_embeddings", corpus[:0])
    dtype = torch.promote_types(queries.dtype, like.dtype)
    queries = queries.to(like.device)
    count("top_k", top_k, optional=False)
    count("query_chunk_size", query_chunk_size, optional=False)
    count("corpus_chunk_size", corpus_chunk_size, optional=False)
    scoring = _scoring(score_function)
    found: list[list[Hit]] = []
    for start, block in blocks_of("query_embeddings", queries, query_chunk_size, dtype):
        check_finite("query_embeddings", block, start)
        values, ids = nearest(block, corpus, corpus_chunk_size, top_k, scoring, "corpus_embeddings")
        for row_ids, row_values in zip(ids.tolist(), values.tolist(), strict=True):
            found.append([Hit(corpus_id=i, score=value) for i, value in zip(row_ids, row_values, strict=True)])
    return found


def paraphrase_mining(
    model: Any,
    sentences: Sequence[str],
    *,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: ScoreFunction = "cosine",
    query_chunk_size: int = 1024,
    corpus_chunk_size: int = 4096,
    **options: Any,
) -> list[list[float | int]]:
    """Finds the pairs of sentences that are closest to each other, best first.

    Args:
        model: an encoder, from `minisbert.load`.
        sentences: the texts.
        max_pairs: the most pairs to return.
        top_k: pairs are formed with this number of the closest sentences of each sentence.
        score_function: as in `semantic_search`; it must be symmetric.
        query_chunk_size: the number of sentences in a block that is compared.
        corpus_chunk_size: the most sentences in a block that it is compared with.
        options: for `model.encode`, such as `batch_tokens`, `show_progress_bar` or `prompt`.

    Returns:
        A list of [score, index, index of a later sentence].

    Raises:
        TypeError: as in `paraphrase_mining_embeddings` and `SentenceEncoder.encode`.
        ValueError: as in the same functions.

    >>> import minisbert
    >>> encoder = minisbert.load("all-MiniLM-L6-v2")
    >>> pairs = paraphrase_mining(encoder, ["A cat sits outside.", "He plays guitar.", "The cat is sitting outside."])
    >>> pairs[0][1:]
    [0, 2]
    """
    return paraphrase_mining_embeddings(
        model.encode(sentences, **options),
        max_pairs=max_pairs,
        top_k=top_k,
        score_function=score_function,
        query_chunk_size=query_chunk_size,
        corpus_chunk_size=corpus_chunk_size,
    )


@apart
def paraphrase_mining_embeddings(
    embeddings: Vectors,
    *,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: ScoreFunction = "cosine",
    query_chunk_size: int = 1024,
    corpus_chunk_size: int = 4096,
) -> list[list[float | int]]:
    """Finds the pairs of rows that are closest to each other: `paraphrase_mining` for vectors.

    For each row, the closest other rows are found. A pair that is found from both sides counts once. Besides the vectors, memory
    holds one block and a few times `max_pairs` pairs.

    Args:
        embeddings: [rows, dim].
        max_pairs: the most pairs to return.
        top_k: pairs are formed with this number of the closest rows of each row.
        score_function: as in `semantic_search`; it must be symmetric.
        query_chunk_size: the number of rows in a block that is compared.
        corpus_chunk_size: the most rows in a block that it is compared with.

    Returns:
        A list of [score, row, later row], best first; of equal scores, the earlier rows first.

    Raises:
        TypeError: if something is no vector, or an option of the wrong type.
        ValueError: if a value is not finite, a score overflows, or an option is out of its range.

    >>> paraphrase_mining_embeddings([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]], max_pairs=1)
    [[1.0, 0, 2]]
    """
    corpus = as_sliceable("embeddings", embeddings)
    count("max_pairs", max_pairs, optional=False)
    count("top_k", top_k, optional=False)
    count("query_chunk_size", query_chunk_size, optional=False)
    count("corpus_chunk_size", corpus_chunk_size, optional=False)
    scoring = _scoring(score_function, symmetric=True)
    dtype = as_matrix("embeddings", corpus[:0]).dtype
    found: list[tuple[Tensor, Tensor]] = []  # scores, and pairs (i, j) encoded as i · rows + j
    least = -torch.inf
    for start, block in blocks_of("embeddings", corpus, query_chunk_size, dtype):
        check_finite("embeddings", block, start)
        values, ids = nearest(block, corpus, corpus_chunk_size, top_k, scoring, "embeddings", own=start)
        rows = torch.arange(start, start + len(block), device=ids.device)[:, None]
        # If there are fewer than top_k other rows, a row also finds itself, with score -inf.
        kept = (rows != ids) & (values >= least)
        pairs = torch.minimum(rows, ids) * len(corpus) + torch.maximum(rows, ids)
        found.append((values[kept], pairs[kept]))
        if sum(len(scores) for scores, _ in found) > 2 * max_pairs:
            found = [best_pairs(found, max_pairs)]
            least = found[0][0][-1].item() if len(found[0][0]) == max_pairs else least
    if not found:
        return []
    scores, pairs = best_pairs(found, max_pairs)
    firsts, seconds = pairs // len(corpus), pairs % len(corpus)
    return [list(pair) for pair in zip(scores.tolist(), firsts.tolist(), seconds.tolist(), strict=True)]


@apart
def community_detection(
    embeddings: Vectors,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,  # noqa: FBT001, FBT002 - sentence-transformers' own order
) -> list[list[int]]:
    """Finds communities: groups of rows that are close to a common centre.

    A row is a centre if its cosine with at least `min_community_size` rows, itself included, reaches the threshold. Communities
    are formed from the largest to the smallest, and a row belongs to the first one only. A community that becomes too small is
    dropped. Besides the vectors, memory holds one block [batch_size, rows].

    Args:
        embeddings: [rows, dim].
        threshold: the smallest cosine with the centre, from -1 to 1.
        min_community_size: the smallest number of rows in a community.
        batch_size: the number of rows that are compared with all others at once.
        show_progress_bar: whether to show a progress bar on stderr.

    Returns:
        Communities, largest first. Each is a list of row indices: the centre, then the others, closest first.

    Raises:
        TypeError: if something is no vector, or an option of the wrong type.
        ValueError: if a value is not finite, or an option is out of its range.

    >>> community_detection([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [3.0, 0.2]], threshold=0.9, min_community_size=2)
    [[0, 2, 3]]
    """
    vectors = check_finite("embeddings", as_matrix("embeddings", embeddings))
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        raise TypeError(f"threshold: found {type(threshold).__name__}, expected a number from -1 to 1.")
    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold: found {threshold}, expected a cosine, from -1 to 1.")
    count("min_community_size", min_community_size, optional=False)
    count("batch_size", batch_size, optional=False)
    flag("show_progress_bar", show_progress_bar)
    if len(vectors) < min_community_size:
        return []
    vectors = normalized(vectors)
    batches: Sequence[Tensor] | Any = torch.arange(len(vectors), device=vectors.device).split(batch_size)
    if show_progress_bar:
        batches = progress_bar(iterable=batches, desc="communities") or batches
    sizes = torch.cat([(dot_product(vectors[batch], vectors) >= threshold).sum(dim=1) for batch in batches])
    centres = sizes.argsort(descending=True, stable=True)
    centres = centres[sizes[centres] >= min_community_size]

    # The members are computed again, for a few centres at a time. Keeping the members of every centre could take rows² values, and
    # most centres already belong to a larger community when it is their turn.
    communities: list[list[int]] = []
    taken = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    for batch in centres.split(min(batch_size, 64)):
        free = batch[~taken[batch]]
        if not len(free):
            continue
        for centre, scores in zip(free.tolist(), dot_product(vectors[free], vectors), strict=True):
            if taken[centre]:
                continue
            (members,) = ((scores >= threshold) & ~taken).nonzero(as_tuple=True)
            if len(members) >= min_community_size:
                taken[members] = True
                members = members[scores[members].argsort(descending=True, stable=True)]
                communities.append([centre, *members[members != centre].tolist()])
    return sorted(communities, key=len, reverse=True)


def _scoring(score_function: Any, *, symmetric: bool = False) -> Scoring:
    for name, functions in _FUNCTIONS.items():
        if score_function is functions[0]:
            score_function = name
    if isinstance(score_function, str):
        name = choice("score_function", score_function, tuple(_FUNCTIONS))
        if name == "cosine":
            return Scoring(normalized, _symmetric_cosines if symmetric else cosines, shows_bad_rows=True)
        if name == "dot":
            return Scoring(_as_it_is, dot_product, shows_bad_rows=True)
        return Scoring(_as_it_is, _FUNCTIONS[name][0])
    if not callable(score_function):
        names = ", ".join(map(repr, _FUNCTIONS))
        raise TypeError(f"score_function: found {type(score_function).__name__}, expected one of {names}, or a function.")
    return Scoring(_as_it_is, score_function, threaded=False)


def _symmetric_cosines(rows: Tensor, block: Tensor) -> Tensor:
    """The cosines of normalized rows with a block. A pair has the same bits in either order."""
    return dot_product(rows, normalized(block))


def _as_it_is(vectors: Tensor) -> Tensor:
    return vectors
