"""The chosen product agrees with `F.linear`, keeps its bits or is not taken, and leaves `encoder.bert` an ordinary module."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import torch
from checkpoints import save_tiny
from torch import Tensor, nn
from torch.nn import functional as F

import minisbert
from minisbert import Bert, SentenceEncoder
from minisbert.bert import ACTIVATIONS, BertConfig
from minisbert.inference import kernels
from minisbert.inference.batching import Batch, balanced_batches, plan
from minisbert.inference.engine import compute, finish, same_on_all_cores
from minisbert.inference.kernels import align_modules, choose_product, keeps_bits, padded, product_of, row_multiple
from minisbert.inference.quantization import quantize_linears
from minisbert.pooling import ACTIVATIONS as DENSE_ACTIVATIONS
from minisbert.pooling import POOLING_MODES, DenseConfig, LayerNormConfig, NormalizeConfig, Pooling, PoolingConfig, build_modules

pytestmark = pytest.mark.every_processor

TEXTS = ["the cat sat on the red mat", "a man is eating food", "a dog", ""]


@pytest.fixture
def encoder(tmp_path: Path) -> SentenceEncoder:
    save_tiny(tmp_path)
    return minisbert.load(tmp_path, device="cpu")


def config(**sizes: int | str) -> BertConfig:
    given = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64} | sizes
    return BertConfig(vocab_size=30, max_position_embeddings=64, **given)  # type: ignore[arg-type]


def filled(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return module.eval()


# An ordinary module


@pytest.mark.parametrize("encode_first", [False, True])
def test_the_model_is_an_ordinary_module_for_its_owner(encoder: SentenceEncoder, encode_first: bool) -> None:
    plain = Bert(encoder.bert.config)
    plain.load_state_dict(encoder.bert.state_dict())
    if encode_first:
        encoder.encode(TEXTS)
    expected = encoder.encode(TEXTS)
    for ours, theirs in zip(encoder.bert.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(ours.norm(), theirs.norm())
        assert torch.equal(ours * 2 + 1, theirs * 2 + 1)
    copied = copy.deepcopy(encoder.bert).double()
    assert {parameter.dtype for parameter in copied.parameters()} == {torch.float64}
    ids = torch.tensor([[2, 5, 6, 3]])
    torch.testing.assert_close(copied(ids), copy.deepcopy(plain).to(torch.float64)(ids), rtol=0, atol=1e-12)
    encoder.bert.load_state_dict(encoder.bert.state_dict())
    assert torch.equal(encoder.encode(TEXTS), expected)


def test_a_changed_weight_changes_the_vectors_and_the_old_one_brings_them_back(encoder: SentenceEncoder) -> None:
    before = encoder.encode(TEXTS)
    weight = encoder.bert.layers[0].get_parameter("feed_forward.up.weight")
    saved = weight.detach().clone()
    with torch.no_grad():
        weight[3] += 1
    assert not torch.equal(encoder.encode(TEXTS), before)
    encoder.bert.load_state_dict(encoder.bert.state_dict() | {"layers.0.feed_forward.up.weight": saved})
    assert torch.equal(encoder.encode(TEXTS), before)


def test_gradients_are_those_of_the_plain_layers(encoder: SentenceEncoder) -> None:
    plain = Bert(encoder.bert.config)
    plain.load_state_dict(encoder.bert.state_dict())
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]])
    for bert in encoder.bert, plain:
        bert.train().requires_grad_(True)
        bert.eval()
        bert(ids).pow(2).sum().backward()
    for ours, theirs in zip(encoder.bert.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


# The choice


@pytest.fixture
def fallen_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_has_onednn", lambda: True)


@pytest.mark.usefixtures("fallen_back")
@pytest.mark.parametrize("fault", ["another result", "a row's bits depend on the batch", "another signature"])
def test_a_private_operator_that_does_something_else_is_not_taken(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if fault == "another signature":
            raise RuntimeError("mkldnn::_linear_pointwise() expected at most 5 arguments")
        right = F.linear(x, weight, bias)
        return right * 1.001 if fault == "another result" else right * (1 + 1e-6 * (len(x) > 8))

    bert = Bert(config())
    monkeypatch.setattr(kernels, "onednn", wrong)
    choose_product(filled(bert, 0))  # type: ignore[arg-type]
    assert product_of(bert) is F.linear
    assert not same_on_all_cores(bert)


def test_another_operator_is_told_from_the_right_one_on_this_machine() -> None:
    bert = filled(Bert(config()), 0)
    assert keeps_bits(F.linear, bert, on_all_cores=False)  # type: ignore[arg-type]
    assert keeps_bits(padded, bert, on_all_cores=False)  # type: ignore[arg-type]


def test_a_batch_of_a_thousand_tokens_has_the_bits_of_a_small_one() -> None:
    """The widths of all-MiniLM-L6-v2: without AVX2, oneDNN takes another kernel from 320 rows on."""
    bert = Bert(config(hidden_size=384, num_hidden_layers=1, num_attention_heads=12, intermediate_size=1536))
    filled(bert, 0)
    choose_product(bert)
    ids = torch.arange(1200) % 30
    with torch.inference_mode():
        whole = bert.forward_packed(ids, [(75, 16)])
        for tokens in 16, 320:
            assert torch.equal(bert.forward_packed(ids[:tokens], [(tokens // 16, 16)]), whole[:tokens]), product_of(bert)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_model_is_computed_on_all_cores_only_if_its_activation_rounds_alike_there(activation: str) -> None:
    bert = Bert(config(hidden_size=384, num_hidden_layers=1, num_attention_heads=12, intermediate_size=1536, hidden_act=activation))
    choose_product(filled(bert, 0))  # type: ignore[arg-type]
    x = torch.randn(28, 1536, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    results = []
    for threads in 1, 2, 3, 5:
        torch.set_num_threads(threads)
        results.append(ACTIVATIONS[activation](x))
    torch.set_num_threads(before)
    alike = all(torch.equal(result, results[0]) for result in results)
    assert alike or not same_on_all_cores(bert)


# Bits of any sizes

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(40))
def test_a_vector_has_the_same_bits_in_any_batch_whatever_the_sizes(seed: int, threads: int) -> None:
    """Sizes, activation, dtype or int8, pooling and what follows are drawn; a batch of 16 tokens is compared with larger ones."""
    drawn = random.Random(seed)
    heads, head_dim = drawn.choice([1, 2, 3, 4]), drawn.choice([4, 5, 8, 9, 16, 21, 32])
    dtype = drawn.choice(list(DTYPES.values()))
    bert = Bert(
        config(
            hidden_size=heads * head_dim,
            num_attention_heads=heads,
            intermediate_size=drawn.choice([7, 33, 40, 77, 100, 128]),
            hidden_act=drawn.choice(list(ACTIVATIONS)),
        )
    )
    modes = tuple(drawn.sample(POOLING_MODES, drawn.choice([1, 2])))
    pooling = Pooling(PoolingConfig(heads * head_dim, modes))
    width = heads * head_dim * len(modes)
    configs: list[DenseConfig | LayerNormConfig | NormalizeConfig] = []
    for kind in drawn.choices(["dense", "norm", "normalize"], k=drawn.choice([0, 1, 2])):
        if kind == "dense":
            out = drawn.choice([5, 13, 32, 77])
            configs.append(DenseConfig("", width, out, activation=drawn.choice(list(DENSE_ACTIVATIONS))))
            width = out
        else:
            configs.append(LayerNormConfig("", width) if kind == "norm" else NormalizeConfig())
    modules = filled(build_modules(configs), seed).to(dtype)
    filled(bert, seed).to(dtype)
    ids = [[drawn.randrange(30) for _ in range(drawn.choice([1, 2, 3, 5, 8, 13, 20, 40]))] for _ in range(24)]

    def forward(packed: Tensor, groups: object) -> Tensor:
        return finish(modules, pooling(bert.forward_packed(packed, groups), groups))  # type: ignore[arg-type]

    def encoded(batches: list[Batch]) -> Tensor:
        rows = torch.empty(len(ids), width, dtype=dtype)
        multiple = row_multiple(bert.config.hidden_size, bert.config.intermediate_size)
        alone = same_on_all_cores(bert)
        for _ in compute(forward, ids, batches, rows, torch.device("cpu"), alone_on_all_cores=alone, multiple=multiple):
            pass
        return rows

    lengths = [len(one) for one in ids]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        (quantize_linears if dtype == torch.float32 and seed % 2 else choose_product)(bert)
        align_modules(modules)  # type: ignore[arg-type]
        expected = encoded(plan(lengths, 16))
        for batches in plan(lengths, 60), plan(lengths, 10_000), plan(lengths, 60, 3), balanced_batches(lengths, threads):
            rows = encoded(batches)
            assert torch.equal(rows, expected), f"{int((rows != expected).any(dim=1).sum())} of {len(rows)} rows differ"
    finally:
        torch.set_num_threads(before)
