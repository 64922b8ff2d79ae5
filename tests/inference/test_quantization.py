"""`quantize="int8"`: integers by hand, the same bits in any batch, the scores of STSb, and clear errors."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from checkpoints import save_tiny
from messages import naming
from torch import Tensor, nn
from torch.nn import functional as F

import minisbert
from minisbert import MinisbertError, SentenceEncoder
from minisbert.inference import quantization
from minisbert.inference.kernels import LINEARS, product_of
from minisbert.inference.quantization import Int8Linear, is_exact, linear_int8
from minisbert.train.evaluate import spearman

MINILM = "all-MiniLM-L6-v2"
LENGTHENED = "A man is eating food and drinking wine, and a woman who sits at his side is reading a newspaper to him."


@pytest.fixture(scope="module")
def encoder(minilm_folder: Path) -> SentenceEncoder:
    return minisbert.load(minilm_folder, quantize="int8")


@pytest.fixture
def tiny(tmp_path: Path) -> SentenceEncoder:
    save_tiny(tmp_path)
    return minisbert.load(tmp_path, quantize="int8")


# The formula


def by_hand(x: Tensor, weight: Tensor, bias: Tensor, levels: int) -> Tensor:
    """The same in float64, with sums of integers in int32."""
    scale = weight.abs().amax(1) / levels
    integers = (weight / scale[:, None]).round().int()  # [out, in]
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    step = (high - low) / 255
    of_tokens = ((x - low) / step).round().int()  # [tokens, in]
    sums = of_tokens @ integers.T
    assert sums.dtype == torch.int32
    return step.double() * sums * scale + low.double() * integers.sum(1) * scale + bias


@pytest.mark.every_processor
@pytest.mark.parametrize("shape", [(384, 1152), (1536, 384), (40, 72), (3072, 768)])
def test_the_result_is_that_of_the_formula_in_integer_arithmetic(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(*shape)
    levels = next(levels for levels in quantization.LEVELS if is_exact(levels, (shape[::-1],), 1))
    x = torch.randn(50, shape[0]) * torch.logspace(-3, 3, 50)[:, None] + 1
    expected = by_hand(x, linear.weight.detach(), linear.bias.detach(), levels)
    found = Int8Linear(linear, levels)(x)
    step = (x.amax(1) - x.amin(1)) / 255
    # A value half-way between two integers may be rounded to either: then one product of the sum moves by one step.
    either = step[:, None] * linear.weight.abs().amax(1) * 1.01
    rounding = 1e-6 * x.abs().amax(1, keepdim=True) * linear.weight.abs().sum(1)
    far = ((found - expected).abs() > rounding).float().mean()
    assert ((found - expected).abs() <= either + rounding).all()
    assert far < 0.05
    plain = linear(x)
    assert F.cosine_similarity(found, plain).min() > 0.999


@pytest.mark.every_processor
def test_the_weights_are_the_integers_nearest_to_them() -> None:
    linear = nn.Linear(48, 20)
    with torch.no_grad():
        linear.weight[3] = 0
    quantized = Int8Linear(linear, 127)
    assert ((quantized.weight - linear.weight).abs() <= quantized.scale[:, None] / 2 + 1e-7).all()
    assert quantized.packed.integers().abs().amax(1).tolist() == [127 if row != 3 else 0 for row in range(20)]


@pytest.mark.every_processor
def test_a_token_of_equal_values_is_exact() -> None:
    linear = nn.Linear(32, 16)
    x = torch.tensor([[0.0], [-2.5], [1e-30]]).expand(3, 32).contiguous()
    quantized = Int8Linear(linear, 63)
    torch.testing.assert_close(quantized(x), F.linear(x, quantized.weight, quantized.bias))


@pytest.mark.every_processor
def test_a_range_of_weights_is_taken_whose_products_are_exact() -> None:
    assert is_exact(63, ((384, 384),), 1), "7 bits are exact on every processor"
    layer = cast(Any, minisbert.load(MINILM, quantize="int8").bert.layers[0])
    largest = int(layer.feed_forward.up.packed.integers().abs().max())
    assert largest == (127 if is_exact(127, ((384, 384),), 1) else 63)


# Promises


@pytest.mark.every_processor
def test_a_vector_has_the_same_bits_in_any_batch(encoder: SentenceEncoder, sts_sentences: list[str]) -> None:
    texts = [*sts_sentences[:20], "", LENGTHENED * 9]
    torch.set_num_threads(1)
    expected = encoder.encode(texts)
    for threads in 1, 2, 3:
        torch.set_num_threads(threads)
        assert torch.equal(encoder.encode(texts), expected)
        assert torch.equal(encoder.encode(texts[::-1]).flip(0), expected)
        assert torch.equal(encoder.encode(texts, batch_tokens=2000), expected)
        assert torch.equal(torch.stack([encoder.encode(text) for text in texts[::5]]), expected[::5])


def test_stsb_loses_three_tenths_of_a_point_at_most(encoder: SentenceEncoder, sts_folder: Path) -> None:
    """The whole test split; float32 has 82.03 there, see tests/scripts/test_evaluate.py."""
    lines = [line.split("\t") for line in (sts_folder / "stsb-test.tsv").read_text("utf-8").splitlines()[1:]]
    texts = [text for line in lines for text in line[1:3]]
    rows = encoder.encode(texts, normalize_embeddings=True)
    score = 100 * spearman((rows[::2] * rows[1::2]).sum(1), torch.tensor([float(line[0]) for line in lines]))
    assert score > 82.03 - 0.3


@pytest.mark.every_processor
def test_vectors_are_near_to_those_of_float32(encoder: SentenceEncoder, sts_sentences: list[str]) -> None:
    plain, quantized = (one.encode(sts_sentences[:60], normalize_embeddings=True) for one in (minisbert.load(MINILM), encoder))
    cosines = (plain * quantized).sum(1)
    assert cosines.min() > 0.98
    assert cosines.mean() > 0.996


def test_memory_holds_a_quarter_of_the_weights(minilm_folder: Path) -> None:
    program = (
        "import os, sys, torch, minisbert, minisbert.encoder\n"
        "for options in {}, {'quantize': 'int8'}:\n"
        "    if not os.fork():  # each in a process of its own\n"
        "        minisbert.load(sys.argv[1], **options).encode('a')\n"
        "        print([int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('RssAnon')][0])\n"
        "        break\n"
        "    os.wait()"
    )
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells the memory of a process in such detail")
    done = subprocess.run([sys.executable, "-c", program, str(minilm_folder)], capture_output=True, text=True, check=True)
    float32, int8 = map(int, done.stdout.split())
    saved = (float32 - int8) / 1024
    assert saved > 0.6 * 0.75 * 42.5, "of 42.5 MB of linear weights three quarters, less what the allocator keeps"


# What an encoder is asked for


def test_info_and_repr_say_it(encoder: SentenceEncoder) -> None:
    plain = minisbert.load(MINILM)
    assert (encoder.info().quantize, plain.info().quantize) == ("int8", None)
    assert encoder.info().parameters == plain.info().parameters == 22_565_376
    assert "int8" in repr(encoder)
    assert "  quantize    int8" in str(encoder.info())


def test_the_module_is_copied_pickled_and_restored(tiny: SentenceEncoder) -> None:
    texts = ["the cat sat", "a dog"]
    expected = tiny.encode(texts)
    for other in copy.deepcopy(tiny), pickle.loads(pickle.dumps(tiny)):  # noqa: S301
        assert torch.equal(other.encode(texts), expected)
        assert other.info().quantize == "int8"
    state = pickle.loads(pickle.dumps(tiny.bert)).state_dict()  # noqa: S301
    layer = cast(Any, tiny.bert.layers[0]).feed_forward.up
    layer.set_extra_state(torch.zeros_like(layer.get_extra_state()))
    assert not torch.equal(tiny.encode(texts), expected)
    tiny.bert.load_state_dict(state)
    assert torch.equal(tiny.encode(texts), expected)
    assert product_of(tiny.bert) is linear_int8


def test_a_trace_and_token_embeddings_work(encoder: SentenceEncoder) -> None:
    trace = minisbert.trace("A man is eating food.", "Someone is having a meal.", model=encoder)
    a, b = encoder.encode(["A man is eating food.", "Someone is having a meal."], normalize_embeddings=True)
    assert trace.cosine == pytest.approx(float(a @ b), abs=1e-5)
    assert float(trace.pair_matrix.sum()) == pytest.approx(trace.cosine, abs=1e-5)


def test_what_needs_float_weights_says_so(tiny: SentenceEncoder, tmp_path: Path) -> None:
    from minisbert.train import embed, fit, losses

    with pytest.raises(MinisbertError, match=naming("int8", "float", "quantize")):
        tiny.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(ValueError, match=naming("int8", "float", "quantize")):
        fit(tiny, {"anchor": ["a", "b"], "positive": ["c", "d"]}, loss=losses.MultipleNegativesRankingLoss(), epochs=1)
    with pytest.raises(MinisbertError, match=naming("int8", "gradients", "quantize")):
        embed(tiny, ["a dog"])
    tiny.bert.requires_grad_(False).double()
    with pytest.raises(MinisbertError, match=naming(torch.float64, "cpu", torch.float32)):
        tiny.encode("a dog")


@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"quantize": "int4"}, ValueError, ("quantize", "'int4'", None, "'int8'")),
        ({"quantize": True}, TypeError, ("quantize", "bool", None, "'int8'")),
        ({"quantize": "int8", "device": "cuda"}, ValueError, ("device", "'cuda'", "'cpu'", "quantize='int8'")),
        ({"quantize": "int8", "dtype": torch.float64}, ValueError, ("dtype", torch.float64, torch.float32, "quantize='int8'")),
    ],
)
def test_what_does_not_go_together_is_refused_before_loading(options: Any, error: type[Exception], parts: tuple[Any, ...]) -> None:
    with pytest.raises(error, match=naming(*parts)):
        minisbert.load("no-such-model", **options)


@pytest.mark.parametrize("fault", ["missing", "another signature", "saturates", "bits depend on the batch"])
def test_an_operator_that_does_something_else_is_not_taken(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = quantization.linear_int8

    def wrong(x: Tensor, *rest: Any) -> Tensor:
        if fault == "missing":
            raise AttributeError("'_OpNamespace' 'onednn' object has no attribute 'qlinear_pointwise'")
        if fault == "another signature":
            raise RuntimeError("onednn::qlinear_pointwise() expected at most 12 arguments")
        found = right(x, *rest)
        return found.clamp(max=2**15) if fault == "saturates" else found * (1 + 1e-6 * (len(x) > 8))

    monkeypatch.setattr(quantization, "linear_int8", wrong)
    is_exact.cache_clear()
    with pytest.raises(MinisbertError, match=naming("quantize", torch.__version__, "onednn::qlinear_pointwise")):
        minisbert.load(MINILM, quantize="int8")
    is_exact.cache_clear()


def test_every_linear_layer_of_every_family_is_exchanged(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    bert = minisbert.load(tmp_path, quantize="int8").bert
    kinds = {type(layer.get_submodule(name)) for layer in bert.layers for name in LINEARS}
    assert kinds == {Int8Linear}
    assert not any(type(module) is nn.Linear for module in bert.modules())
