"""What callers see of encode, similarity and search, beside sentence-transformers: kinds, shapes, options and settings.

The behaviours are those that its own test suite asks for, as far as they apply. That the values are the same for all sorts of
texts and checkpoints, the other files here show. Where we differ on purpose, the test says so in its name.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer, util
from torch import Tensor

import minisbert
from minisbert import SentenceEncoder, community_detection, paraphrase_mining, semantic_search, similarity
from minisbert.checkpoint.config import SIMILARITY_FUNCTIONS
from minisbert.inference.inputs import OPTIONS
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
)
from parity.compare import MINILM, close, close_scores

README = Path(__file__).parents[2] / "minisbert/inference/README.md"
TEXTS = ["A man is eating food.", "Someone is having a meal.", "", "The sky is blue, and the grass is green.", "A man eats."]
LONG = ["The sky is blue and the grass is green. " * 70, TEXTS[0]]
CLOSE = MINILM[torch.float32].vectors


@pytest.fixture(scope="module")
def encoder(minilm_folder: Path) -> SentenceEncoder:
    return minisbert.load(minilm_folder, device="cpu")


@pytest.fixture
def ours(encoder: SentenceEncoder) -> SentenceEncoder:
    """With settings of its own, which a test may change, and the weights of all."""
    return copy.deepcopy(encoder, {id(encoder.bert): encoder.bert})


@pytest.fixture(scope="module")
def model(minilm_folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(minilm_folder), device="cpu")


@pytest.fixture
def theirs(model: SentenceTransformer) -> Iterator[SentenceTransformer]:
    """With settings that are put back after a test that changed them."""
    names = ("prompts", "default_prompt_name", "truncate_dim", "similarity_fn_name", "max_seq_length")
    before = {name: copy.copy(getattr(model, name)) for name in names}
    yield model
    for name, value in before.items():
        setattr(model, name, value)
    model.set_pooling_include_prompt(True)


def check(name: str, ours: SentenceEncoder, theirs: SentenceTransformer, sentences: Any = TEXTS, **options: Any) -> Tensor:
    """The same vectors from both; returns ours."""
    vectors = ours.encode(sentences, on_truncate="ignore", **options)
    close(name, vectors, theirs.encode(sentences, convert_to_tensor=True, show_progress_bar=False, **options), CLOSE)
    return vectors


# What comes back


@pytest.mark.parametrize(
    "sentences",
    [
        TEXTS,
        TEXTS[:1],
        TEXTS[0],
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        list(np.array(TEXTS)),
        np.str_(TEXTS[0]),
    ],
    ids=lambda sentences: f"{type(sentences).__name__}-{len(sentences)}",
)
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)], ids=["both", "numpy", "tensor"])
@pytest.mark.parametrize("options", [{}, {"truncate_dim": 64}, {"truncate_dim": 64, "normalize_embeddings": True}], ids=str)
def test_what_is_asked_for_comes_in_the_kind_shape_and_dtype_of_sentence_transformers(
    ours: SentenceEncoder, theirs: SentenceTransformer, sentences: Any, wanted: tuple[bool, bool], options: dict[str, Any]
) -> None:
    options = options | dict(zip(("convert_to_numpy", "convert_to_tensor"), wanted, strict=True))
    mine, other = (encoder.encode(sentences, **options) for encoder in (ours, theirs))
    assert type(mine) is type(other)
    assert mine.dtype == other.dtype
    close("vectors", torch.as_tensor(mine), torch.as_tensor(other), CLOSE)


def test_the_default_is_a_tensor_here_and_an_array_there(ours: SentenceEncoder, theirs: SentenceTransformer) -> None:
    assert (type(ours.encode(TEXTS)), type(theirs.encode(TEXTS))) == (Tensor, np.ndarray)
    rows = theirs.encode(TEXTS, convert_to_numpy=False)
    assert isinstance(rows, list)
    close("rows", ours.encode(TEXTS, convert_to_numpy=False), torch.stack(rows), CLOSE)


def test_no_texts_have_the_width_of_the_others_here_and_none_there(ours: SentenceEncoder, theirs: SentenceTransformer) -> None:
    for options in {}, {"normalize_embeddings": True}, {"truncate_dim": 5}:
        width = options.get("truncate_dim", 384)
        assert ours.encode([], convert_to_numpy=True, **options).shape == (0, width)
        assert theirs.encode([], **options).shape == (0,)
    assert ours.encode([], output_value="token_embeddings") == theirs.encode([], output_value="token_embeddings") == []


def test_vectors_can_be_trained_upon_here_and_only_looked_at_there(ours: SentenceEncoder, theirs: SentenceTransformer) -> None:
    weight = torch.ones(384, requires_grad=True)
    (ours.encode(TEXTS[0]) * weight).sum().backward()
    with pytest.raises(RuntimeError, match="Inference tensors"):
        (theirs.encode(TEXTS[0], convert_to_tensor=True) * weight).sum().backward()


def test_the_recipe_in_place_of_a_precision_gives_that_precision(ours: SentenceEncoder, theirs: SentenceTransformer) -> None:
    recipe = re.search(r"`(numpy\.packbits\(.*?\))` is `\"ubinary\"`", README.read_text("utf-8"))
    assert recipe is not None
    assert recipe[1] in OPTIONS["encode"]["precision"]
    for sentences in TEXTS, TEXTS[0]:
        bits = eval(recipe[1], {"numpy": np, "vectors": ours.encode(sentences)})  # noqa: S307
        expected = theirs.encode(sentences, precision="ubinary")
        assert bits.dtype == expected.dtype
        assert np.array_equal(bits, expected)


# Prompts, widths and limits, changed after loading


def test_prompts_that_are_set_later_are_put_before_the_texts(ours: SentenceEncoder, theirs: SentenceTransformer) -> None:
    for encoder in ours, theirs:
        encoder.prompts = {"query": "query: ", "passage": "passage: "}
        encoder.default_prompt_name = "passage"
    by_default = check("default", ours, theirs)
    assert by_default.equal(check("by hand", ours, theirs, [f"passage: {text}" for text in TEXTS], prompt=""))
    query = check("by name", ours, theirs, prompt_name="query")
    assert not query.allclose(by_default, atol=0.01)
    for prompt in "query:", "query: ", "query:   ":
        assert check(prompt, ours, theirs, prompt=prompt).equal(query)


def test_prompts_can_be_left_out_of_the_pooling_later(ours: SentenceEncoder, theirs: SentenceTransformer) -> None:
    pooled = check("with the prompt", ours, theirs, prompt="What do people eat? ")
    ours.pooling.include_prompt = False
    theirs.set_pooling_include_prompt(False)
    left_out = check("without", ours, theirs, prompt="What do people eat? ")
    assert not left_out.allclose(pooled, atol=0.01)


@pytest.mark.parametrize("width", [1, 64, 384])
def test_a_width_that_is_set_later_is_obeyed_and_leaves_token_vectors_alone(
    ours: SentenceEncoder, theirs: SentenceTransformer, width: int
) -> None:
    tokens = ours.encode(TEXTS, output_value="token_embeddings")
    ours.truncate_dim = theirs.truncate_dim = width
    assert check("vectors", ours, theirs).shape == (len(TEXTS), width)
    assert ours.dimension == theirs.get_embedding_dimension() == width
    assert check("an option comes first", ours, theirs, truncate_dim=7).shape == (len(TEXTS), 7)
    for mine, before, other in zip(
        ours.encode(TEXTS, output_value="token_embeddings"),
        tokens,
        theirs.encode(TEXTS, output_value="token_embeddings"),
        strict=True,
    ):
        assert mine.equal(before)
        close("tokens", mine, other, MINILM[torch.float32].states)


@pytest.mark.parametrize("limit", [3, 10, 256, 512])
def test_a_limit_that_is_set_later_is_obeyed(ours: SentenceEncoder, theirs: SentenceTransformer, limit: int) -> None:
    ours.max_seq_length = theirs.max_seq_length = limit
    check("vectors", ours, theirs, LONG)
    tokens = ours.encode(LONG, output_value="token_embeddings", on_truncate="ignore")
    assert [len(rows) for rows in tokens] == [len(rows) for rows in theirs.encode(LONG, output_value="token_embeddings")]
    assert len(tokens[0]) == limit


# Similarity

ALL = [cos_sim, dot_score, euclidean_sim, manhattan_sim]
PAIRWISE = [pairwise_cos_sim, pairwise_dot_score, pairwise_euclidean_sim, pairwise_manhattan_sim]
A, B = (torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))


def read_only(vectors: Tensor) -> Any:
    array = vectors.numpy().copy()
    array.flags.writeable = False
    return array


FORMS = {
    "float32": (A, B),
    "float64": (A.double(), B.double()),
    "float16": (A.half(), B.half()),
    "bfloat16": (A.bfloat16(), B.bfloat16()),
    "arrays": (A.numpy(), B.numpy()),
    "arrays of float64": (A.double().numpy(), B.double().numpy()),
    "arrays of float16": (A.half().numpy(), B.half().numpy()),
    "arrays that cannot be written to": (read_only(A), read_only(B)),
    "an array and a tensor": (A.numpy(), B),
    "lists of tensors": (list(A), list(B)),
    "lists of arrays": (list(A.numpy()), list(B.numpy())),
    "lists of numbers": (A.tolist(), B.tolist()),
    "single vectors": (A[0], B[0]),
    "a single array": (A[0].numpy(), B[0].numpy()),
    "one against all": (A[0], B),
    "zeros": (torch.zeros(2, 6), B[:2]),
    "no rows": (A[:0], B[:0]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("function", ALL + PAIRWISE, ids=lambda function: function.__name__)
@pytest.mark.filterwarnings("error")
def test_vectors_of_any_form_get_the_scores_of_sentence_transformers(function: Any, form: str) -> None:
    a, b = FORMS[form]
    mine, other = function(a, b), getattr(util, function.__name__)(a, b)
    torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_half_precision_scores_do_not_tie_where_the_vectors_differ_as_in_sentence_transformers() -> None:
    query = torch.ones(1, 64).bfloat16()
    corpus = torch.ones(3, 64).bfloat16()
    corpus[1, 0], corpus[2, :2] = 1.125, 1.125  # their sums are 64, 64.125 and 64.25, which bfloat16 rounds to 64
    for scores in dot_score(query, corpus), util.dot_score(query, corpus):
        assert scores.tolist() == [[64, 64.125, 64.25]]
    assert torch.equal(query @ corpus.T, torch.full((1, 3), 64).bfloat16())


@pytest.mark.every_processor
@pytest.mark.parametrize("name", SIMILARITY_FUNCTIONS)
def test_a_model_compares_what_encode_gives_by_the_function_that_is_set(
    ours: SentenceEncoder, theirs: SentenceTransformer, name: str
) -> None:
    ours.similarity_fn_name = theirs.similarity_fn_name = name
    for options in {}, {"convert_to_numpy": True}:
        vectors = ours.encode(TEXTS, **options)
        expected = theirs.encode(TEXTS)
        close("vectors", torch.as_tensor(vectors), torch.as_tensor(expected), CLOSE)
        given = torch.as_tensor(vectors)
        ours_all, theirs_all = ours.similarity(vectors, vectors[1:]), theirs.similarity(vectors, vectors[1:])
        close_scores("all", ours_all, theirs_all, given, given, euclidean=name == "euclidean")
        ours_pairs = ours.similarity_pairwise(vectors[1:], vectors[:-1])
        theirs_pairs = theirs.similarity_pairwise(vectors[1:], vectors[:-1])
        close_scores("pairs", ours_pairs, theirs_pairs, given, given, euclidean=name == "euclidean")
        close("by name", similarity(vectors, vectors[1:], name), ours.similarity(vectors, vectors[1:]), 0)


@pytest.mark.parametrize(
    "work",
    [*ALL, *PAIRWISE, semantic_search, lambda a, _: paraphrase_mining_embeddings(a), lambda a, _: community_detection(a, 0.1, 1)],
)
def test_vectors_are_left_as_they_were(work: Any) -> None:
    for a, b in (A.clone(), B.clone()), (A.numpy().copy(), B.numpy().copy()), (A.double().numpy(), B.double().numpy()):
        before = torch.as_tensor(a).clone(), torch.as_tensor(b).clone()
        work(a, b)
        assert torch.as_tensor(a).equal(before[0])
        assert torch.as_tensor(b).equal(before[1])


# Search


@pytest.mark.parametrize("function", ALL, ids=lambda function: function.__name__)
def test_a_function_of_sentence_transformers_scores_a_search_as_well(function: Any) -> None:
    there = getattr(util, function.__name__)
    found = semantic_search(A, B, score_function=there)
    expected = util.semantic_search(A, B, score_function=there)
    assert [[hit["corpus_id"] for hit in hits] for hits in found] == [[hit["corpus_id"] for hit in hits] for hits in expected]
    for hits, others in zip(found, expected, strict=True):
        assert [hit["score"] for hit in hits] == pytest.approx([hit["score"] for hit in others], abs=1e-5)
    for pair, other in zip(
        paraphrase_mining_embeddings(A, score_function=there),
        util.paraphrase_mining_embeddings(A, score_function=there),
        strict=True,
    ):
        assert pair == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 2, "show_progress_bar": False},
        {"truncate_dim": 64},
        {"prompt": "What is it like when "},
        {"prompt_name": "query"},
        {"top_k": 1, "max_pairs": 3},
        {"query_chunk_size": 2, "corpus_chunk_size": 3},
    ],
    ids=str,
)
def test_mining_takes_the_options_of_sentence_transformers_by_their_names(
    ours: SentenceEncoder, theirs: SentenceTransformer, options: dict[str, Any]
) -> None:
    for encoder in ours, theirs:
        encoder.prompts = {"query": "query: "}
    pairs, expected = paraphrase_mining(ours, TEXTS, **options), util.paraphrase_mining(theirs, TEXTS, **options)
    assert len(pairs) == options.get("max_pairs", len(pairs))
    assert [pair[1:] for pair in pairs] == [pair[1:] for pair in expected]
    assert [pair[0] for pair in pairs] == pytest.approx([pair[0] for pair in expected], abs=1e-6)


@pytest.mark.parametrize("sentences", [[], TEXTS[:1], TEXTS[:2], [TEXTS[0]] * 3], ids=len)
def test_few_texts_have_the_pairs_that_there_are(ours: SentenceEncoder, theirs: SentenceTransformer, sentences: list[str]) -> None:
    pairs, expected = paraphrase_mining(ours, sentences), util.paraphrase_mining(theirs, sentences)
    assert sorted(pair[1:] for pair in pairs) == sorted(pair[1:] for pair in expected)
    assert [pair[0] for pair in pairs] == pytest.approx([pair[0] for pair in expected], abs=1e-6)
    assert len(pairs) == len(sentences) * (len(sentences) - 1) // 2


@pytest.mark.parametrize("size", [1, 5, 30, 200, 201])
def test_a_cosine_that_is_just_the_threshold_is_enough(size: int) -> None:
    """200 equal vectors, whose cosines are exactly 1."""
    equal = torch.ones(200, 16)
    found = community_detection(equal, threshold=1.0, min_community_size=size)
    assert [sorted(rows) for rows in found] == [sorted(rows) for rows in util.community_detection(equal, 1.0, size)]
    assert [len(rows) for rows in found] == ([200] if size <= 200 else [])


@pytest.mark.parametrize("form", ["float32", "arrays", "lists of tensors", "single vectors", "no rows", "float16"])
def test_communities_are_found_in_vectors_of_any_form(form: str) -> None:
    vectors, _ = FORMS[form]
    for threshold in -0.5, 0.0, 0.5:
        assert community_detection(vectors, threshold, 1) == util.community_detection(vectors, threshold, 1)
