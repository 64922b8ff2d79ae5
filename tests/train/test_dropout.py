"""Dropout is where BERT has it, drops the share that config.json says, and keeps the mean; without `train()` there is none.

Counts of dropped values are binomial: a bound of six standard deviations is missed by chance once in 500 million times, and the
generator is seeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from minisbert.bert import Bert, BertConfig, attend

HIDDEN_SHARE, ATTENTION_SHARE = 0.2, 0.4
LAYERS = 2


@pytest.fixture(scope="module")
def bert() -> Bert:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 50, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 100}
    shares = {"hidden_dropout_prob": HIDDEN_SHARE, "attention_probs_dropout_prob": ATTENTION_SHARE}
    return Bert(BertConfig(**sizes, num_hidden_layers=LAYERS, max_position_embeddings=20, **shares))


class Seen(TorchFunctionMode):
    """Notes what goes into dropout and attention, and what comes out."""

    def __init__(self) -> None:
        self.dropouts: list[tuple[Tensor, Tensor]] = []
        self.attention: list[float] = []

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is torch.dropout:
            self.dropouts.append((args[0], result))
        elif function is F.scaled_dot_product_attention:
            self.attention.append(args[4])  # after query, key, value and bias
        return result


def forward(bert: Bert) -> Seen:
    ids = torch.randint(50, (600,), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    with Seen() as seen:
        bert.forward_packed(ids, [(30, 12), (24, 10)])
    return seen


def test_each_place_drops_its_share_and_scales_the_rest(bert: Bert) -> None:
    seen = forward(bert.train())
    bert.eval()
    assert len(seen.dropouts) == 1 + 2 * LAYERS  # the embeddings, and both halves of each layer
    assert seen.attention == [ATTENTION_SHARE] * 2 * LAYERS  # two groups of equal length
    for before, after in seen.dropouts:
        dropped = (after == 0) & (before != 0)
        torch.testing.assert_close(after[~dropped], before[~dropped] / (1 - HIDDEN_SHARE))
        deviation = math.sqrt(HIDDEN_SHARE * (1 - HIDDEN_SHARE) / before.numel())
        assert abs(float(dropped.double().mean()) - HIDDEN_SHARE) < 6 * deviation


def test_attention_drops_weights_after_the_softmax() -> None:
    query, key = torch.randn(
        2, 50, 4, 12, 16, generator=torch.Generator().manual_seed(3)
    )  # each [sentences, heads, length, head_dim]
    value = torch.eye(12).expand(50, 4, 12, 12)  # so that the result is the weights themselves
    weights = attend(query, key, value)
    torch.manual_seed(4)
    dropped = attend(query, key, value, dropout=ATTENTION_SHARE)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], weights[kept] / (1 - ATTENTION_SHARE))
    deviation = math.sqrt(ATTENTION_SHARE * (1 - ATTENTION_SHARE) / kept.numel())
    assert abs(float((~kept).double().mean()) - ATTENTION_SHARE) < 6 * deviation


def test_nothing_is_dropped_without_training_mode(bert: Bert) -> None:
    seen = forward(bert)
    assert all(torch.equal(before, after) for before, after in seen.dropouts)
    assert set(seen.attention) == {0.0}


def test_the_mean_over_many_samples_is_the_value_without_dropout(bert: Bert) -> None:
    samples = 4000
    ids = torch.tensor([3]).repeat(samples)
    place, types = torch.zeros_like(ids), torch.zeros_like(ids)
    expected = bert.embeddings(ids[:1], place[:1], types[:1])[0]  # [hidden]
    torch.manual_seed(5)
    found = bert.embeddings.train()(ids, place, types).mean(dim=0)
    bert.eval()
    deviation = expected.abs() * math.sqrt(HIDDEN_SHARE / (1 - HIDDEN_SHARE) / samples)
    assert ((found - expected).abs() < 6 * deviation + 1e-6).all()
    query, key, value = torch.randn(3, 1, 2, 6, 8, generator=torch.Generator().manual_seed(6))
    torch.manual_seed(7)
    mean = attend(*(part.expand(samples, 2, 6, 8) for part in (query, key, value)), dropout=ATTENTION_SHARE).mean(dim=0)  # type: ignore[misc]
    spread = ((query @ key.mT / math.sqrt(8)).softmax(-1).square() @ value.square()).sqrt()[0]  # [heads, length, head_dim]
    bound = 6 * spread * math.sqrt(ATTENTION_SHARE / (1 - ATTENTION_SHARE) / samples)
    assert ((mean - attend(query, key, value)[0]).abs() < bound + 1e-6).all()
