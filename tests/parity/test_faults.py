"""The comparisons of the parity tests are not blind: each notices each of these faults, with the very tolerances of the tests.

A fault is planted from outside into a model that has just passed. The error must name the first place that the fault touches, so
that it is noticed for the right reason.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from checkpoints import save_tiny
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

import minisbert
from minisbert import pooling
from parity.compare import TINY, check_states, check_vectors
from parity.conftest import Both
from parity.reference import Reference

# In words that every vocabulary has, the tiny one as well.
TEXTS = ["A man is eating food.", "someone is having a meal", "The cat sat on the red mat, the dogs played!", "water?"]

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch, minisbert.SentenceEncoder], None]


def activation(function: Callable[[Tensor], Tensor]) -> Plant:
    def plant(patch: Patch, encoder: minisbert.SentenceEncoder) -> None:
        for layer in encoder.bert.layers:
            patch.setattr(layer.feed_forward, "activation", function)
            if hasattr(layer.feed_forward.up, "gelu"):  # oneDNN has it in the product
                patch.setattr(layer.feed_forward.up, "gelu", False)

    return plant


def values(change: Callable[[Tensor], Tensor], *parameters: str) -> Plant:
    """Parameters that hold other values."""

    def plant(patch: Patch, encoder: minisbert.SentenceEncoder) -> None:
        for name in parameters:
            place, part = name.rsplit(".", 1)
            module = encoder.bert.get_submodule(place)
            now = module.get_parameter(part)
            changed = change(now.detach())
            patch.setitem(module._parameters, part, nn.Parameter(changed, requires_grad=False))

    return plant


def key_query_value(fused: Tensor) -> Tensor:
    query, key, value = fused.chunk(3)
    return torch.cat([key, query, value])


def zeros_for_query(fused: Tensor) -> Tensor:
    query, key, value = fused.chunk(3)
    return torch.cat([torch.zeros_like(query), key, value])


def zeros_for_value(fused: Tensor) -> Tensor:
    query, key, value = fused.chunk(3)
    return torch.cat([query, key, torch.zeros_like(value)])


def eps_of_pytorch(patch: Patch, encoder: minisbert.SentenceEncoder) -> None:
    for module in encoder.bert.modules():
        if isinstance(module, nn.LayerNorm):
            patch.setattr(module, "eps", 1e-5)


def mean_over_padding(patch: Patch, encoder: minisbert.SentenceEncoder) -> None:
    honest = pooling.token_weights
    patch.setattr(pooling, "token_weights", lambda mode, mask, *rest: honest(mode, torch.ones_like(mask), *rest))


def padding_left_on(patch: Patch, encoder: minisbert.SentenceEncoder) -> None:
    padding = Tokenizer.from_str(encoder.tokenizer.tokenizer.to_str())
    padding.enable_padding()
    patch.setattr(encoder.tokenizer, "tokenizer", padding)


# The fault, and the first place where it shows. The second layer has most of them: that it is looked at is to be shown as well.
FAULTS: dict[str, tuple[Plant, str]] = {
    "GELU by tanh": (activation(partial(F.gelu, approximate="tanh")), "layer 1"),
    "eps 1e-5": (eps_of_pytorch, "embeddings"),
    "positions off by one": (values(partial(torch.roll, shifts=-1, dims=0), "embeddings.position.weight"), "embeddings"),
    "query and key swapped": (values(key_query_value, *(f"layers.1.attention.qkv.{p}" for p in ("weight", "bias"))), "layer 2"),
    # The bias of the key is not among them: it adds the same to all scores of a token, which the softmax takes out again.
    "no bias of the query": (values(zeros_for_query, "layers.1.attention.qkv.bias"), "layer 2"),
    "no bias of the value": (values(zeros_for_value, "layers.1.attention.qkv.bias"), "layer 2"),
    "no bias of the output": (values(torch.zeros_like, "layers.1.attention.out.bias"), "layer 2"),
    "no bias upwards": (values(torch.zeros_like, "layers.1.feed_forward.up.bias"), "layer 2"),
    "no bias downwards": (values(torch.zeros_like, "layers.1.feed_forward.down.bias"), "layer 2"),
    "no bias of the embeddings' norm": (values(torch.zeros_like, "embeddings.norm.bias"), "embeddings"),
    "no bias of the attention's norm": (values(torch.zeros_like, "layers.1.attention_norm.bias"), "layer 2"),
    "no bias of the layer's norm": (values(torch.zeros_like, "layers.1.feed_forward_norm.bias"), "layer 2"),
}
STATES = FAULTS | {"mean over padding": (mean_over_padding, "pooled")}
VECTORS = FAULTS | {"padding left on": (padding_left_on, "vectors")}
ROUNDED_ROOT = activation(lambda x: x * (1 + torch.erf(x / 1.41421)) / 2)


class Sound(NamedTuple):
    """A model, and the comparisons of the parity tests, which it passes."""

    encoder: minisbert.SentenceEncoder
    check_states: Callable[[], None]
    check_vectors: Callable[[], None]


@pytest.fixture(
    scope="module",
    params=["tiny_faults", "bert_base", "minilm"],
)
def sound(request: pytest.FixtureRequest, dtype: torch.dtype) -> Sound:
    encoder, reference, bounds = request.getfixturevalue(request.param)
    batch = reference.batch(TEXTS, encoder.max_seq_length)
    states, vectors = reference.states(batch), reference.vectors(TEXTS)
    model = Sound(
        encoder,
        partial(check_states, encoder.bert, batch, states, bounds.states),
        partial(check_vectors, encoder, TEXTS, vectors, bounds.vectors),
    )
    model.check_states()
    model.check_vectors()
    return model


@pytest.fixture(scope="module")
def tiny_faults(tmp_path_factory: pytest.TempPathFactory, dtype: torch.dtype) -> Both:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return Both(minisbert.load(folder, dtype=dtype), Reference(folder, dtype), TINY[dtype])


@pytest.mark.parametrize("fault", STATES)
def test_a_fault_is_noticed_in_the_hidden_states(sound: Sound, fault: str, monkeypatch: Patch) -> None:
    plant, place = STATES[fault]
    plant(monkeypatch, sound.encoder)
    with pytest.raises(AssertionError, match=f"^{place}: "):
        sound.check_states()


@pytest.mark.parametrize("fault", VECTORS)
def test_a_fault_is_noticed_in_the_vectors(sound: Sound, fault: str, monkeypatch: Patch) -> None:
    plant, _ = VECTORS[fault]
    plant(monkeypatch, sound.encoder)
    with pytest.raises(AssertionError, match=r"^vectors: "):
        sound.check_vectors()


@pytest.mark.parametrize("dtype", [torch.float64], indirect=True, ids=["float64"])
def test_a_rounded_root_of_two_in_gelu_is_noticed_in_float64(sound: Sound, monkeypatch: Patch) -> None:
    """It moves values by 5e-7 to 1e-5, which float32 could take for rounding: this is what the comparison in float64 is for."""
    ROUNDED_ROOT(monkeypatch, sound.encoder)
    with pytest.raises(AssertionError, match=r"^layer 1: "):
        sound.check_states()
    with pytest.raises(AssertionError, match=r"^vectors: "):
        sound.check_vectors()
