"""Tiny models of every family against transformers, layer by layer, with every parameter moved at random (std 0.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from checkpoints import FAMILIES, OFFSETS, save_tiny
from torch import Tensor, nn
from torch.nn import functional as F

import minisbert
from minisbert import Bert
from parity.capture import Batch, transformers_states
from parity.compare import EXACT, check_states
from parity.test_tiny import lengths

LONGEST = 150  # more than 128, from where on all distances share a bucket

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "one head": {"num_attention_heads": 1, "intermediate_size": 100},
    "a head for each dimension": {"num_attention_heads": 8, "hidden_size": 8, "intermediate_size": 5, "num_hidden_layers": 1},
    "six layers, relu": {"num_attention_heads": 3, "hidden_size": 21, "num_hidden_layers": 6, "hidden_act": "relu"},
}
DISTILBERT = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
OTHERS = [family for family in FAMILIES if family != "bert"]  # which test_tiny.py has
MASKS = {
    "one token": lengths(1),
    "padding on the right": lengths(7, 1, LONGEST, 7, 64, 2, 129, 1),
    "padding on the left": lengths(7, 1, LONGEST, 7, 64, 2, 129, 1).flip(1),
    "holes": (torch.rand(5, LONGEST, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.1, 0.9, 5)[:, None]).long(),
}


class Family(NamedTuple):
    """A tiny model on either side. The float32 one is compared with transformers in float64: what differs is our rounding alone."""

    bert: Bert
    states: Callable[[Batch], list[Tensor]]


def config_of(model_type: str, shape: str) -> dict[str, Any]:
    sizes = SHAPES[shape]
    if model_type == "electra" and "hidden_size" in sizes:
        sizes = sizes | {"embedding_size": sizes["hidden_size"]}
    return {DISTILBERT.get(key, key) if model_type == "distilbert" else key: value for key, value in sizes.items()}


@pytest.fixture(scope="module", params=[(family, shape) for family in OTHERS for shape in SHAPES], ids="-".join)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    model_type, shape = request.param
    folder = tmp_path_factory.mktemp("family")
    more = config_of(model_type, shape) | {"max_position_embeddings": LONGEST + OFFSETS.get(model_type, 0)}
    reference = save_tiny(folder, model_type=model_type, **more)
    return folder, reference.double()


@pytest.fixture(scope="module")
def family(model: tuple[Path, nn.Module], dtype: torch.dtype) -> Family:
    folder, reference = model
    return Family(minisbert.load(folder, dtype=dtype).bert, lambda batch: transformers_states(reference, batch))


def random_batch(mask: Tensor, bert: Bert) -> Batch:
    """Of any ids: padding is told by the mask, and a padding token may stand anywhere in a text."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(min(60, bert.config.vocab_size), mask.shape, generator=generator)
    return Batch(ids, mask, torch.randint(bert.config.type_vocab_size or 1, mask.shape, generator=generator))


def check(family: Family, mask: Tensor) -> None:
    batch = random_batch(mask, family.bert)
    expected = family.states(batch)
    dtype = next(family.bert.parameters()).dtype
    scale = max(1.0, *(float(state.abs().max()) for state in expected))
    atol = EXACT.states if dtype == torch.float64 else 1e-5 * scale
    check_states(family.bert, batch, [state.to(dtype) for state in expected], atol)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_tiny_model_of_any_family_gives_the_values_of_transformers(family: Family, mask: Tensor) -> None:
    check(family, mask)


# --- the comparison is not blind ----------------------------------------------------------------------------------------------

Patch = pytest.MonkeyPatch


def offset_of_one(patch: Patch, bert: Bert) -> None:
    patch.setattr(bert, "config", replace(bert.config, position_offset=1))


def positions_by_column(patch: Patch, bert: Bert) -> None:
    patch.setattr(bert, "_positions", lambda ids: torch.arange(2, ids.shape[-1] + 2).expand_as(ids))


def buckets_off_by_one(patch: Patch, bert: Bert) -> None:
    table = bert.relative_bias.table
    patch.setitem(table._parameters, "weight", nn.Parameter(table.weight.roll(1, dims=0), requires_grad=False))


def left_and_right_swapped(patch: Patch, bert: Bert) -> None:
    table = bert.relative_bias.table
    patch.setitem(table._parameters, "weight", nn.Parameter(table.weight.roll(16, dims=0), requires_grad=False))


def rounded_buckets(patch: Patch, bert: Bert) -> None:
    patch.setattr(Tensor, "long", lambda x: x.round().to(torch.int64))


def bias_before_scaling(patch: Patch, bert: Bert) -> None:
    def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, _: float) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias / query.shape[-1] ** 0.5)

    patch.setattr("minisbert.bert.attend", attend)


def token_types_added(patch: Patch, bert: Bert) -> None:
    table = nn.Embedding(2, bert.config.hidden_size, dtype=torch.float64)
    patch.setitem(bert.embeddings.__dict__, "token_type", table)
    patch.setitem(bert.embeddings._modules, "token_type", table)


def eps_of_bert(patch: Patch, bert: Bert) -> None:
    for module in bert.modules():
        if isinstance(module, nn.LayerNorm):
            patch.setattr(module, "eps", 1e-12 if module.eps == 1e-5 else 1e-5)


FAULTS: list[tuple[str, Callable[[Patch, Bert], None], str]] = [
    ("roberta", offset_of_one, "embeddings"),
    ("roberta", positions_by_column, "embeddings"),
    ("mpnet", offset_of_one, "embeddings"),
    ("mpnet", buckets_off_by_one, "layer 1"),
    ("mpnet", left_and_right_swapped, "layer 1"),
    ("mpnet", rounded_buckets, "layer 1"),
    ("mpnet", bias_before_scaling, "layer 1"),
    ("mpnet", token_types_added, "embeddings"),
    ("distilbert", token_types_added, "embeddings"),
    *((family, eps_of_bert, "embeddings") for family in ("xlm-roberta", "mpnet", "distilbert")),
]


@pytest.mark.parametrize(("model_type", "plant", "place"), FAULTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_fault_in_what_a_family_has_of_its_own_is_noticed(
    model_type: str, plant: Callable[[Patch, Bert], None], place: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    reference = save_tiny(tmp_path, model_type=model_type, max_position_embeddings=LONGEST + 2).double()
    family = Family(minisbert.load(tmp_path, dtype=torch.float64).bert, lambda batch: transformers_states(reference, batch))
    check(family, MASKS["padding on the right"])
    plant(monkeypatch, family.bert)
    with pytest.raises(AssertionError, match=f"^{place}: "):
        check(family, MASKS["padding on the right"])
