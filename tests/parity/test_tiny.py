"""Tiny models of many shapes, with every parameter moved at random (std 0.2), against transformers and the plain BERT."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from checkpoints import TINY_VOCAB, save_tiny
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel

import minisbert
from minisbert.bert import ACTIVATIONS
from parity.capture import Batch, transformers_states
from parity.compare import TINY, Bounds, check_states, check_vectors, close
from parity.plain_bert import plain_bert
from parity.reference import Reference

LONGEST = 100

SHAPES: dict[str, dict[str, Any]] = {
    "four heads": {},
    "one head": {"num_attention_heads": 1, "hidden_size": 24, "intermediate_size": 100},
    "a head for each dimension": {"num_attention_heads": 8, "hidden_size": 8, "intermediate_size": 5, "num_hidden_layers": 1},
    "odd sizes": {"num_attention_heads": 3, "hidden_size": 21, "intermediate_size": 13},
    "six layers": {"num_attention_heads": 12, "hidden_size": 48, "intermediate_size": 31, "num_hidden_layers": 6},
    "one segment": {"type_vocab_size": 1},
    "three segments": {"type_vocab_size": 3},
    "another eps": {"layer_norm_eps": 1e-3},
    **{activation: {"hidden_act": activation} for activation in ACTIVATIONS},
}


def lengths(*tokens: int) -> Tensor:
    """The mask of sentences with these numbers of tokens."""
    return (torch.arange(max(tokens)) < torch.tensor(tokens)[:, None]).long()


RAGGED = lengths(7, 1, LONGEST, 7, 64, 2, 65, 7, 1)
MASKS = {
    "one token": lengths(1),
    "the longest": lengths(LONGEST, LONGEST),
    "padding on the right": RAGGED,
    "padding on the left": RAGGED.flip(1),
    "holes": (torch.rand(6, LONGEST, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.1, 0.9, 6)[:, None]).long(),
    "rows of zeros": lengths(0, 3, 0, 5),
}


class Tiny(NamedTuple):
    bert: minisbert.Bert
    references: dict[str, Callable[[Batch], list[Tensor]]]
    bounds: Bounds


@pytest.fixture(scope="module", params=SHAPES)
def tiny_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder, max_position_embeddings=LONGEST, **SHAPES[request.param])
    return folder


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path, dtype: torch.dtype) -> Tiny:
    """One checkpoint, read three times: by minisbert, by transformers, and tensor by tensor for the plain BERT."""
    model = AutoModel.from_pretrained(tiny_folder, dtype=dtype, attn_implementation="eager", add_pooling_layer=False)
    weights = {name: tensor.to(dtype) for name, tensor in load_file(tiny_folder / "model.safetensors").items()}
    config = json.loads((tiny_folder / "config.json").read_text(encoding="utf-8"))
    return Tiny(
        minisbert.load(tiny_folder, dtype=dtype).bert,
        {
            "transformers": lambda batch: transformers_states(model, batch),
            "the plain BERT": lambda batch: plain_bert(weights, config, *batch),
        },
        TINY[dtype],
    )


def random_batch(mask: Tensor, segments: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(len(TINY_VOCAB), mask.shape, generator=generator)
    return Batch(ids, mask, torch.randint(segments, mask.shape, generator=generator))


@pytest.mark.parametrize("reference", ["transformers", "the plain BERT"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_tiny_model_gives_the_values_of_the_reference(tiny: Tiny, mask: Tensor, reference: str) -> None:
    batch = random_batch(mask, tiny.bert.config.type_vocab_size)
    check_states(tiny.bert, batch, tiny.references[reference](batch), tiny.bounds.states)


@pytest.mark.every_processor
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int32, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("tiny_folder", ["four heads"], indirect=True)
def test_a_mask_of_any_dtype_gives_the_values_of_the_reference(tiny: Tiny, kind: torch.dtype) -> None:
    batch = random_batch(MASKS["holes"], segments=2)
    expected = tiny.references["transformers"](batch)
    check_states(tiny.bert, batch._replace(attention_mask=batch.attention_mask.to(kind)), expected, tiny.bounds.states)


@pytest.mark.every_processor
@pytest.mark.parametrize("tiny_folder", ["four heads"], indirect=True)
def test_without_a_mask_and_types_every_token_counts_and_is_of_the_first_segment(tiny: Tiny) -> None:
    batch = random_batch(MASKS["the longest"], segments=1)
    close("result", tiny.bert(batch.input_ids), tiny.references["transformers"](batch)[-1], tiny.bounds.states)


@pytest.mark.every_processor
@pytest.mark.parametrize("tiny_folder", ["odd sizes"], indirect=True)
def test_encode_gives_the_vectors_of_sentence_transformers(tiny_folder: Path, dtype: torch.dtype) -> None:
    texts = ["a man is eating food.", "Someone is having a meal!", "the red cats, the blue dogs " * 9, "", "?", "zebra"]
    expected = Reference(tiny_folder, dtype).vectors(texts)
    check_vectors(minisbert.load(tiny_folder, dtype=dtype), texts, expected, TINY[dtype].vectors)
