"""How close vectors are, and what follows from it: search, paraphrases, communities. Pure functions on tensors.

Each takes [rows, dim] tensors, numpy arrays, or lists of vectors, and computes in float32, or in float64 where one side is. In the
formulas `a·b` is the sum of the products, and `|a|` the root of `a·a`.

    name        all against all   pair by pair              score
    cosine      cos_sim           pairwise_cos_sim          a·b / (|a| |b|)
    dot         dot_score         pairwise_dot_score        a·b
    euclidean   euclidean_sim     pairwise_euclidean_sim    -|a - b|
    manhattan   manhattan_sim     pairwise_manhattan_sim    minus the sum of the absolute differences

More is closer, so distances are negative. What unusual input gives is defined, and the same everywhere:

- A single vector [dim] is one row.
- Half precision and integers are computed in float32: rounded to half precision, different scores would tie.
- A zero vector has no direction: its cosine with anything is 0. Any other vector has one, however short or long it is.
- NaN and infinity are refused, with the number of the first row that holds one.
- Vectors of different widths, or on different devices, are refused. No vectors give no scores, and an empty list fits any width.

The names are those of `sentence_transformers.util`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from minisbert.errors import MissingExtraError

if TYPE_CHECKING:
    import numpy as np

Vectors: TypeAlias = "Tensor | np.ndarray[Any, Any] | Sequence[Any]"
"""[rows, dim], or a single [dim]: a tensor, whatever numpy makes an array of, or a list of such vectors or of lists of numbers."""

ScoreFunction: TypeAlias = "str | Callable[[Tensor, Tensor], Tensor]"
"""A name such as "cosine", or a function of [queries, dim] and [corpus, dim] that gives [queries, corpus]."""


class Hit(TypedDict):
    """A row that a search found, and its score."""

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
        ValueError: if the widths differ, a number is not finite, or there is no such `fn`.

    >>> similarity([[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [4.0, 4.0]])
    tensor([[1.0000, 0.7071],
            [0.0000, 0.7071]])
    """
    return _FUNCTIONS[_known(fn)][0](a, b)


def cos_sim(a: Vectors, b: Vectors) -> Tensor:
    """The cosine of every row of `a` with every row of `b`: [rows of a, rows of b]."""
    a, b = _two(a, b)
    return _normalize(a) @ _normalize(b).T


def dot_score(a: Vectors, b: Vectors) -> Tensor:
    """The dot product of every row of `a` with every row of `b`: [rows of a, rows of b]."""
    a, b = _two(a, b)
    return a @ b.T


def euclidean_sim(a: Vectors, b: Vectors) -> Tensor:
    """Minus the euclidean distance of every row of `a` from every row of `b`: [rows of a, rows of b].

    From the differences themselves. From dot products it would be faster, but equal vectors would seem apart, by 5e-4 at length 1.
    """
    return -torch.cdist(*_two(a, b), compute_mode="donot_use_mm_for_euclid_dist")


def manhattan_sim(a: Vectors, b: Vectors) -> Tensor:
    """Minus the manhattan distance of every row of `a` from every row of `b`: [rows of a, rows of b]."""
    return -torch.cdist(*_two(a, b), p=1)


# Pair by pair


def similarity_pairwise(a: Vectors, b: Vectors, fn: str = "cosine") -> Tensor:
    """Each row of `a` against the row of `b` at its side.

    Args:
        a: [rows, dim], or [dim].
        b: [rows, dim], or [dim].
        fn: "cosine", "dot", "euclidean" or "manhattan".

    Returns:
        [rows]; a single vector is compared with every row of the other side, and two of them give a single number, [].

    Raises:
        TypeError: if something is no vector.
        ValueError: if the widths or the numbers of rows differ, a number is not finite, or there is no such `fn`.

    >>> similarity_pairwise([[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [3.0, 3.0]], "euclidean")
    tensor([-2.0000, -3.1623])
    """
    return _FUNCTIONS[_known(fn)][1](a, b)


