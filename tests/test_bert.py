"""The model by itself: what it promises beside the numbers of the references, which stand in tests/parity."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from messages import naming
from parity.plain_bert import plain_bert
from torch import Tensor, nn

from minisbert import Bert
from minisbert.bert import ACTIVATIONS, BertConfig
from minisbert.checkpoint.families import to_hub_names

VOCABULARY, POSITIONS, SEGMENTS = 50, 150, 3
# On both sides of every length at which attention is, or was, computed in another way.
LENGTHS = (1, 2, 15, 16, 17, 63, 64, 65, 128, POSITIONS)


def random_bert(dtype: torch.dtype = torch.float64, **sizes: Any) -> Bert:
    """Every parameter moved at random, so that no two can be mistaken for each other and no bias is zero."""
    given = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 17} | sizes
    config = BertConfig(**{"vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "type_vocab_size": SEGMENTS} | given)
    bert = Bert(config).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for parameter in bert.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return bert


@pytest.fixture(scope="module")
def bert() -> Bert:
    return random_bert()


def random_ids(*shape: int, below: int = VOCABULARY) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(1))


def by_the_paper(bert: Bert, ids: Tensor, types: Tensor | None = None) -> Tensor:
    """The last layer of the plain BERT of the parity tests, for sentences of one length."""
    types = torch.zeros_like(ids) if types is None else types
    return plain_bert(to_hub_names(bert), vars(bert.config), ids, torch.ones_like(ids), types)[-1]


def same(found: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


# --- the padded interface -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", LENGTHS)
def test_sentences_of_any_length_give_what_the_paper_says(bert: Bert, length: int) -> None:
    ids, types = random_ids(3, length), random_ids(3, length, below=SEGMENTS)
    same(bert(ids, token_type_ids=types), by_the_paper(bert, ids, types))


def test_a_row_of_zeros_gives_zeros_and_changes_no_other_row(bert: Bert) -> None:
    ids = random_ids(4, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    found = bert(ids, mask)
    assert not found[mask == 0].any()
    same(found[:1], by_the_paper(bert, ids[:1]))
    same(found[2:3, :3], by_the_paper(bert, ids[2:3, :3]))


def test_nothing_but_padding_gives_nothing_but_zeros(bert: Bert) -> None:
    found = bert(random_ids(2, 5), torch.zeros(2, 5))
    assert torch.equal(found, torch.zeros(2, 5, 24, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_an_empty_batch_and_empty_sentences_give_an_empty_result(bert: Bert, shape: tuple[int, int]) -> None:
    assert bert(torch.zeros(shape, dtype=torch.int64)).shape == (*shape, 24)


def test_a_hidden_token_may_hold_anything_that_is_an_id(bert: Bert) -> None:
    ids, mask = random_ids(1, 9), torch.tensor([[0, 1, 1, 0, 1, 1, 1, 0, 0]])
    other = torch.where(mask == 0, VOCABULARY - 1 - ids, ids)
    assert torch.equal(bert(ids, mask), bert(other, mask))


def test_a_token_s_position_is_its_column(bert: Bert) -> None:
    ids = random_ids(1, 4)
    shifted = torch.cat([torch.zeros(1, 3, dtype=torch.int64), ids], dim=1)
    found = bert(shifted, torch.tensor([[0, 0, 0, 1, 1, 1, 1]]))[:, 3:]
    assert (found - bert(ids)).abs().max() > 1e-3, "the position embeddings count the padding too, as in transformers"
    expected = bert.forward_packed(ids[0], [(1, 4)], positions=torch.arange(3, 7))
    same(found[0], expected)


@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
@pytest.mark.parametrize("truth", [torch.bool, torch.uint8, torch.int32, torch.float32])
def test_ids_of_either_integer_and_masks_of_any_kind_give_the_same_bits(
    bert: Bert, integer: torch.dtype, truth: torch.dtype
) -> None:
    ids, mask = random_ids(3, 7), torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [0, 1] * 3 + [1]])
    assert torch.equal(
        bert(ids.to(integer), mask.to(truth), torch.ones_like(ids).to(integer)), bert(ids, mask, torch.ones_like(ids))
    )


def test_the_arguments_are_not_changed(bert: Bert) -> None:
    ids, mask, types = random_ids(2, 7), torch.tensor([[1] * 7, [1] * 4 + [0] * 3]), random_ids(2, 7, below=SEGMENTS)
    before = ids.clone(), mask.clone(), types.clone()
    bert(ids, mask, types)
    assert all(map(torch.equal, (ids, mask, types), before))


# --- packed -------------------------------------------------------------------------------------------------------------------


def test_packed_sentences_give_what_each_gives_alone(bert: Bert) -> None:
    groups = [(2, 5), (1, 70), (3, 1), (1, 5)]
    lengths = [length for sentences, length in groups for _ in range(sentences)]
    sentences = random_ids(sum(lengths)).split(lengths)
    found = bert.forward_packed(torch.cat(sentences), groups).split(lengths)
    for ids, vectors in zip(sentences, found, strict=True):
        same(vectors, by_the_paper(bert, ids[None])[0])


def test_packed_and_padded_are_the_same_to_the_last_bit_in_float64_and_float32() -> None:
    for dtype in torch.float64, torch.float32:
        bert = random_bert(dtype)
        ids, types = random_ids(3, 8), random_ids(3, 8, below=SEGMENTS)
        packed = bert.forward_packed(ids.flatten(), [(3, 8)], token_types=types.flatten())
        assert torch.equal(bert(ids, None, types).flatten(0, 1), packed)
        assert packed.dtype == dtype


def test_by_default_positions_count_from_0_and_all_is_the_first_segment(bert: Bert) -> None:
    ids, groups = random_ids(7), [(2, 2), (1, 3)]
    given = bert.forward_packed(ids, groups, torch.tensor([0, 1, 0, 1, 0, 1, 2]), torch.zeros(7, dtype=torch.int64))
    assert torch.equal(bert.forward_packed(ids, groups), given)


def test_a_relative_bias_counts_the_columns_of_each_sentence_from_0() -> None:
    bert, ids = random_bert(relative_attention_num_buckets=8), random_ids(2, 6)
    same(bert.forward_packed(ids.flatten(), [(2, 6)]), bert(ids).flatten(0, 1))  # which tests/parity compares with transformers


def test_padding_of_id_0_has_position_0_and_is_not_counted() -> None:
    bert, ids = random_bert(position_offset=1), torch.tensor([[5, 0, 7, 9]])  # RoBERTa's rule, with pad_token_id 0
    same(bert(ids)[0], bert.forward_packed(ids[0], [(1, 4)], positions=torch.tensor([1, 0, 2, 3])))


def test_positions_are_counted_on_the_device_of_the_ids() -> None:
    seen: list[Tensor] = []
    bert = random_bert().to("meta")
    with bert.embeddings.position.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0])):
        bert.forward_packed(torch.empty(4, dtype=torch.int64, device="meta"), [(2, 2)])
    assert seen[0].device.type == "meta"


def test_everything_is_counted_on_the_device_of_the_ids_whatever_the_default_device() -> None:
    bert, ids = random_bert(relative_attention_num_buckets=8), random_ids(2, 6)
    expected = bert(ids)
    with torch.device("meta"):
        found = bert.forward_packed(ids.flatten(), [(2, 6)])
    same(found, expected.flatten(0, 1))


def test_attention_takes_a_bias_or_none_for_each_group(bert: Bert) -> None:
    with pytest.raises(ValueError, match="zip"):  # else a group would silently get no context
        bert.layers[0](torch.zeros(5, 24, dtype=torch.float64), [(1, 3), (1, 2)], [None])


def test_the_segment_counts(bert: Bert) -> None:
    ids = random_ids(1, 5)
    first, second = (bert(ids, token_type_ids=torch.full_like(ids, segment)) for segment in (0, 1))
    assert (first - second).abs().max() > 1e-3
    same(second, by_the_paper(bert, ids, torch.ones_like(ids)))


# --- inference only, any size, any activation ---------------------------------------------------------------------------------


def test_there_is_no_dropout_and_nothing_asks_for_a_gradient(bert: Bert) -> None:
    assert not [name for name, module in bert.named_modules() if "dropout" in type(module).__name__.lower()]
    assert not [name for name, parameter in bert.named_parameters() if parameter.requires_grad]
    result = bert(random_ids(1, 4))
    assert not result.requires_grad
    assert result.grad_fn is None


def test_dropout_is_off_until_training_mode_turns_it_on(bert: Bert) -> None:
    ids = random_ids(2, 6)
    expected = bert(ids)
    assert torch.equal(bert(ids), expected)
    try:
        assert not torch.equal(bert.train()(ids), expected)
    finally:
        bert.eval()
    assert torch.equal(bert(ids), expected)


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_attention_heads": 1},
        {"num_attention_heads": 24},
        {"hidden_size": 7, "num_attention_heads": 7, "intermediate_size": 1, "num_hidden_layers": 1},
        {"num_hidden_layers": 5, "intermediate_size": 100},
        {"layer_norm_eps": 0.1},
        *({"hidden_act": name} for name in ACTIVATIONS),
    ],
    ids=str,
)
def test_every_size_in_the_configuration_is_obeyed(sizes: dict[str, Any]) -> None:
    bert, ids = random_bert(**sizes), random_ids(2, 6)
    same(bert(ids), by_the_paper(bert, ids))


# The standard normal distribution's Φ(1) = 0.8413447460685429, from any table; σ(1) = 1/(1 + 1/e).
TANH_AT_1 = math.sqrt(2 / math.pi) * (1 + 0.044715)


@pytest.mark.parametrize(
    ("name", "at_1", "at_minus_1"),
    [
        ("gelu", 0.8413447460685429, -(1 - 0.8413447460685429)),
        ("gelu_new", (1 + math.tanh(TANH_AT_1)) / 2, -(1 - math.tanh(TANH_AT_1)) / 2),
        ("gelu_pytorch_tanh", (1 + math.tanh(TANH_AT_1)) / 2, -(1 - math.tanh(TANH_AT_1)) / 2),
        ("relu", 1.0, 0.0),
        ("silu", 1 / (1 + math.exp(-1)), -1 / (1 + math.exp(1))),
    ],
)
def test_the_activations_have_the_values_of_their_formulas(name: str, at_1: float, at_minus_1: float) -> None:
    x = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    same(ACTIVATIONS[name](x), torch.tensor([at_1, at_minus_1, 0.0], dtype=torch.float64))


def test_every_parameter_counts(bert: Bert) -> None:
    """One that could be moved without a trace would be forgotten by the code. Even the key's bias counts, fused with the others."""
    ids, types = random_ids(2, 6), random_ids(2, 6, below=SEGMENTS)
    expected = bert(ids, token_type_ids=types)
    for name, parameter in bert.named_parameters():
        before = parameter.clone()
        # At random, since the layer norm that follows takes out what is the same for all numbers of a vector.
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2), dtype=parameter.dtype))
        moved = (bert(ids, token_type_ids=types) - expected).abs().max()
        parameter.copy_(before)
        assert moved > 1e-3, name


