"""`minisbert.similarity`: against formulas by hand, against sentence-transformers on real sentences, and what odd input gives."""

from __future__ import annotations

import importlib.util
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import save_tiny, write_json
from messages import naming
from parity.compare import close_scores
from sentence_transformers import SentenceTransformer, util
from torch import Tensor

import minisbert
from minisbert import MissingExtraError, SentenceEncoder, community_detection, paraphrase_mining, semantic_search
from minisbert import similarity as similarity_function
from minisbert.checkpoint.config import SIMILARITY_FUNCTIONS
from minisbert.util import (
    cos_sim,
    dot_score,
    euclidean_sim,
    manhattan_sim,
    pairwise_cos_sim,
    pairwise_dot_score,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
    paraphrase_mining_embeddings,
    similarity_pairwise,
)

ALL = {"cosine": cos_sim, "dot": dot_score, "euclidean": euclidean_sim, "manhattan": manhattan_sim}
PAIRWISE = {
    "cosine": pairwise_cos_sim,
    "dot": pairwise_dot_score,
    "euclidean": pairwise_euclidean_sim,
    "manhattan": pairwise_manhattan_sim,
}
EVERY_NAME = pytest.mark.parametrize("name", SIMILARITY_FUNCTIONS)


def by_hand(name: str, a: list[float], b: list[float]) -> float:
    """The formula of the textbook, on Python's own numbers."""
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    if name == "cosine":
        return dot / (math.hypot(*a) * math.hypot(*b))
    if name == "dot":
        return dot
    return -math.dist(a, b) if name == "euclidean" else -math.fsum(abs(x - y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def sentences(sts_sentences: list[str]) -> list[str]:
    """500 real sentences that the model can tell apart; neighbours are about the same thing, some nearly equal."""
    return list({" ".join(sentence.lower().split()): sentence for sentence in sts_sentences}.values())[:500]


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> SentenceEncoder:
    return minisbert.load(minilm_folder, device="cpu")


@pytest.fixture(scope="module")
def vectors(minilm: SentenceEncoder, sentences: list[str]) -> Tensor:
    """Their vectors, [500, 384], in float64, where no two scores are so close that rounding could swap them."""
    return minilm.encode(sentences, on_truncate="ignore").double()


def small(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The four functions


@EVERY_NAME
def test_all_against_all_is_the_formula(name: str) -> None:
    a, b = small(3), small(4, seed=1)
    expected = [[by_hand(name, x, y) for y in b.tolist()] for x in a.tolist()]
    torch.testing.assert_close(ALL[name](a, b), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14)
    assert torch.equal(similarity_function(a, b, name), ALL[name](a, b))


@EVERY_NAME
def test_pair_by_pair_is_the_formula(name: str) -> None:
    a, b = small(4), small(4, seed=1)
    expected = [by_hand(name, x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    torch.testing.assert_close(PAIRWISE[name](a, b), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14)
    assert torch.equal(similarity_pairwise(a, b, name), PAIRWISE[name](a, b))


@pytest.mark.every_processor
@EVERY_NAME
def test_real_vectors_get_the_scores_of_sentence_transformers(name: str, vectors: Tensor) -> None:
    a, b = vectors[:200], vectors[200:400]
    for dtype in torch.float64, torch.float32:
        for function in ALL[name], PAIRWISE[name]:
            x, y = a.to(dtype), b.to(dtype)
            theirs = getattr(util, function.__name__)(x, y)
            close_scores(function.__name__, function(x, y), theirs, x, y, euclidean=name == "euclidean")


def test_cosine_is_what_similarity_means() -> None:
    a, b = small(3), small(4, seed=1)
    assert torch.equal(similarity_function(a, b), cos_sim(a, b))
    assert torch.equal(similarity_pairwise(a, a), pairwise_cos_sim(a, a))


@pytest.mark.parametrize("function", [similarity_function, similarity_pairwise])
def test_another_function_is_refused(function: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=naming("fn", "'cos'", *map(repr, SIMILARITY_FUNCTIONS))):
        function([1.0], [1.0], "cos")
    with pytest.raises(TypeError, match=naming("fn", "builtin_function_or_method", "'cosine'")):
        function([1.0], [1.0], max)


def test_equal_vectors_are_at_no_distance(vectors: Tensor) -> None:
    a = vectors[:100].float()
    assert not euclidean_sim(a, a).diagonal().any()
    assert util.euclidean_sim(a, a).diagonal().abs().max() > 1e-4  # what is avoided here


def test_one_can_train_through_them() -> None:
    for function in (*ALL.values(), *PAIRWISE.values()):
        a, b = small(3).requires_grad_(), small(3, seed=1)
        assert torch.autograd.gradcheck(function, (a, b)), function.__name__
    zero = torch.zeros(1, 5, requires_grad=True)
    cos_sim(zero, small(2).float()).sum().backward()
    assert zero.grad.isfinite().all()


def test_an_encoder_compares_as_its_checkpoint_says(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    a, b = small(3), small(3, seed=1)
    assert minisbert.load(tmp_path).similarity_fn_name == "cosine"
    for name in SIMILARITY_FUNCTIONS:
        write_json(tmp_path / "config_sentence_transformers.json", {"similarity_fn_name": name})
        encoder, theirs = minisbert.load(tmp_path), SentenceTransformer(str(tmp_path), device="cpu")
        assert encoder.similarity_fn_name == theirs.similarity_fn_name == name
        assert torch.equal(encoder.similarity(a, b), ALL[name](a, b))
        assert torch.equal(encoder.similarity_pairwise(a, b), PAIRWISE[name](a, b))
        torch.testing.assert_close(encoder.similarity(a, b), theirs.similarity(a, b), rtol=0, atol=1e-12)
        torch.testing.assert_close(encoder.similarity_pairwise(a, b), theirs.similarity_pairwise(a, b), rtol=0, atol=1e-12)
    encoder.similarity_fn_name = "dot"
    assert torch.equal(encoder.similarity(a, b), dot_score(a, b))
    with pytest.raises(ValueError, match=naming("similarity_fn_name", "'cos'", *map(repr, SIMILARITY_FUNCTIONS))):
        encoder.similarity_fn_name = "cos"
    with pytest.raises(TypeError, match=naming("similarity_fn_name", "NoneType", "'cosine'")):
        encoder.similarity_fn_name = None


def test_the_module_is_imported_as_the_reference_has_it_and_the_function_hides_no_module() -> None:
    import minisbert.util as util  # noqa: PLR0402 (as it stands in people's programs)

    assert torch.equal(util.cos_sim([[1.0, 0.0]], [[1.0, 1.0]]), cos_sim([[1.0, 0.0]], [[1.0, 1.0]]))
    assert minisbert.similarity is similarity_function
    assert callable(minisbert.similarity)
    assert importlib.util.find_spec("minisbert.similarity") is None
    for function in minisbert.similarity, cos_sim:
        assert pickle.loads(pickle.dumps(function)) is function  # noqa: S301 - our own bytes


# What may come in


@EVERY_NAME
def test_single_vectors_are_one_row(name: str) -> None:
    a, b = small(1), small(3, seed=1)
    assert torch.equal(ALL[name](a[0], b), ALL[name](a, b))
    assert torch.equal(ALL[name](b, a[0]), ALL[name](b, a))
    assert ALL[name](a[0], b[0]).shape == (1, 1)
    assert PAIRWISE[name](a[0], b[0]).shape == ()
    assert torch.equal(PAIRWISE[name](a[0], b), PAIRWISE[name](a.expand(3, 5), b))
    assert torch.equal(PAIRWISE[name](b.tolist(), a[0].tolist()), PAIRWISE[name](b.float(), a.float().expand(3, 5)))


@pytest.mark.parametrize(
    "convert",
    [
        Tensor.numpy,
        Tensor.tolist,
        list,
        tuple,
        lambda a: list(a.numpy()),
        lambda a: [row.tolist() for row in a],
        lambda a: np.asfortranarray(a.numpy()),
        lambda a: a.flip(0).numpy()[::-1],
        lambda a: a.numpy().astype(">f4"),
        lambda a: np.array([*a.numpy(), None], dtype=object)[:-1],
    ],
    ids=["array", "lists", "list of tensors", "tuple", "list of arrays", "rows", "columns", "reversed", "big-endian", "objects"],
)
def test_arrays_and_lists_are_vectors(convert: Callable[[Tensor], Any]) -> None:
    a, b = small(3).float(), small(2, seed=1).float()
    assert torch.equal(cos_sim(convert(a), b), cos_sim(a, b))
    assert torch.equal(pairwise_cos_sim(a[:2], convert(b)), pairwise_cos_sim(a[:2], b))
    assert semantic_search(convert(b), convert(a)) == semantic_search(b, a)


def test_an_array_that_cannot_be_written_to_is_read_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    a = small(3).numpy()
    a.flags.writeable = False
    assert torch.equal(cos_sim(a, a), cos_sim(small(3), small(3)))
    assert not recwarn.list


def test_an_array_without_numpy_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    class Array:
        shape = (1, 2)

        def __array__(self) -> None:
            raise AssertionError("numpy is needed first")

    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(MissingExtraError, match=naming("a:", "Array", "pip install numpy")):
        cos_sim(Array(), [1.0, 2.0])


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        (torch.float32, torch.float32, torch.float32),
        (torch.float32, torch.float64, torch.float64),
        (torch.float16, torch.float16, torch.float32),
        (torch.bfloat16, torch.float64, torch.float64),
        (torch.float16, torch.float32, torch.float32),
        (torch.int8, torch.int8, torch.float32),
        (torch.uint8, torch.int64, torch.float32),
    ],
)
@EVERY_NAME
def test_the_finer_precision_holds_and_never_less_than_float32(
    name: str, a: torch.dtype, b: torch.dtype, dtype: torch.dtype
) -> None:
    x, y = (small(3) * 9).to(a), (small(3, seed=1) * 9).to(b)
    wide = ALL[name](x.to(dtype), y.to(dtype))
    assert ALL[name](x, y).dtype == PAIRWISE[name](x, y).dtype == dtype
    assert torch.equal(ALL[name](x, y), wide)
    found = semantic_search(x, y, top_k=3, score_function=name)
    assert [hit["score"] for hit in found[0]] == pytest.approx(sorted(wide[0].tolist(), reverse=True), rel=1e-6, abs=1e-6)


def test_half_precision_does_not_make_scores_equal() -> None:
    query, corpus = torch.tensor([1.0, 1.0]).half(), torch.tensor([[0.0, 2048.0], [1.0, 2048.0]]).half()
    assert [hit["corpus_id"] for hit in semantic_search(query, corpus, score_function="dot")[0]] == [1, 0]
    assert (query @ corpus[0]) == (query @ corpus[1])  # in half precision


def test_a_zero_vector_has_cosine_0_with_everything() -> None:
    zero, others = torch.zeros(1, 5), small(3).float()
    assert not cos_sim(zero, others).any()
    assert not cos_sim(zero, zero).any()
    assert not pairwise_cos_sim(zero[0], others).any()
    assert [hit["score"] for hit in semantic_search(zero, others)[0]] == [0, 0, 0]
    assert paraphrase_mining_embeddings(torch.zeros(3, 5)) == [[0, 0, 1], [0, 0, 2], [0, 1, 2]]
    assert community_detection(torch.zeros(3, 5), threshold=0.5, min_community_size=1) == []


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-12, 1e12, 1e30])
def test_the_length_of_a_vector_does_not_change_its_cosine(size: float) -> None:
    a, b = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [0.0, 1.0]])
    expected = torch.tensor([[0.96, 0.8], [0.8, 0.0]])
    torch.testing.assert_close(cos_sim(a * size, b), expected, rtol=0, atol=1e-4 if size < 1e-37 else 1e-7)
    torch.testing.assert_close(cos_sim(a, b * size), expected, rtol=0, atol=1e-4 if size < 1e-37 else 1e-7)
    assert semantic_search(a * size, b, top_k=1)[1][0] == {"corpus_id": 0, "score": pytest.approx(0.8, abs=1e-4)}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@EVERY_NAME