def pairwise_cos_sim(a: Vectors, b: Vectors) -> Tensor:
    """The cosine of each row of `a` with the same row of `b`: [rows]."""
    a, b = _pairs(a, b)
    return (_normalize(a) * _normalize(b)).sum(dim=-1)


def pairwise_dot_score(a: Vectors, b: Vectors) -> Tensor:
    """The dot product of each row of `a` with the same row of `b`: [rows]."""
    a, b = _pairs(a, b)
    return (a * b).sum(dim=-1)


def pairwise_euclidean_sim(a: Vectors, b: Vectors) -> Tensor:
    """Minus the euclidean distance of each row of `a` from the same row of `b`: [rows]."""
    a, b = _pairs(a, b)
    return -torch.linalg.vector_norm(a - b, dim=-1)


def pairwise_manhattan_sim(a: Vectors, b: Vectors) -> Tensor:
    """Minus the manhattan distance of each row of `a` from the same row of `b`: [rows]."""
    a, b = _pairs(a, b)
    return -(a - b).abs().sum(dim=-1)


_FUNCTIONS = {
    "cosine": (cos_sim, pairwise_cos_sim),
    "dot": (dot_score, pairwise_dot_score),
    "euclidean": (euclidean_sim, pairwise_euclidean_sim),
    "manhattan": (manhattan_sim, pairwise_manhattan_sim),
}


# Search


