"""Pooling: every mode against numbers worked out by hand, packed against padded, and what a wrong argument is told."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import pytest
import torch
from messages import naming
from torch import Tensor

from minisbert import mean_pooling
from minisbert.pooling import (
    POOLING_MODES,
    DenseConfig,
    LayerNormConfig,
    NormalizeConfig,
    Pooling,
    PoolingConfig,
    build_modules,
    kept_tokens,
    pool,
    token_weights,
)

# Two sentences, of four and of two tokens; behind the second stand two numbers that no mode may see.
VECTORS = torch.tensor(
    [
        [[1.0, -2.0], [3.0, -4.0], [5.0, -6.0], [7.0, -12.0]],
        [[2.0, -3.0], [4.0, -9.0], [1e6, 1e6], [-1e6, -1e6]],
    ]
)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])

# (1+3+5+7)/4, (2+4+6+12)/4, (2+4)/2, (3+9)/2, and so on; weightedmean: (1·1+2·3+3·5+4·7)/10 and (1·2+2·4)/3.
BY_HAND = {
    "mean": [[4.0, -6.0], [3.0, -6.0]],
    "mean_sqrt_len_tokens": [[16 / 2, -24 / 2], [6 / math.sqrt(2), -12 / math.sqrt(2)]],
    "max": [[7.0, -2.0], [4.0, -3.0]],
    "cls": [[1.0, -2.0], [2.0, -3.0]],
    "lasttoken": [[7.0, -12.0], [4.0, -9.0]],
    "weightedmean": [[50 / 10, -76 / 10], [10 / 3, -21 / 3]],
}


def equal(found: Tensor, expected: Any) -> None:
    expected = torch.as_tensor(expected, dtype=found.dtype)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 if found.dtype == torch.float32 else 1e-12)


def test_the_values_by_hand_cover_every_mode() -> None:
    assert set(BY_HAND) == set(POOLING_MODES)


@pytest.mark.parametrize("mode", BY_HAND)
def test_a_mode_gives_the_values_worked_out_by_hand(mode: str) -> None:
    equal(mean_pooling(VECTORS, MASK, mode), BY_HAND[mode])


@pytest.mark.parametrize("mode", BY_HAND)
def test_padding_on_the_left_changes_nothing(mode: str) -> None:
    left = torch.tensor([[[1e6, 1e6], [2.0, -3.0], [4.0, -9.0], [0.0, 0.0]]])
    equal(mean_pooling(left, torch.tensor([[0, 1, 1, 0]]), mode), BY_HAND[mode][1:])


@pytest.mark.parametrize("mode", [mode for mode in BY_HAND if mode != "weightedmean"])
def test_a_hole_changes_nothing(mode: str) -> None:
    holes = torch.tensor([[[2.0, -3.0], [1e6, -1e6], [4.0, -9.0], [9.0, 9.0]]])
    equal(mean_pooling(holes, torch.tensor([[1, 0, 1, 0]]), mode), BY_HAND[mode][1:])


def test_only_the_weights_of_weightedmean_count_the_holes_as_well() -> None:
    equal(token_weights("weightedmean", torch.tensor([[0.0, 1.0, 1.0, 0.0]])), [[0, 1 / 3, 2 / 3, 0]])
    equal(token_weights("weightedmean", torch.tensor([[1.0, 0.0, 1.0, 0.0]])), [[1 / 4, 0, 3 / 4, 0]])


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("mode", BY_HAND)
def test_a_mask_of_any_dtype_will_do_and_the_result_has_the_dtype_of_the_vectors(mode: str, kind: torch.dtype) -> None:
    for precision in torch.float32, torch.float64:
        pooled = mean_pooling(VECTORS.to(precision), MASK.to(kind), mode)
        assert pooled.dtype == precision
        equal(pooled, BY_HAND[mode])


@pytest.mark.parametrize("mode", BY_HAND)
def test_a_row_of_zeros_gives_zeros_and_no_nan(mode: str) -> None:
    pooled = mean_pooling(VECTORS, torch.tensor([[0, 0, 0, 0], [1, 1, 0, 0]]), mode)
    equal(pooled, [[0, 0], BY_HAND[mode][1]])


@pytest.mark.parametrize("mode", BY_HAND)
def test_pooling_changes_none_of_its_arguments(mode: str) -> None:
    vectors, mask = VECTORS.clone(), MASK.clone()
    mean_pooling(vectors, mask, mode)
    assert torch.equal(vectors, VECTORS)
    assert torch.equal(mask, MASK)


def test_the_token_vectors_may_be_the_first_of_a_tuple_or_of_a_model_output() -> None:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    for output in (
        (VECTORS, "pooled"),
        [VECTORS],
        BaseModelOutputWithPooling(last_hidden_state=VECTORS, pooler_output=VECTORS[:, 0]),
    ):
        equal(mean_pooling(output, MASK), BY_HAND["mean"])


@pytest.mark.parametrize(
    ("vectors", "mask", "mode", "error", "parts"),
    [
        ("text", MASK, "mean", TypeError, ("token_embeddings", "str", "torch.Tensor")),
        (([1.0, 2.0],), MASK, "mean", TypeError, ("token_embeddings", "list", "torch.Tensor")),
        (VECTORS, MASK.tolist(), "mean", TypeError, ("attention_mask", "list", "torch.Tensor")),
        (VECTORS[0], MASK[0], "mean", ValueError, ([4, 2], "mask", [4], "expected [batch, length, hidden]", "[batch, length].")),
        (VECTORS, MASK[:, :3], "mean", ValueError, ([2, 4, 2], "mask", [2, 3], "[batch, length, hidden]")),
        (VECTORS, MASK[..., None], "mean", ValueError, ([2, 4, 2], "mask", [2, 4, 1], "[batch, length]")),
        (VECTORS, MASK, "average", ValueError, ("mode", "'average'", *POOLING_MODES)),
    ],
)
def test_a_wrong_argument_is_named(vectors: Any, mask: Any, mode: str, error: type[Exception], parts: tuple[Any, ...]) -> None:
    with pytest.raises(error, match=naming(*parts)):
        mean_pooling(vectors, mask, mode)


# --- packed, several modes, a prompt left out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", [*((mode,) for mode in BY_HAND), ("cls", "max", "mean"), tuple(BY_HAND)], ids="+".join)
def test_packed_groups_give_what_the_padded_batch_gives(modes: tuple[str, ...]) -> None:
    groups = ((2, 4), (3, 1), (1, 7))
    lengths = [length for sentences, length in groups for _ in range(sentences)]
    generator = torch.Generator().manual_seed(0)
    packed = torch.randn(sum(lengths), 5, dtype=torch.float64, generator=generator)  # [tokens, hidden]
    padded = torch.nn.utils.rnn.pad_sequence(packed.split(lengths), batch_first=True)  # [batch, length, hidden]
    mask = (torch.arange(7) < torch.tensor(lengths)[:, None]).double()
    module = Pooling(PoolingConfig(5, modes))
    assert module.dimension == 5 * len(modes)
    equal(module(packed, groups), pool(padded, mask, modes))


def test_several_modes_are_concatenated_in_the_order_given() -> None:
    equal(pool(VECTORS, MASK.float(), ("max", "cls")), [BY_HAND["max"][row] + BY_HAND["cls"][row] for row in (0, 1)])


def test_the_prompt_is_left_out_wherever_the_text_starts() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0]])
    assert kept_tokens(mask, 2).tolist() == [[0, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0]]
    assert kept_tokens(mask, 0) is mask


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("mean", [6.0, -9.0]),
        ("mean_sqrt_len_tokens", [12 / math.sqrt(2), -18 / math.sqrt(2)]),
        ("max", [7.0, -6.0]),
        ("cls", [5.0, -6.0]),
        ("lasttoken", [7.0, -12.0]),
        ("weightedmean", [(3 * 5 + 4 * 7) / 7, -(3 * 6 + 4 * 12) / 7]),
    ],
)
def test_a_prompt_is_left_out_of_every_mode(mode: str, expected: list[float]) -> None:
    equal(pool(VECTORS[:1], torch.ones(1, 4), (mode,), prompt_tokens=2), [expected])


# --- the heads ----------------------------------------------------------------------------------------------------------------


def test_normalize_scales_to_length_1_and_leaves_zeros() -> None:
    (normalize,) = build_modules([NormalizeConfig()])
    equal(normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0], [-1e-3, 0.0]])), [[0.6, 0.8], [0, 0], [-1, 0]])


def test_dense_is_a_linear_layer_its_activation_and_if_asked_for_what_came_in() -> None:
    vectors = torch.tensor([[1.0, -2.0]])
    weight, bias = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([0.5, -1.0])
    for residual in False, True:
        (dense,) = build_modules([DenseConfig("2_Dense", 2, 2, bias=True, activation="Tanh", residual=residual)])
        dense.load_state_dict(OrderedDict({"linear.weight": weight, "linear.bias": bias}))
        expected = torch.tensor([[math.tanh(2.5), math.tanh(-2.0)]])
        equal(dense(vectors), expected + vectors if residual else expected)


def test_a_dense_residual_of_another_width_has_a_projection() -> None:
    (dense,) = build_modules([DenseConfig("2_Dense", 2, 1, bias=False, activation="Identity", residual=True)])
    dense.load_state_dict({"linear.weight": torch.tensor([[1.0, 10.0]]), "residual.weight": torch.tensor([[100.0, 1000.0]])})
    equal(dense(torch.tensor([[1.0, 2.0]])), [[21.0 + 2100.0]])


def test_a_layer_norm_on_top_has_the_epsilon_of_pytorch() -> None:
    (norm,) = build_modules([LayerNormConfig("2_LayerNorm", 2)])
    deviation = math.sqrt(1e-6 + 1e-5)  # mean 0, variance 1e-6: so small that ε counts
    equal(norm(torch.tensor([[1e-3, -1e-3]], dtype=torch.float32)), [[1e-3 / deviation, -1e-3 / deviation]])


# --- what mutation testing found untested -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", BY_HAND)
def test_one_token_is_its_own_mean_maximum_first_and_last(mode: str) -> None:
    equal(mean_pooling(VECTORS[1:], torch.tensor([[0, 1, 0, 0]]), mode), [[4.0, -9.0]])


def test_where_a_prompt_is_all_there_is_cls_takes_the_first_of_all_and_others_nothing() -> None:
    vectors = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]], [[7.0], [8.0], [9.0]]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    equal(pool(vectors, mask, ("cls",), prompt_tokens=2), [[1], [6], [8]])  # in the second one a token is left, exactly one
    for mode in BY_HAND.keys() - {"cls"}:
        equal(pool(vectors, mask, (mode,), prompt_tokens=2), [[0], [6], [0]])


def test_the_packed_pooling_leaves_a_prompt_out_too() -> None:
    module = Pooling(PoolingConfig(2, ("mean",), include_prompt=False))
    assert module.include_prompt is False
    assert Pooling(PoolingConfig(2)).include_prompt is True
    equal(module(torch.cat([VECTORS[0], VECTORS[0, :3]]), [(1, 4), (1, 3)], 2), [[6.0, -9.0], [5.0, -6.0]])


@pytest.mark.parametrize("mode", BY_HAND)
def test_everything_stays_on_the_device_of_the_vectors(mode: str) -> None:
    pooled = pool(torch.empty(2, 4, 3, device="meta"), torch.empty(2, 4, device="meta"), (mode,), prompt_tokens=1)
    assert (pooled.device.type, pooled.shape) == ("meta", (2, 3))