def test_the_model_goes_by_its_own_modules(bert: Bert) -> None:
    """tracing.py and the parity tests hang their hooks on these names."""
    named = dict(bert.named_modules())
    for name in (
        "embeddings.word",
        "embeddings.norm",
        "layers.1.attention.qkv",
        "layers.1.feed_forward.up",
        "layers.1.attention_norm",
    ):
        assert isinstance(named[name], nn.Module)


# --- wrong input --------------------------------------------------------------------------------------------------------------

IDS = torch.zeros(2, 4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ((IDS[0],), ValueError, ("input_ids", [4], "[batch, length ≤ 150]")),
        ((IDS[None],), ValueError, ("input_ids", [1, 2, 4], "[batch, length ≤ 150]")),
        ((torch.zeros(1, POSITIONS + 1).long(),), ValueError, ("input_ids", [1, 151], "[batch, length ≤ 150]")),
        ((IDS.float(),), TypeError, ("input_ids", torch.float32, torch.int64)),
        ((IDS.bool(),), TypeError, ("input_ids", torch.bool, torch.int64)),
        ((IDS + VOCABULARY,), ValueError, ("input_ids", 50, 50, 0, 49)),
        ((IDS - 1,), ValueError, ("input_ids", -1, -1, 0, 49)),
        ((IDS, IDS[:, :3]), ValueError, ("attention_mask", [2, 3], "input_ids", [2, 4])),
        ((IDS, IDS + 2), ValueError, ("attention_mask", 0, 1)),
        ((IDS, torch.full((2, 4), 0.5)), ValueError, ("attention_mask", 0, 1)),
        ((IDS, torch.full((2, 4), math.nan)), ValueError, ("attention_mask", 0, 1)),
        ((IDS, torch.full((2, 4), -10000.0)), ValueError, ("attention_mask", 0, 1)),
        ((IDS, None, IDS[:1]), ValueError, ("token_type_ids", [1, 4], "input_ids", [2, 4])),
        ((IDS, None, IDS + 3), ValueError, ("token_type_ids", 3, 3, 0, 2)),
        ((IDS, None, IDS - 1), ValueError, ("token_type_ids", -1, -1, 0, 2)),
        ((IDS, None, IDS.double()), TypeError, ("token_type_ids", torch.float64, torch.int64)),
    ],
)
def test_a_wrong_input_is_named(bert: Bert, arguments: tuple[Any, ...], error: type[Exception], parts: tuple[Any, ...]) -> None:
    with pytest.raises(error, match=naming(*parts)):
        bert(*arguments)


def test_the_bounds_exclude_positions_before_the_first_token_and_missing_token_types() -> None:
    bert = random_bert(position_offset=2, type_vocab_size=0)
    ids = torch.full((1, POSITIONS - 2), 5)
    assert bert(ids).isfinite().all()
    with pytest.raises(ValueError, match=naming("input_ids", [1, 149], "[batch, length ≤ 148]")):
        bert(torch.full((1, POSITIONS - 1), 5))
    with pytest.raises(ValueError, match=naming("token_type_ids", 1, 1, 0, 0)):
        bert(ids, None, torch.ones_like(ids))


def test_the_bounds_themselves_are_in_range(bert: Bert) -> None:
    ids = torch.full((1, POSITIONS), VOCABULARY - 1)
    assert bert(ids, torch.ones_like(ids), torch.full_like(ids, SEGMENTS - 1)).isfinite().all()
    assert bert(torch.zeros_like(ids)).isfinite().all()