def semantic_search(
    query_embeddings: Vectors,
    corpus_embeddings: Vectors,
    *,
    top_k: int = 10,
    score_function: ScoreFunction = "cosine",
    query_chunk_size: int = 1024,
    corpus_chunk_size: int = 4096,
) -> list[list[Hit]]:
    """The rows of the corpus that are closest to each query: exact, best first, of equal scores the earlier row first.

    It goes block by block, so beside the corpus it needs memory for one block only; the corpus may be a `numpy.memmap`, or in half
    precision. The sizes of the blocks change the speed, not the answer: a score depends on its two vectors alone.

    Args:
        query_embeddings: [queries, dim], or [dim] for one query.
        corpus_embeddings: [rows, dim].
        top_k: how many rows to find for each query; all of them if there are fewer.
        score_function: "cosine", "dot", "euclidean", "manhattan", or a function of [queries, dim] and [corpus, dim].
        query_chunk_size: queries in one block.
        corpus_chunk_size: rows of the corpus in one block.

    Returns:
        For each query a list of `{"corpus_id": row, "score": score}`; empty lists for an empty corpus.

    Raises:
        TypeError: if something is no vector, or an option of the wrong type.
        ValueError: if the widths differ, a number is not finite, a score overflows, or an option is out of its range.

    >>> semantic_search([1.0, 0.0], [[0.0, 1.0], [2.0, 0.0], [3.0, 0.0]], top_k=2)
    [[{'corpus_id': 1, 'score': 1.0}, {'corpus_id': 2, 'score': 1.0}]]
    """
    queries = _matrix("query_embeddings", query_embeddings)
    corpus = _sliceable("corpus_embeddings", corpus_embeddings)
    _same_width("query_embeddings", queries, "corpus_embeddings", corpus)
    like = _matrix("corpus_embeddings", corpus[:0])
    dtype = torch.promote_types(queries.dtype, like.dtype)
    queries = queries.to(like.device)
    _positive("top_k", top_k)
    _positive("query_chunk_size", query_chunk_size)
    _positive("corpus_chunk_size", corpus_chunk_size)
    prepare, score = _scorer(score_function)
    found: list[list[Hit]] = []
    for _, block in _blocks("query_embeddings", queries, query_chunk_size, dtype):
        parts = _blocks("corpus_embeddings", corpus, corpus_chunk_size, dtype)
        values, ids = _nearest(prepare(block), parts, top_k, prepare, score)
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
    """The pairs of sentences that are closest to each other, best first.

    Args:
        model: an encoder, from `minisbert.load`.
        sentences: the texts.
        max_pairs: how many pairs to return at most.
        top_k: of how many closest sentences each sentence can make pairs.
        score_function: as in `semantic_search`; it must be symmetric.
        query_chunk_size: sentences in one block, against
        corpus_chunk_size: that many others.
        options: for `model.encode`, such as `batch_tokens`, `show_progress_bar` or `prompt`.

    Returns:
        A list of [score, index, index of a later sentence].

    Raises:
        TypeError: as in `paraphrase_mining_embeddings` and `SentenceEncoder.encode`.
        ValueError: likewise.

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


def paraphrase_mining_embeddings(
    embeddings: Vectors,
    *,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: ScoreFunction = "cosine",
    query_chunk_size: int = 1024,
    corpus_chunk_size: int = 4096,
) -> list[list[float | int]]:
    """The pairs of rows that are closest to each other: `paraphrase_mining` for vectors that are there already.

    Each row searches among the others; every pair that is found so, from either side, counts once. Beside the vectors it needs
    memory for one block and `max_pairs` pairs.

    Args:
        embeddings: [rows, dim].
        max_pairs: how many pairs to return at most.
        top_k: of how many closest rows each row can make pairs.
        score_function: as in `semantic_search`; it must be symmetric.
        query_chunk_size: rows in one block, against
        corpus_chunk_size: that many others.

    Returns:
        A list of [score, row, later row], best first; of equal scores, the earlier rows first.

    Raises:
        TypeError: if something is no vector, or an option of the wrong type.
        ValueError: if a number is not finite, a score overflows, or an option is out of its range.

    >>> paraphrase_mining_embeddings([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]], max_pairs=1)
    [[1.0, 0, 2]]
    """
    corpus = _sliceable("embeddings", embeddings)
    for name, value in ("max_pairs", max_pairs), ("top_k", top_k):
        _positive(name, value)
    _positive("query_chunk_size", query_chunk_size)
    _positive("corpus_chunk_size", corpus_chunk_size)
    prepare, score = _scorer(score_function)
    dtype = _matrix("embeddings", corpus[:0]).dtype
    scores, pairs = torch.empty(0), torch.empty(0, dtype=torch.int64)  # a pair (i, j) is the number i · rows + j
    for start, block in _blocks("embeddings", corpus, query_chunk_size, dtype):
        parts = _blocks("embeddings", corpus, corpus_chunk_size, dtype)
        values, ids = _nearest(prepare(block), parts, top_k, prepare, score, own=start)
        rows = torch.arange(start, start + len(block), device=ids.device)[:, None]
        found = torch.minimum(rows, ids) * len(corpus) + torch.maximum(rows, ids)
        kept = (rows != ids).flatten()  # where fewer than top_k others are there, a row finds itself as well, with score -inf
        scores = torch.cat([scores.to(values), values.flatten()[kept]])
        pairs = torch.cat([pairs.to(ids), found.flatten()[kept]])
        scores, pairs = _distinct(scores, pairs)
        order = scores.argsort(descending=True, stable=True)[:max_pairs].sort().values
        scores, pairs = scores[order], pairs[order]
    order = scores.argsort(descending=True, stable=True)
    return [
        [value, pair // len(corpus), pair % len(corpus)]
        for value, pair in zip(scores[order].tolist(), pairs[order].tolist(), strict=True)
    ]


def community_detection(
    embeddings: Vectors,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,  # noqa: FBT001, FBT002 - sentence-transformers' own order
) -> list[list[int]]:
    """Groups of rows that are close to a common centre.

    A row is a centre if its cosine with at least `min_community_size` rows, itself among them, reaches the threshold. The largest
    community takes its rows first, the next one what is left to it, if that is enough. Beside the vectors it needs memory for one
    block [batch_size, rows].

    Args:
        embeddings: [rows, dim].
        threshold: the least cosine with the centre, -1 to 1.
        min_community_size: the fewest rows of a community.
        batch_size: rows that are compared with all others at once.
        show_progress_bar: on stderr.

    Returns:
        Communities, the largest first; each begins with its centre, then the closest rows first. No row is in two of them.

    Raises:
        TypeError: if something is no vector, or an option of the wrong type.
        ValueError: if a number is not finite, or an option is out of its range.

    >>> community_detection([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [3.0, 0.2]], threshold=0.9, min_community_size=2)
    [[0, 2, 3]]
    """
    vectors = _finite("embeddings", _matrix("embeddings", embeddings))
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        raise TypeError(f"threshold: found {type(threshold).__name__}, expected a number from -1 to 1.")
    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold: found {threshold}, expected a cosine, from -1 to 1.")
    _positive("min_community_size", min_community_size)
    _positive("batch_size", batch_size)
    if not isinstance(show_progress_bar, bool):
        raise TypeError(f"show_progress_bar: found {type(show_progress_bar).__name__}, expected True or False.")
    if len(vectors) < min_community_size:
        return []
    vectors = _normalize(vectors)
    batches: Sequence[Tensor] | Any = torch.arange(len(vectors), device=vectors.device).split(batch_size)
    if show_progress_bar:
        from huggingface_hub.utils.tqdm import tqdm

        batches = tqdm(batches, desc="communities")
    sizes = torch.cat([(_dot(vectors[batch], vectors) >= threshold).sum(dim=1) for batch in batches])
    centres = sizes.argsort(descending=True, stable=True)
    centres = centres[sizes[centres] >= min_community_size]

    # The members are computed anew, a few centres at a time: to keep those of every centre could take rows² numbers, and most
    # centres belong to a larger community by the time it is their turn.
    communities: list[list[int]] = []
    taken = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    for batch in centres.split(min(batch_size, 64)):
        free = batch[~taken[batch]]
        if not len(free):
            continue
        for centre, scores in zip(free.tolist(), _dot(vectors[free], vectors), strict=True):
            if taken[centre]:
                continue
            (members,) = ((scores >= threshold) & ~taken).nonzero(as_tuple=True)
            if len(members) >= min_community_size:
                taken[members] = True
                members = members[scores[members].argsort(descending=True, stable=True)]
                communities.append([centre, *members[members != centre].tolist()])
    return sorted(communities, key=len, reverse=True)


def _nearest(
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
                f"{start + len(block) - 1}, expected finite numbers. Normalize the vectors, or take 'cosine'."
            )
        if own is not None:
            itself = torch.arange(own, own + len(queries), device=scores.device) - start  # the column of each row
            (here,) = ((itself >= 0) & (itself < len(block))).nonzero(as_tuple=True)
            scores = scores.clone()
            scores[here, itself[here]] = -torch.inf
        best, columns = _best(scores, top_k)
        # What was found before stands first, so that of equal scores the earlier row stays first.
        values, order = torch.cat([values, best], dim=1).sort(dim=1, descending=True, stable=True)
        values, ids = values[:, :top_k], torch.cat([ids, columns + start], dim=1).gather(1, order)[:, :top_k]
    return values, ids


def _best(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The largest `top_k` scores of each row of [rows, columns], and their columns: by score, and of equal scores the first.

    `topk` alone leaves open which of several equal scores it takes.

    >>> _best(torch.tensor([[1.0, 3.0, 2.0, 3.0, 3.0]]), 2)
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


def _distinct(scores: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Each pair once, with its first score, in the order of the pairs."""
    pairs, order = pairs.sort(stable=True)
    first = torch.ones_like(pairs, dtype=torch.bool)
    first[1:] = pairs[1:] != pairs[:-1]
    return scores[order][first], pairs[first]