def test_nan_and_infinity_are_refused_by_row(name: str, number: float) -> None:
    good, bad = small(9).float(), small(9).float()
    bad[6, 2] = bad[8, 0] = number
    where = "row 6", number
    for function in ALL[name], PAIRWISE[name]:
        with pytest.raises(ValueError, match=naming("a:", *where)):
            function(bad, good)
        with pytest.raises(ValueError, match=naming("b:", *where)):
            function(good, bad)
    with pytest.raises(ValueError, match=naming("query_embeddings", *where)):
        semantic_search(bad, good, score_function=name, query_chunk_size=4)
    with pytest.raises(ValueError, match=naming("corpus_embeddings", *where)):
        semantic_search(good, bad, score_function=name, corpus_chunk_size=2)
    with pytest.raises(ValueError, match=naming("embeddings", *where)):
        paraphrase_mining_embeddings(bad, score_function=name, corpus_chunk_size=4)
    with pytest.raises(ValueError, match=naming("embeddings", *where)):
        community_detection(bad)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@EVERY_NAME
def test_a_bad_row_is_named_though_the_query_does_not_look_at_it(name: str, number: float) -> None:
    corpus = small(70)
    corpus[:5] = 1
    corpus[64, 2] = number  # after the best rows; the first query is 0 there, and the second finds it the farthest of all
    for query in torch.eye(5)[0], torch.eye(5)[2] * (-1 if number > 0 else 1), torch.zeros(5):
        for size in 4096, 32, 7:
            with pytest.raises(ValueError, match=naming("corpus_embeddings", "row 64", number)):
                semantic_search(query, corpus, top_k=1, score_function=name, corpus_chunk_size=size)


