"""`minisbert.trace`: its values are those of transformers and of `encode`, and it changes nothing."""

from __future__ import annotations

import itertools
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import TINY_VOCAB, save_tiny, write_json, write_modules
from conftest import PAIR
from messages import naming
from programs import Programs
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel

import minisbert
from minisbert import MinisbertWarning, SentenceEncoder
from minisbert.tracing.html import source
from minisbert.tracing.pairs import contributions

TEXTS = ("the cat sat on the mat, the dog is running!", "someone is eating a meal.", "a man", "", "the red water " * 8)
LONG = "the cat sat on the mat, the dog ran. " * 5
LINEAR = ("cls", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> SentenceEncoder:
    return minisbert.load(tiny_folder, device="cpu")


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> SentenceEncoder:
    return minisbert.load(minilm_folder, device="cpu")


def with_pooling(folder: Path, *modes: str, **settings: Any) -> SentenceEncoder:
    """A tiny checkpoint with these modes of pooling."""
    save_tiny(folder)
    pooling = {"embedding_dimension": 32, "pooling_mode": modes[0] if len(modes) == 1 else list(modes)}
    write_json(folder / "1_Pooling/config.json", pooling | settings)
    return minisbert.load(folder, device="cpu")


def with_modules(folder: Path, *modules: torch.nn.Module, mode: str = "mean") -> SentenceEncoder:
    """A tiny checkpoint with these modules of sentence-transformers after its pooling, saved by sentence-transformers."""
    base = with_pooling(folder / "base", mode)
    generator = torch.Generator().manual_seed(0)
    for parameter in (parameter for module in modules for parameter in module.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=generator)
    theirs = SentenceTransformer(modules=[*SentenceTransformer(base.model, device="cpu"), *modules], device="cpu")
    theirs.save(str(folder / "whole"), create_model_card=False)
    return minisbert.load(folder / "whole", device="cpu")


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype == torch.float32 and torch.equal(a.view(torch.int32), b.view(torch.int32))


def close(ours: Tensor, theirs: Tensor, atol: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol, check_dtype=False)


def hooks_of(encoder: SentenceEncoder) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in encoder.bert.modules())


# The values


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["float64", "float32"])
@pytest.mark.parametrize(
    "config",
    [{}, {"num_attention_heads": 3, "hidden_size": 21, "num_hidden_layers": 3}, {"max_position_embeddings": 100}],
    ids=["four heads", "odd sizes", "longer than plain attention"],
)
def test_hidden_states_and_attentions_are_those_of_transformers(
    tmp_path: Path, config: dict[str, Any], dtype: torch.dtype, atol: float
) -> None:
    save_tiny(tmp_path, **config)
    write_modules(tmp_path, config.get("hidden_size", 32), max_seq_length=config.get("max_position_embeddings", 32))
    encoder = minisbert.load(tmp_path, device="cpu", dtype=dtype)
    model = AutoModel.from_pretrained(tmp_path, dtype=dtype, attn_implementation="eager", add_pooling_layer=False)
    for text in (*TEXTS, LONG + LONG):
        check_against(encoder, model, text, atol, atol)


@pytest.mark.parametrize(
    ("dtype", "states", "attentions"), [(torch.float64, 1e-12, 1e-12), (torch.float32, 5e-5, 1e-5)], ids=["float64", "float32"]
)
def test_those_of_the_real_checkpoint_are_too(
    minilm_folder: Path, dtype: torch.dtype, states: float, attentions: float
) -> None:  # hidden states reach 10.5 here, and float32 leaves 1.1e-5 of rounding: see parity/compare.py
    encoder = minisbert.load(minilm_folder, device="cpu", dtype=dtype)
    model = AutoModel.from_pretrained(minilm_folder, dtype=dtype, attn_implementation="eager", add_pooling_layer=False)
    check_against(encoder, model, PAIR[0], states, attentions)


def check_against(encoder: SentenceEncoder, model: torch.nn.Module, text: str, states: float, attentions: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MinisbertWarning)  # the longest text is cut
        one = minisbert.trace(text, model=encoder).a
    with torch.inference_mode():
        expected = model(one.ids[None], output_hidden_states=True, output_attentions=True)
    close(one.hidden, torch.cat(expected.hidden_states), states)
    close(one.attention, torch.cat(expected.attentions), attentions)
    assert (one.attention.sum(dim=-1) - 1).abs().max() < (1e-12 if one.attention.dtype == torch.float64 else 2e-6)