def _scorer(score_function: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]:
    """What to do with each block once, and then with two of them."""
    for name, functions in _FUNCTIONS.items():
        if score_function is functions[0]:
            score_function = name
    if isinstance(score_function, str):
        name = _known(score_function, "score_function")
        if name == "cosine":
            return _normalize, _dot
        return _as_it_is, _dot if name == "dot" else _FUNCTIONS[name][0]
    if not callable(score_function):
        names = ", ".join(map(repr, _FUNCTIONS))
        raise TypeError(f"score_function: found {type(score_function).__name__}, expected one of {names}, or a function.")
    return _as_it_is, score_function


def _as_it_is(vectors: Tensor) -> Tensor:
    return vectors


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """All dot products of two blocks, [rows of a, rows of b], each of them the same bits whatever the other rows are.

    The kernels for matrices whose sides are no multiple of 16 add in another order at the rim, and equal vectors would not tie.
    """
    padded_a, padded_b = (F.pad(block, (0, 0, 0, -len(block) % 16)) if len(block) % 16 else block for block in (a, b))
    return (padded_a @ padded_b.T)[: len(a), : len(b)]


def _normalize(vectors: Tensor) -> Tensor:
    """Each row scaled to length 1; a zero vector stays one.

    By the largest number first: the squares of very small or very large numbers are 0 or infinite.
    """
    if not vectors.numel():
        return vectors
    scale = vectors.detach().abs().amax(dim=-1, keepdim=True)
    vectors = vectors / scale.where(scale > 0, 1)
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.where(length > 0, 1)