def test_a_row_of_any_length_has_its_own_score_whatever_rows_lie_beside_it() -> None:
    corpus = torch.randn(80, 48, generator=torch.Generator().manual_seed(0))
    corpus *= torch.tensor([1.0, 1e-40, 1e30, 1e-20, 3.0, 1e18, 0.0, 1e-3])[torch.arange(80) % 8, None]
    for queries in corpus[:8], corpus[:8].double():
        found = [semantic_search(queries, corpus, top_k=80, corpus_chunk_size=size) for size in (80, 1, 7, 32)]
        assert found[1:] == found[:1] * 3
        scores = torch.zeros(8, 80, dtype=queries.dtype)
        for row, hits in zip(scores, found[0], strict=True):
            row[[hit["corpus_id"] for hit in hits]] = torch.tensor([hit["score"] for hit in hits], dtype=queries.dtype)
        expected = util.cos_sim(corpus[:8].double() * 1e40, corpus.double() * 1e40)  # theirs takes 1e-12 for 0
        torch.testing.assert_close(scores.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.every_processor
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cosine_has_the_same_bits_alone_and_among_others(dtype: torch.dtype) -> None:
    for width in 5, 48, 384, 1001:
        a, b = (torch.randn(rows, width, generator=torch.Generator().manual_seed(rows), dtype=dtype) for rows in (9, 200))
        whole, both = cos_sim(a, b), cos_sim(b, b)
        for rows in 1, 16, 17, 32, 64, 80, 199:
            assert torch.equal(cos_sim(a, b[:rows]), whole[:, :rows])
            assert torch.equal(cos_sim(b[:rows], b), both[:rows])
        for row, column in (0, 0), (8, 199), (3, 17):
            assert torch.equal(cos_sim(a[row], b[column])[0, 0], whole[row, column])
        assert torch.equal(both, both.T)


@EVERY_NAME
def test_widths_that_differ_are_refused(name: str) -> None:
    for function in ALL[name], PAIRWISE[name]:
        with pytest.raises(ValueError, match=naming("5 dimensions in a", "4 in b")):
            function(small(3), small(3)[:, :4])
    with pytest.raises(ValueError, match=naming(5, "query_embeddings", 4, "corpus_embeddings")):
        semantic_search(small(3), small(3)[:, :4], score_function=name)


@EVERY_NAME
def test_pairs_need_as_many_rows_on_either_side(name: str) -> None:
    for rows in 1, 2, 0:  # one row is not a single vector: it would be compared with all without a word
        with pytest.raises(ValueError, match=naming("3 rows in a", f"{rows} in b", "[dim]")):
            PAIRWISE[name](small(3), small(3)[:rows])


def test_two_devices_are_refused() -> None:
    with pytest.raises(ValueError, match=naming("a on cpu", "b on meta", ".to()")):
        cos_sim(small(2), small(2).to("meta"))


@pytest.mark.parametrize(
    ("value", "error", "place", "parts"),
    [
        ("text", TypeError, ":", ("str", "tensor", "array", "list")),
        (None, TypeError, ":", ("NoneType", "tensor")),
        (1.0, TypeError, ":", ("float", "tensor")),
        ({"a": 1}, TypeError, ":", ("dict", "tensor")),
        ([[1.0, 2.0], "text"], TypeError, "[1]:", ("str", "tensor")),
        ([[1.0, 2.0], [1.0]], ValueError, "[1]:", ([1], "cpu", [0], [2], "cpu")),
        ([[1.0, 2.0], [1.0, None]], TypeError, "[1][0]:", ("float", "tensor")),
        ([True, False], TypeError, "[0]:", ("bool", "tensor")),
        (np.array(["a", "b"]), TypeError, ":", ("array of <U1", "float32")),
        (np.array([1.0, None]), TypeError, "[0]:", ("float", "tensor")),
        (torch.ones(2, 5) > 0, TypeError, ":", (torch.bool, torch.float32)),
        (torch.ones(2, 5) * 1j, TypeError, ":", (torch.complex64, torch.float32)),
        (torch.ones(2, 5).to_sparse(), TypeError, ":", ("sparse", "dense", ".to_dense()")),
        (torch.ones(2, 3, 5), ValueError, ":", ([2, 3, 5], "[rows, dim]", "[dim]")),
        (torch.tensor(1.0), ValueError, ":", ([], "[rows, dim]")),
        (torch.ones(3, 0), ValueError, ":", (3, "[rows, dim]")),
    ],
    ids=str,
)
def test_what_is_no_vector_is_refused(value: Any, error: type[Exception], place: str, parts: tuple[Any, ...]) -> None:
    for function in cos_sim, pairwise_manhattan_sim:
        with pytest.raises(error, match=naming("a" + place, *parts)):
            function(value, small(2))
    with pytest.raises(error, match=naming("query_embeddings" + place, *parts)):
        semantic_search(value, small(2))
    for search in paraphrase_mining_embeddings, community_detection:
        with pytest.raises(error, match=naming("embeddings" + place, *parts)):
            search(value)


@EVERY_NAME
def test_no_vectors_give_no_scores(name: str) -> None:
    some = small(3)
    for none in [], torch.empty(0, 5), torch.empty(0), np.empty((0, 5)), np.empty(0):
        assert ALL[name](some, none).shape == (3, 0)
        assert ALL[name](none, some).shape == (0, 3)
        assert ALL[name](none, none).shape == (0, 0)
        assert PAIRWISE[name](none, none).shape == (0,)
        assert semantic_search(some, none, score_function=name) == [[], [], []]
        assert semantic_search(none, some, score_function=name) == []
        assert paraphrase_mining_embeddings(none, score_function=name) == []
        assert community_detection(none, min_community_size=1) == []
    assert paraphrase_mining_embeddings(some[:1], score_function=name) == []
    with pytest.raises(ValueError, match=naming("5 dimensions in a", "4 in b")):
        ALL[name](some, torch.empty(0, 4))


# Search


def ids(found: list[list[Any]]) -> list[list[int]]:
    return [[hit["corpus_id"] for hit in hits] for hits in found]


@EVERY_NAME
def test_a_search_finds_what_sorting_all_scores_finds(name: str, vectors: Tensor) -> None:
    queries, corpus = vectors[:40], vectors[40:]
    scores = ALL[name](queries, corpus)
    found = semantic_search(queries, corpus, top_k=7, score_function=name)
    for row, hits in zip(scores.tolist(), found, strict=True):
        best = sorted(range(len(row)), key=lambda i: (-row[i], i))[:7]
        assert [hit["corpus_id"] for hit in hits] == best
        assert [hit["score"] for hit in hits] == pytest.approx([row[i] for i in best], rel=0, abs=1e-12)


@pytest.mark.parametrize("top_k", [1, 10, 5000])
def test_a_search_finds_what_sentence_transformers_finds(vectors: Tensor, top_k: int) -> None:
    queries, corpus = vectors[:40], vectors[40:]
    ours, theirs = (search(queries, corpus, top_k=top_k) for search in (semantic_search, util.semantic_search))
    assert ids(ours) == ids(theirs)
    assert [[hit["score"] for hit in hits] for hits in ours] == [
        pytest.approx([hit["score"] for hit in hits], rel=0, abs=1e-12) for hits in theirs
    ]
    ours = semantic_search(queries, corpus, top_k=top_k, score_function=dot_score)
    assert ids(ours) == ids(util.semantic_search(queries, corpus, top_k=top_k, score_function=util.dot_score))


@EVERY_NAME
def test_equal_scores_come_in_the_order_of_their_rows_whatever_the_blocks(name: str, vectors: Tensor) -> None:
    """Every row stands in the corpus seven times: to the last bit, their scores must not depend on where they stand."""
    rows = torch.arange(700)[torch.randperm(700, generator=torch.Generator().manual_seed(0))] % 100
    corpus, queries = vectors[rows].float(), vectors[:30].float()
    expected = semantic_search(queries, corpus, top_k=10, score_function=name)
    for query, hits in enumerate(expected):
        assert [hit["corpus_id"] for hit in hits[:7]] == (rows == query).nonzero()[:, 0].tolist()
        assert len({hit["score"] for hit in hits[:7]}) == 1
        for before, after in pairwise(hits):
            assert (-before["score"], before["corpus_id"]) < (-after["score"], after["corpus_id"])
    for query_chunk_size, corpus_chunk_size in (1, 700), (7, 33), (30, 1), (4, 128), (100, 501):
        blocks = {"query_chunk_size": query_chunk_size, "corpus_chunk_size": corpus_chunk_size}
        assert semantic_search(queries, corpus, top_k=10, score_function=name, **blocks) == expected
    assert [semantic_search(query, corpus, score_function=name)[0] for query in queries] == expected


def whole_numbers(rows: int, seed: int = 0) -> Tensor:
    """Vectors whose dot products are exact in any order of additions, and of which many are equal."""
    return torch.randint(-2, 3, (rows, 5), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("top_k", [1, 7, 100, 5000])
@pytest.mark.parametrize("blocks", [(1, 400), (9, 1), (7, 96), (1000, 33), (1024, 4096)], ids=str)
def test_of_many_equal_scores_those_of_the_first_rows_are_found(top_k: int, blocks: tuple[int, int]) -> None:
    queries, corpus = whole_numbers(9), whole_numbers(400, seed=1)
    sizes = dict(zip(("query_chunk_size", "corpus_chunk_size"), blocks, strict=True))
    found = semantic_search(queries, corpus, top_k=top_k, score_function="dot", **sizes)
    for row, hits in zip((queries @ corpus.T).tolist(), found, strict=True):
        best = sorted(range(400), key=lambda i: (-row[i], i))[:top_k]
        assert [(hit["corpus_id"], hit["score"]) for hit in hits] == [(i, row[i]) for i in best]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("score_function", ["cosine", "dot"])
def test_a_search_through_many_blocks_is_that_of_sentence_transformers(score_function: str, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    corpus, queries = (torch.randn(rows, 48, generator=random).to(dtype) for rows in (9000, 20))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    theirs = util.semantic_search(
        queries.to(wide), corpus.to(wide), top_k=8, score_function=util.cos_sim if score_function == "cosine" else util.dot_score
    )
    for size in 4096, 512, 1000:
        ours = semantic_search(queries, corpus, top_k=8, score_function=score_function, corpus_chunk_size=size)
        for hits, expected in zip(ours, theirs, strict=True):
            assert [hit["score"] for hit in hits] == pytest.approx([hit["score"] for hit in expected], rel=1e-5)
            if dtype in (torch.float64, torch.float32):  # others have equal scores but for rounding
                assert [hit["corpus_id"] for hit in hits] == [hit["corpus_id"] for hit in expected]


@EVERY_NAME
def test_a_search_has_the_same_bits_on_any_number_of_threads(name: str, vectors: Tensor) -> None:
    """Each worker scores other blocks at every run. Every vector occurs ten times, so that scores tie across blocks."""
    corpus, queries = vectors[torch.arange(3000) % 300].float() * 3, vectors[280:320].float()
    bad = corpus.clone()
    bad[[700, 2900], 3] = math.inf
    before, found, mined = torch.get_num_threads(), [], []
    try:
        for threads, size in (1, 16384), (2, 500), (2, 16384), (3, 33), (5, 96):
            torch.set_num_threads(threads)
            blocks = {"score_function": name, "corpus_chunk_size": size}
            found.append(semantic_search(queries, corpus, top_k=25, **blocks))
            mined.append(paraphrase_mining_embeddings(corpus[:700], max_pairs=900, **blocks))
            with pytest.raises(ValueError, match=r"corpus_embeddings: row 700 holds inf"):
                semantic_search(queries, bad, **blocks)
    finally:
        torch.set_num_threads(before)
    assert found[1:] == found[:1] * 4
    assert mined[1:] == mined[:1] * 4
    best = [row.sort(descending=True, stable=True).indices[:25].tolist() for row in ALL[name](queries.double(), corpus.double())]
    first, theirs = ([[i % 300 for i in row] for row in rows] for rows in (ids(found[0]), best))
    assert first == theirs  # and which of the ten: see the test of equal scores


def test_a_search_needs_memory_for_a_block_only(tmp_path: Path) -> None:
    """200,000 rows in half precision are 154 MB on disk, and 307 in float32. Its pages may come in; they are not ours."""
    program = """
import sys, numpy as np, torch, minisbert
torch.set_num_threads(1)
path, rows = sys.argv[1], int(sys.argv[2])
corpus = np.memmap(path, np.float16, "w+", shape=(rows, 384))
corpus[rows - 3, 1] = 1
del corpus
corpus = np.memmap(path, np.float16, "r", shape=(rows, 384))
def anonymous():
    with open("/proc/self/status") as status:
        return sum(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024
(hits,) = minisbert.semantic_search(torch.eye(384)[1], corpus[:9000], top_k=2)
before = peak = anonymous()
def watched(query, block):
    global peak
    peak = max(peak, anonymous())
    return minisbert.similarity(query, block, "dot")
for function in "cosine", watched:
    (hits,) = minisbert.semantic_search(torch.eye(384)[1], corpus, top_k=2, score_function=function)
    assert hits == [{"corpus_id": rows - 3, "score": 1.0}, {"corpus_id": 0, "score": 0.0}], hits
print(max(peak, anonymous()) - before)
"""
    command = [sys.executable, "-W", "error", "-c", program, tmp_path / "corpus", "200000"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 75  # MB; measured: 45


def test_a_function_of_one_s_own_can_score() -> None:
    queries, corpus = small(2), small(4, seed=1)

    def first_number(a: Tensor, b: Tensor) -> Tensor:
        return -(a[:, None, 0] - b[None, :, 0]).abs()

    found = semantic_search(queries, corpus, score_function=first_number, corpus_chunk_size=3)
    assert ids(found) == (queries[:, :1] - corpus[:, 0]).abs().argsort(dim=1).tolist()
    for wrong, found in (lambda a, _: a, [2, 5]), (lambda *_: 1.0, "float"):
        with pytest.raises(ValueError, match=naming("score_function", found, [2, 3])):
            semantic_search(queries, corpus, score_function=wrong, corpus_chunk_size=3)


@pytest.mark.parametrize("search", [semantic_search, paraphrase_mining_embeddings])
def test_options_are_given_by_name_since_their_order_is_another_in_sentence_transformers(search: Callable[..., Any]) -> None:
    vectors = [small(3), small(4, seed=1)][: 2 if search is semantic_search else 1]
    assert search(*vectors, top_k=1)
    with pytest.raises(TypeError, match="positional argument"):
        search(*vectors, 1)


def test_scores_that_overflow_are_refused() -> None:
    huge = torch.tensor([[1e30, -1e30]])
    with pytest.raises(ValueError, match=naming("score_function", "inf", "rows 2 to 2")):
        semantic_search(huge, torch.tensor([[0.0, 0.0], [1.0, 1.0], [1e30, 1e30]]), score_function="dot", corpus_chunk_size=2)
    with pytest.raises(ValueError, match=naming("score_function", "-inf", "rows 0 to 1")):
        paraphrase_mining_embeddings(torch.cat([huge, -huge]), score_function="euclidean")
    assert semantic_search(huge, torch.tensor([[1e30, 1e30]]))[0][0]["score"] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("option", "value", "error", "parts"),
    [
        ("top_k", 0, ValueError, (0, 1)),
        ("top_k", 1.5, TypeError, ("float", "int")),
        ("top_k", True, TypeError, ("bool", "int")),
        ("query_chunk_size", -1, ValueError, (-1, 1)),
        ("corpus_chunk_size", 0, ValueError, (0, 1)),
        ("score_function", "cos_sim", ValueError, ("'cos_sim'", "'cosine', 'dot'")),
        ("score_function", 1, TypeError, ("int", "'cosine'", "function")),
    ],
    ids=str,
)
def test_options_out_of_range_are_named(option: str, value: Any, error: type[Exception], parts: tuple[Any, ...]) -> None:
    with pytest.raises(error, match=naming(option, *parts)):
        semantic_search(small(2), small(2), **{option: value})
    with pytest.raises(error, match=naming(option, *parts)):
        paraphrase_mining_embeddings(small(2), **{option: value})


# Paraphrases and communities


@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": 3}, {"max_pairs": 100}, {"max_pairs": 250, "top_k": 2}, {"query_chunk_size": 90, "corpus_chunk_size": 64}],
)
def test_paraphrases_are_those_of_sentence_transformers(vectors: Tensor, options: dict[str, int]) -> None:
    ours, theirs = (mine(vectors, **options) for mine in (paraphrase_mining_embeddings, util.paraphrase_mining_embeddings))
    assert [pair[1:] for pair in ours] == [pair[1:] for pair in theirs]
    assert [pair[0] for pair in ours] == pytest.approx([pair[0] for pair in theirs], rel=0, abs=1e-12)


def test_paraphrases_are_mined_from_texts(minilm: SentenceEncoder, sentences: list[str], minilm_folder: Path) -> None:
    reference = SentenceTransformer(str(minilm_folder), device="cpu")
    ours = paraphrase_mining(minilm, sentences[:60], max_pairs=30, on_truncate="ignore")
    theirs = util.paraphrase_mining(reference, sentences[:60], max_pairs=30)
    assert [pair[1:] for pair in ours] == [pair[1:] for pair in theirs]
    assert [pair[0] for pair in ours] == pytest.approx([pair[0] for pair in theirs], rel=0, abs=1e-6)


def test_equal_pairs_come_in_the_order_of_their_rows_whatever_the_blocks() -> None:
    vectors = torch.eye(5)[[0, 1, 0, 1, 2, 0]]
    equal = [[1, 0, 2], [1, 0, 5], [1, 1, 3], [1, 2, 5]]
    for size in 1, 2, 4, 6:
        blocks = {"query_chunk_size": size, "corpus_chunk_size": 7 - size}
        pairs = paraphrase_mining_embeddings(vectors, **blocks)
        assert pairs == equal + [[0, i, j] for i in range(6) for j in range(i + 1, 6) if [1, i, j] not in equal]
        assert paraphrase_mining_embeddings(vectors, max_pairs=3, **blocks) == equal[:3]
        assert paraphrase_mining_embeddings(vectors, top_k=1, **blocks) == [[1, 0, 2], [1, 0, 5], [1, 1, 3], [0, 0, 4]]


@pytest.mark.parametrize("options", [{"top_k": 3}, {"max_pairs": 40}, {"max_pairs": 200, "top_k": 7}, {}], ids=str)
def test_of_many_equal_pairs_those_of_the_first_rows_are_found(options: dict[str, int]) -> None:
    vectors = whole_numbers(100)
    scores = (vectors @ vectors.T).tolist()
    top_k = options.get("top_k", 100)
    nearest = [sorted({*range(100)} - {i}, key=lambda j, row=row: (-row[j], j))[:top_k] for i, row in enumerate(scores)]
    pairs = {(min(i, j), max(i, j)) for i, others in enumerate(nearest) for j in others}
    expected = sorted([scores[i][j], i, j] for i, j in pairs)
    expected = sorted(expected, key=lambda pair: -pair[0])[: options.get("max_pairs", 10_000)]
    for sizes in (1024, 4096), (7, 33), (16, 48):
        blocks = dict(zip(("query_chunk_size", "corpus_chunk_size"), sizes, strict=True))
        assert paraphrase_mining_embeddings(vectors, score_function="dot", **options, **blocks) == expected


@pytest.mark.parametrize(
    ("threshold", "min_community_size"), [(0.75, 2), (0.75, 3), (0.5, 2), (0.5, 10), (0.25, 10), (0.25, 1), (0, 400)]
)
def test_communities_are_those_of_sentence_transformers(vectors: Tensor, threshold: float, min_community_size: int) -> None:
    theirs = util.community_detection(vectors, threshold, min_community_size)
    for batch_size in 1024, 100:
        assert community_detection(vectors, threshold, min_community_size, batch_size) == theirs


def test_fewer_rows_than_a_community_needs_make_none() -> None:
    assert community_detection(small(3), threshold=-1, min_community_size=4) == []
    assert [sorted(rows) for rows in community_detection(small(3), threshold=-1, min_community_size=3)] == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("option", "value", "error", "parts"),
    [
        ("threshold", 1.5, ValueError, (1.5, -1, 1)),
        ("threshold", math.nan, ValueError, (math.nan, -1, 1)),
        ("threshold", "0.5", TypeError, ("str", -1, 1)),
        ("min_community_size", 0, ValueError, (0, 1)),
        ("batch_size", 0, ValueError, (0, 1)),
        ("show_progress_bar", 1, TypeError, ("int", True, False)),
    ],
    ids=str,
)
def test_options_of_communities_out_of_range_are_named(
    option: str, value: Any, error: type[Exception], parts: tuple[Any, ...]
) -> None:
    with pytest.raises(error, match=naming(option, *parts)):
        community_detection(small(2), **{option: value})


def test_a_progress_bar_is_shown_on_stderr_when_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    community_detection(small(20))
    assert capfd.readouterr() == ("", "")
    community_detection(small(20), show_progress_bar=True)
    said = capfd.readouterr()
    assert said.out == ""
    assert "communities: 100%" in said.err