def test_the_embeddings_are_rows_of_the_three_tables_and_their_normalized_sum(tiny: SentenceEncoder) -> None:
    one = minisbert.trace(TEXTS[0], model=tiny).a
    tables = tiny.bert.embeddings
    tokens = len(one.tokens)
    assert torch.equal(one.word, tables.word.weight[one.ids])
    assert torch.equal(one.position, tables.position.weight[:tokens])
    assert torch.equal(one.token_type, tables.token_type.weight[:1].expand(tokens, -1))
    total = one.word + one.position + one.token_type
    close(one.embedded, F.layer_norm(total, [32], tables.norm.weight, tables.norm.bias, tables.norm.eps), 1e-5)
    assert torch.equal(one.embedded, one.hidden[0])


def test_what_attention_and_feed_forward_add_leads_from_layer_to_layer(tiny: SentenceEncoder) -> None:
    one = minisbert.trace(TEXTS[0], model=tiny).a
    for number, layer in enumerate(tiny.bert.layers):
        norm = layer.attention_norm
        summed = one.hidden[number] + one.attention_out[number]
        close(one.after_attention[number], F.layer_norm(summed, [32], norm.weight, norm.bias, norm.eps), 1e-5)
        norm = layer.feed_forward_norm
        summed = one.after_attention[number] + one.feed_forward_out[number]
        close(one.hidden[number + 1], F.layer_norm(summed, [32], norm.weight, norm.bias, norm.eps), 1e-5)


@pytest.mark.parametrize("name", ["tiny", "minilm"])
def test_the_embedding_is_that_of_encode_to_the_last_bit(name: str, request: pytest.FixtureRequest) -> None:
    encoder = request.getfixturevalue(name)
    for text in TEXTS:
        one = minisbert.trace(text, model=encoder).a
        assert same_bits(one.embedding, encoder.encode(text)), text
        close(one.layer_vectors[-1], one.embedding, 1e-6)


def test_a_name_and_a_folder_do_as_well_as_an_encoder(tiny_folder: Path, tiny: SentenceEncoder) -> None:
    assert same_bits(minisbert.trace("a man", model=tiny_folder).a.embedding, tiny.encode("a man"))
    assert same_bits(minisbert.trace("a man", model=str(tiny_folder)).a.embedding, tiny.encode("a man"))