# What may come in


def _two(a: Vectors, b: Vectors) -> tuple[Tensor, Tensor]:
    """Two checked matrices of one width, dtype and device."""
    first, second = _matrix("a", a), _matrix("b", b)
    _same_width("a", first, "b", second)
    if first.device != second.device:
        raise ValueError(f"found a on {first.device} and b on {second.device}, expected one device. Move one with .to().")
    first, second = _finite("a", first), _finite("b", second)
    if not len(first) or not len(second):  # an empty list has no width of its own
        width = max(first.shape[1], second.shape[1])
        first, second = (matrix if len(matrix) else matrix.new_zeros(0, width) for matrix in (first, second))
    dtype = torch.promote_types(first.dtype, second.dtype)
    return first.to(dtype), second.to(dtype)


def _pairs(a: Vectors, b: Vectors) -> tuple[Tensor, Tensor]:
    """Two checked matrices of as many rows, or vectors where there was a single one."""
    first, second = _two(a, b)
    single_a, single_b = _is_vector(a), _is_vector(b)
    if not single_a and not single_b and len(first) != len(second):
        raise ValueError(f"found {len(first)} rows in a and {len(second)} in b, expected as many, or a single vector [dim].")
    return first[0] if single_a else first, second[0] if single_b else second


def _is_vector(value: Any) -> bool:
    shape = getattr(value, "shape", None)
    if shape is None:
        return len(value) > 0 and isinstance(value[0], (int, float))
    return len(shape) == 1 and shape[0] > 0 and str(getattr(value, "dtype", None)) != "object"


def _known(fn: str, name: str = "fn") -> str:
    if not isinstance(fn, str):
        raise TypeError(f"{name}: found {type(fn).__name__}, expected one of {', '.join(map(repr, _FUNCTIONS))}.")
    if fn not in _FUNCTIONS:
        raise ValueError(f"{name}: found {fn!r}, expected one of {', '.join(map(repr, _FUNCTIONS))}.")
    return fn


def _positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: found {type(value).__name__}, expected an int.")
    if value < 1:
        raise ValueError(f"{name}: found {value}, expected at least 1.")


def _same_width(name_a: str, a: Any, name_b: str, b: Any) -> None:
    empty = any(tuple(matrix.shape) == (0, 0) for matrix in (a, b))
    if a.shape[1] != b.shape[1] and not empty:
        raise ValueError(
            f"found vectors of {a.shape[1]} numbers in {name_a} and of {b.shape[1]} in {name_b}, expected as many. "
            "Do both come from the same model?"
        )


def _blocks(name: str, matrix: Any, size: int, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
    """The number of its first row, and the block: [at most size, dim], checked."""
    for start in range(0, len(matrix), size):
        yield start, _finite(name, _matrix(name, matrix[start : start + size]), start).to(dtype)


def _finite(name: str, vectors: Tensor, first: int = 0) -> Tensor:
    finite = vectors.isfinite().all(dim=1)
    if not finite.all():
        row = int(finite.int().argmin())
        wrong = vectors[row][~vectors[row].isfinite()][0].item()
        raise ValueError(f"{name}: row {first + row} holds {wrong}, expected finite numbers only.")
    return vectors


def _sliceable(name: str, value: Vectors) -> Any:
    """A matrix [rows, dim] whose blocks `_matrix` takes: an array stays one, so that a memory-mapped one is read block by block."""
    if not isinstance(value, Tensor) and _is_array(value):
        array = _as_array(name, value)
        if array.ndim == 2:
            _matrix(name, array[:0])  # a dtype that cannot be is known before the first block
            return array
    elif isinstance(value, Tensor) and value.dim() == 2 and value.layout == torch.strided:
        return value
    return _matrix(name, value)


def _matrix(name: str, value: Vectors) -> Tensor:
    """The caller's vectors as [rows, dim], float32 or float64."""
    vectors = _tensor(name, value)
    if vectors.layout != torch.strided:
        raise TypeError(f"{name}: found a sparse tensor, expected a dense one. Convert it with .to_dense().")
    if vectors.dtype == torch.bool or vectors.is_complex():
        raise TypeError(f"{name}: found {vectors.dtype}, expected numbers such as torch.float32.")
    if vectors.shape == (0,):
        vectors = vectors.view(0, 0)
    if vectors.dim() == 1:
        vectors = vectors[None]
    if vectors.dim() != 2:
        raise ValueError(f"{name}: found the shape {list(vectors.shape)}, expected [rows, dim], or [dim] for one vector.")
    if len(vectors) and not vectors.shape[1]:
        raise ValueError(f"{name}: found {len(vectors)} vectors without numbers, expected [rows, dim].")
    return vectors if vectors.dtype == torch.float64 else vectors.float()


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if _is_array(value):
        array = _as_array(name, value)
        if array.dtype != object:
            try:
                # torch warns of an array that cannot be written to, and refuses negative strides and foreign byte orders
                plain = array.flags.writeable and array.dtype.isnative and all(stride >= 0 for stride in array.strides)
                return torch.from_numpy(array if plain else array.astype(array.dtype.newbyteorder("=")))
            except TypeError as error:
                raise TypeError(f"{name}: found an array of {array.dtype}, expected numbers such as float32.") from error
        value = list(array)  # such as a pandas.Series of vectors
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name}: found {type(value).__name__}, expected a tensor, an array, or a list of vectors.")
    if all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in value):
        return torch.tensor(value, dtype=torch.float32)
    rows = [_tensor(f"{name}[{index}]", row) for index, row in enumerate(value)]
    for index, row in enumerate(rows):
        if row.shape != rows[0].shape or row.device != rows[0].device:
            raise ValueError(
                f"{name}[{index}]: found {list(row.shape)} on {row.device}, expected what {name}[0] is, {list(rows[0].shape)} on "
                f"{rows[0].device}."
            )
    dtype = rows[0].dtype
    for row in rows:
        dtype = torch.promote_types(dtype, row.dtype)
    return torch.stack([row.to(dtype) for row in rows])


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, (list, tuple))


def _as_array(name: str, value: Any) -> Any:
    try:
        import numpy as np
    except ImportError as error:
        raise MissingExtraError(
            f"{name}: a {type(value).__name__} needs numpy, which is not installed. Run pip install 'minisbert[numpy]', "
            "or pass a tensor."
        ) from error
    return np.asarray(value)