def test_all_tensors_have_the_documented_shapes_and_can_be_trained_upon(tiny: SentenceEncoder) -> None:
    t = minisbert.trace("the cat sat", "a man", model=tiny, corpus=["the dog", "a meal", "red"])
    hidden, layers, heads = 32, 2, 4
    for one, tokens in (t.a, 5), (t.b, 4):
        shapes = {name: list(value.shape) for name, value in vars(one).items() if isinstance(value, Tensor)}
        flat, deep = [tokens, hidden], [layers, tokens, hidden]
        assert shapes == {
            "ids": [tokens],
            "offsets": [tokens, 2],
            "word_of": [tokens],
            "cut_offsets": [0, 2],
            "word": flat,
            "position": flat,
            "token_type": flat,
            "embedded": flat,
            "hidden": [layers + 1, tokens, hidden],
            "query": [layers, heads, tokens, hidden // heads],
            "key": [layers, heads, tokens, hidden // heads],
            "attention": [layers, heads, tokens, tokens],
            "attention_out": deep,
            "after_attention": deep,
            "feed_forward_out": deep,
            "pooling_weights": [tokens],
            "layer_vectors": [layers + 1, hidden],
            "embedding": [hidden],
        }
        assert [len(one.tokens), one.cut] == [tokens, []]
        assert [list(part.shape) for part in one.neighbours] == [[layers + 1, 3]] * 2
        for value in vars(one).values():
            assert not (isinstance(value, Tensor) and value.is_inference())
    assert list(t.layer_cosines.shape) == [layers + 1]
    assert list(t.pair_matrix.shape) == [5, 4]
    assert t.neighbours is t.a.neighbours


# Tokens


def test_tokens_know_their_place_in_the_text(minilm: SentenceEncoder) -> None:
    text = "  Déjà vu: unbelievable 😀 Straße 東京"
    one = minisbert.trace(text, model=minilm).a
    pieces = [text[start:stop] for start, stop in one.offsets.tolist()]
    assert pieces[0] == pieces[-1] == ""
    assert list(zip(one.tokens, pieces, strict=True))[1:5] == [("de", "Dé"), ("##ja", "jà"), ("vu", "vu"), (":", ":")]
    assert "".join(pieces) == text.replace(" ", "")
    assert one.ids.tolist() == minilm.tokenizer([text]).ids[0]
    words = [
        "".join(piece for _, piece in group)
        for _, group in itertools.groupby(zip(one.word_of.tolist(), pieces, strict=True), key=lambda pair: pair[0])
    ]
    assert words == ["", "Déjà", "vu", ":", "unbelievable", "😀", "Straße", "東", "京", ""]


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_is_cut_is_named_and_warned_of(tmp_path: Path, side: str) -> None:
    save_tiny(tmp_path)
    write_json(tmp_path / "tokenizer_config.json", {"do_lower_case": True, "truncation_side": side})
    encoder = minisbert.load(tmp_path, device="cpu")
    encoder.max_seq_length = 6
    text = "the cat sat on the mat, dogs!"
    with pytest.warns(MinisbertWarning, match=naming("a:", "6 of its 12 tokens", 6)):
        one = minisbert.trace(text, model=encoder).a
    kept, cut = ["the", "cat", "sat", "on"], ["the", "mat", ",", "dog", "##s", "!"]
    if side == "left":
        kept, cut = [",", "dog", "##s", "!"], ["the", "cat", "sat", "on", "the", "mat"]
    assert one.tokens == ["[CLS]", *kept, "[SEP]"]
    assert one.cut == cut
    assert [text[start:stop] for start, stop in one.cut_offsets.tolist()] == [piece.removeprefix("##") for piece in cut]
    assert [text[start:stop] for start, stop in one.offsets.tolist()[1:-1]] == [piece.removeprefix("##") for piece in kept]
    assert same_bits(one.embedding, encoder.encode(text, on_truncate="ignore"))


def test_the_tokens_are_names_of_the_vocabulary(tiny: SentenceEncoder) -> None:
    one = minisbert.trace("the zebra sat", model=tiny).a
    assert one.tokens == ["[CLS]", "the", "[UNK]", "sat", "[SEP]"] == [TINY_VOCAB[number] for number in one.ids]


# Pairs


@pytest.mark.parametrize("modes", [*((mode,) for mode in LINEAR), ("mean", "cls"), LINEAR], ids="+".join)
def test_the_pair_matrix_sums_to_the_cosine(tmp_path: Path, modes: tuple[str, ...]) -> None:
    check_pairs(with_pooling(tmp_path, *modes))


def check_pairs(encoder: SentenceEncoder) -> None:
    for a, b in itertools.combinations(TEXTS, 2):
        t = minisbert.trace(a, b, model=encoder)
        vectors = encoder.encode([a, b])
        cosine = F.cosine_similarity(*vectors.double(), dim=0).item()
        assert abs(t.pair_matrix.sum().item() - cosine) < 1e-6
        assert abs(t.cosine - cosine) < 1e-12
        assert abs(t.layer_cosines[-1].item() - cosine) < 1e-6
        for one, vector in zip((t.a, t.b), vectors, strict=True):
            assert same_bits(one.embedding, vector)
            assert abs(one.pooling_weights.sum().item() - 1) < 1e-6
            close(contributions(encoder, one).sum(dim=0), one.embedding, 1e-6 * max(1, one.embedding.abs().max().item()))


MODULES: dict[str, list[Any]] = {
    "normalize": [Normalize()],
    "dense": [Dense(32, 12, activation_function=torch.nn.Identity())],
    "dense without bias, normalize": [Dense(32, 12, bias=False, activation_function=torch.nn.Identity()), Normalize()],
    "normalize, dense": [Normalize(), Dense(32, 12, activation_function=torch.nn.Identity())],
    "layer norm": [LayerNorm(32)],
    "layer norm, dense, layer norm, normalize": [
        LayerNorm(32),
        Dense(32, 40, activation_function=torch.nn.Identity()),
        LayerNorm(40),
        Normalize(),
    ],
    "dense onto itself": [Dense(32, 32, activation_function=torch.nn.Identity(), use_residual=True)],
    "dense onto another": [Dense(32, 12, activation_function=torch.nn.Identity(), use_residual=True)],
}


@pytest.mark.parametrize("modules", MODULES)
@pytest.mark.parametrize("mode", ["mean", "mean_sqrt_len_tokens"])
def test_it_does_so_whatever_linear_follows_the_pooling(tmp_path: Path, modules: str, mode: str) -> None:
    encoder = with_modules(tmp_path, *MODULES[modules], mode=mode)
    assert len(encoder.modules) == len(MODULES[modules])
    check_pairs(encoder)


def test_it_does_so_when_vectors_are_cut_short(tmp_path: Path) -> None:
    encoder = with_modules(tmp_path, *MODULES["dense"])
    encoder.truncate_dim = 5
    check_pairs(encoder)
    assert list(minisbert.trace("a man", model=encoder).a.layer_vectors.shape) == [3, 5]


@pytest.mark.parametrize("activation", [torch.nn.Tanh(), torch.nn.ReLU()], ids=["Tanh", "ReLU"])
def test_a_nonlinearity_after_the_pooling_leaves_no_pair_matrix_and_is_named(tmp_path: Path, activation: torch.nn.Module) -> None:
    t = minisbert.trace("the cat sat", "a man", model=with_modules(tmp_path, Dense(32, 12, activation_function=activation)))
    with pytest.raises(ValueError, match=naming("pair_matrix", type(activation).__name__, "dense")):
        _ = t.pair_matrix
    assert abs(t.layer_cosines[-1].item() - t.cosine) < 1e-6


@pytest.mark.parametrize("include", [True, False], ids=["pooled", "left out of the pooling"])
@pytest.mark.parametrize("modes", [("mean", "weightedmean", "cls"), ("max",)], ids="+".join)
def test_a_default_prompt_is_traced_as_it_is_encoded(tmp_path: Path, include: bool, modes: tuple[str, ...]) -> None:
    encoder = with_pooling(tmp_path, *modes, include_prompt=include)
    encoder.prompts["eat"] = "eating the meal: "
    encoder.default_prompt_name = "eat"
    t = minisbert.trace("the cat sat", "a dog", model=encoder, corpus=["red", "the dog sat"])
    assert t.a.text == "eating the meal: the cat sat"
    assert t.a.prompt == "eating the meal: "
    assert t.a.tokens == ["[CLS]", "eat", "##ing", "the", "meal", "[UNK]", "the", "cat", "sat", "[SEP]"]
    assert t.a.text[slice(*t.a.offsets[7].tolist())] == "cat"
    assert same_bits(t.a.embedding, encoder.encode("the cat sat"))
    assert abs(t.layer_cosines[-1].item() - t.cosine) < 1e-6
    assert abs(t.a.pooling_weights.sum().item() - 1) < 1e-6
    assert bool(t.a.pooling_weights[:6].any()) is include
    close(t.neighbours.cosines[-1].sort().values, F.cosine_similarity(t.a.embedding, encoder.encode(t.corpus)).sort().values, 1e-6)
    if "max" not in modes:
        assert abs(t.pair_matrix.sum().item() - t.cosine) < 1e-6


def test_the_pair_matrix_of_the_real_checkpoint_sums_to_the_cosine(minilm: SentenceEncoder) -> None:
    t = minisbert.trace(*PAIR, model=minilm)
    assert abs(t.pair_matrix.sum().item() - 0.688833) < 1e-6


def test_an_entry_of_the_pair_matrix_is_the_share_of_that_pair_alone(tiny: SentenceEncoder) -> None:
    t = minisbert.trace("the cat sat", "a man is eating", model=tiny)
    a, b = t.a.hidden[-1].double(), t.b.hidden[-1].double()
    scale = a.mean(dim=0).norm() * b.mean(dim=0).norm() * len(a) * len(b)
    for i, j in itertools.product(range(len(a)), range(len(b))):
        assert abs(t.pair_matrix[i, j].item() - (a[i] @ b[j] / scale).item()) < 1e-12


def test_layer_cosines_are_those_of_the_pooled_hidden_states(tiny: SentenceEncoder) -> None:
    t = minisbert.trace("the cat sat", "a man is eating", model=tiny)
    expected = [F.cosine_similarity(a.mean(dim=0), b.mean(dim=0), dim=0) for a, b in zip(t.a.hidden, t.b.hidden, strict=True)]
    close(t.layer_cosines, torch.stack(expected), 1e-6)


@pytest.mark.parametrize("modes", [("max",), ("mean", "max")], ids="+".join)
def test_max_pooling_has_no_pair_matrix_and_says_why(tmp_path: Path, modes: tuple[str, ...]) -> None:
    t = minisbert.trace("the cat sat", "a man", model=with_pooling(tmp_path, *modes))
    with pytest.raises(ValueError, match=naming("pair_matrix", "max", "pooling")):
        _ = t.pair_matrix
    assert abs(t.layer_cosines[-1].item() - t.cosine) < 1e-6


def test_the_pooling_weight_of_max_is_the_fraction_of_dimensions_a_token_gave(tmp_path: Path) -> None:
    one = minisbert.trace("the cat sat on the mat", model=with_pooling(tmp_path, "max")).a
    last = one.hidden[-1]
    by_hand = [(last[token] == last.max(dim=0).values).sum().item() / 32 for token in range(len(last))]
    assert one.pooling_weights.tolist() == pytest.approx(by_hand)
    assert sum(by_hand) == 1


def test_a_pair_is_asked_for_where_there_is_none(tiny: SentenceEncoder) -> None:
    t = minisbert.trace("a man", model=tiny)
    for name in "cosine", "layer_cosines", "pair_matrix":
        with pytest.raises(ValueError, match=naming(name, "one", "two", "minisbert.trace(a, b)")):
            getattr(t, name)
    assert t.b is t.neighbours is None


# Neighbours


def test_neighbours_are_those_found_by_comparing_with_every_text(minilm: SentenceEncoder, sts_sentences: list[str]) -> None:
    corpus = sts_sentences[:300]
    t = minisbert.trace(*PAIR, model=minilm, corpus=corpus)
    vectors = minilm.encode(corpus)
    for one in t.a, t.b:
        cosines = F.cosine_similarity(one.embedding, vectors)
        close(one.neighbours.cosines[-1], cosines.topk(5).values, 1e-6)
        assert one.neighbours.indices[-1].tolist() == cosines.topk(5).indices.tolist()
    layers = [minisbert.trace(text, model=minilm).a.layer_vectors for text in corpus[:20]]
    few = minisbert.trace(PAIR[0], model=minilm, corpus=corpus[:20]).neighbours
    for layer in range(7):
        cosines = F.cosine_similarity(t.a.layer_vectors[layer], torch.stack(layers)[:, layer])
        close(few.cosines[layer], cosines.topk(5).values, 1e-6)


def test_blank_texts_and_the_sentence_itself_are_no_neighbours(tiny: SentenceEncoder) -> None:
    corpus = ["", "the dog", "a man ", " ", "the cat sat", "red"]
    t = minisbert.trace("the cat sat", "a man", model=tiny, corpus=corpus)
    assert sorted(t.a.neighbours.indices[-1].tolist()) == [1, 2, 5]
    assert sorted(t.b.neighbours.indices[-1].tolist()) == [1, 4, 5]
    assert minisbert.trace("red", model=tiny, corpus=["red"]).neighbours.indices.shape == (3, 0)


# It changes nothing


def test_encode_gives_the_same_bits_before_during_and_after(tiny: SentenceEncoder) -> None:
    before = tiny.encode(list(TEXTS))
    results: list[Tensor] = []
    stop = threading.Event()

    def keep_encoding() -> None:
        while not stop.is_set():
            results.append(tiny.encode(list(TEXTS)))

    with ThreadPoolExecutor() as pool:
        busy = pool.submit(keep_encoding)
        try:
            traces = list(pool.map(lambda text: minisbert.trace(text, model=tiny).a, TEXTS * 10))
        finally:
            stop.set()
        busy.result()
    assert results
    for vectors in (*results, tiny.encode(list(TEXTS))):
        assert same_bits(vectors, before)
    for one, row in zip(traces, [*before] * 10, strict=True):
        assert same_bits(one.embedding, row)
    assert hooks_of(tiny) == 0


def test_it_works_in_a_forked_process(tiny: SentenceEncoder) -> None:
    expected = minisbert.trace("the cat sat", "a man", model=tiny, corpus=["a dog"])
    torch.ones(512, 512) @ torch.ones(512, 512)  # now PyTorch has its threads, which a fork does not copy
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            t = minisbert.trace("the cat sat", "a man", model=tiny, corpus=["a dog"])
            t.html()
            same = same_bits(t.a.embedding, expected.a.embedding) and torch.equal(t.pair_matrix, expected.pair_matrix)
            os.write(writer, b"same" if same else b"other")
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == "same"
    os.waitpid(child, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_traced(tiny_folder: Path, dtype: torch.dtype) -> None:
    encoder = minisbert.load(tiny_folder, device="cpu", dtype=dtype)
    t = minisbert.trace("the cat sat", "a man", model=encoder, corpus=["a dog"])
    assert t.a.hidden.dtype == t.a.attention.dtype == dtype
    assert same_bits(t.a.embedding, encoder.encode("the cat sat"))
    assert abs(t.pair_matrix.sum().item() - t.cosine) < 1e-6
    assert "<svg" in t.html()


def test_hooks_are_gone_after_an_error(tiny: SentenceEncoder) -> None:
    with pytest.raises(ValueError, match=naming(r"'\ud800'", 2)):
        minisbert.trace("a \ud800 man", model=tiny)
    assert hooks_of(tiny) == 0


def test_a_hook_of_somebody_else_stays(tiny: SentenceEncoder) -> None:
    seen: list[int] = []
    handle = tiny.bert.layers[0].register_forward_hook(lambda *_: seen.append(1))
    try:
        minisbert.trace("a man", model=tiny)
        assert hooks_of(tiny) == len(seen) == 1
    finally:
        handle.remove()


def test_nothing_of_it_is_imported_until_it_is_used(programs: Programs) -> None:
    code = (
        "import sys, minisbert\n"
        "assert callable(minisbert.trace)\n"
        "assert not {'minisbert.tracing', 'minisbert.tracing.page'} & set(sys.modules)\n"
        "import minisbert.tracing, minisbert.tracing.page\n"
        "assert minisbert.trace('a', model='all-MiniLM-L6-v2').a.tokens == ['[CLS]', 'a', '[SEP]']\n"
    )
    done = programs.run(code)
    assert done.returncode == 0, done.stderr


# What is refused


@pytest.mark.parametrize(
    ("arguments", "options", "error", "parts"),
    [
        ((7,), {}, TypeError, ("a:", "int", "str")),
        ((None,), {}, TypeError, ("a:", "NoneType", "str")),
        ((["a man"],), {}, TypeError, ("a:", "list", "str")),
        (("a man", 7), {}, TypeError, ("b:", "int", "str")),
        (("a man",), {"corpus": "a cat"}, TypeError, ("corpus:", "str", "sequence")),
        (("a man",), {"corpus": ["a", 7]}, TypeError, ("corpus[1]:", "int", "str")),
        (("a man",), {"corpus": []}, ValueError, ("corpus:", "no text", "one")),
        (("a man",), {"corpus": [" "]}, ValueError, ("corpus:", "no text", "one")),
        (("a man",), {"model": 7}, TypeError, ("model:", "int", "SentenceEncoder")),
    ],
)
def test_wrong_arguments_are_named(
    tiny: SentenceEncoder, arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], parts: tuple[str, ...]
) -> None:
    with pytest.raises(error, match=naming(*parts)):
        minisbert.trace(*arguments, **({"model": tiny} | options))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_that_encode_gives_to_a_worker_is_traced(tiny_folder: Path, dtype: torch.dtype, threads: int) -> None:
    """With heads of 8 dimensions and in float64 one core rounds otherwise than two, so that `encode` computes in another thread."""
    encoder = minisbert.load(tiny_folder, dtype=dtype, device="cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(minisbert.trace("a man", model=encoder).a.embedding, encoder.encode("a man"))
    finally:
        torch.set_num_threads(before)


def test_a_trace_says_in_a_line_what_it_is(tiny: SentenceEncoder) -> None:
    trace = minisbert.trace("the cat", "a man is", model=tiny)
    assert repr(trace) == f"Trace('the cat', 'a man is', model={tiny.model!r})"
    assert repr(minisbert.trace("the cat", model=tiny)) == f"Trace('the cat', model={tiny.model!r})"
    assert repr(trace.b) == "SentenceTrace('a man is': 5 tokens, 2 layers, 4 heads, 32 dimensions)"


def test_a_model_that_runs_another_way_than_encode_s_is_no_trace(tiny: SentenceEncoder) -> None:
    def looks_up_twice(module: Any, arguments: tuple[Any, ...], _: Tensor) -> None:
        module.word(arguments[0])

    handle = tiny.bert.embeddings.register_forward_hook(looks_up_twice)
    try:
        with pytest.raises(RuntimeError, match=naming("trace", "once")):
            minisbert.trace("a", model=tiny)
    finally:
        handle.remove()


def test_where_a_function_s_source_is_not_installed_the_page_says_so() -> None:
    names: dict[str, Any] = {}
    exec("def made(x): return x", names)  # noqa: S102 (as a package of .pyc files alone has its functions)
    assert source(names["made"], "a<b") == '<p class="note">The source of a&lt;b is not installed here.</p>'
