"""Checkpoints with random weights, written by transformers itself, in the hub's layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:  # some tests run without transformers
    from transformers import PreTrainedModel

TINY_VOCAB = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", "is", "eat", "##ing", "food", "some", "##one", "hav", "meal", "."),
    *("the", "cat", "sat", "on", "mat", ",", "!", "?", "##s", "##ed", "run", "dog", "play", "red", "blue", "green", "water"),
]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


def random_model(seed: int = 0, model_type: str = "bert", **config: Any) -> PreTrainedModel:
    """A model of transformers in which *every* parameter was moved at random, so that no two names can be swapped unnoticed.

    At the usual initialization biases are zero, layer norms one and weights tiny: a wrong GELU or a dropped bias would hide.
    """
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(seed)  # what the model fills its parameters from
    without_pooler = {} if model_type in ("distilbert", "electra") else {"add_pooling_layer": False}
    model = AutoModel.from_config(AutoConfig.for_model(model_type, **config), **without_pooler).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def finder(folder: Path) -> Callable[[str], Path | None]:
    """Where a file of this checkpoint lies, for the functions that read one without asking the hub."""
    return lambda file: path if (path := folder / file).is_file() else None


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def write_modules(folder: Path, dimension: int, *, max_seq_length: int | None, modes: tuple[str, ...] = ("mean_tokens",)) -> None:
    """modules.json and the settings of its modules, in the form of the default model (the old generation)."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    rows = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", rows)
    flags = {f"pooling_mode_{mode}": mode in modes for mode in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")}
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": dimension, **flags})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
POSITIONS = 40
"""The most tokens of a sentence in the tiny models."""

FAMILIES: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "electra": SIZES | {"embedding_size": 32},
    "ernie": SIZES,
    "roberta": SIZES | {"type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "xlm-roberta": SIZES | {"type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "camembert": SIZES | {"type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "mpnet": SIZES | {"layer_norm_eps": 1e-5},
    "distilbert": dict(zip(("dim", "n_layers", "n_heads", "hidden_dim"), SIZES.values(), strict=True)),
}
"""config.json of a tiny model of each family, by its model_type, as published models have it."""

OFFSETS = {"roberta": 2, "xlm-roberta": 2, "camembert": 2, "mpnet": 2}


def save_tiny(
    folder: Path, seed: int = 0, model_type: str = "bert", tokenizer: str | None = None, **config: Any
) -> PreTrainedModel:
    """A whole checkpoint of a few kilobytes; returns the model that it holds.

    Args:
        folder: where to.
        seed: of the parameters.
        model_type: the family.
        tokenizer: one of `VOCABULARIES`; by default the family's.
        config: sizes and switches beside those of `FAMILIES`, under the names of config.json.
    """
    from vocabularies import VOCABULARIES

    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = VOCABULARIES[tokenizer or (model_type if model_type in VOCABULARIES else "bert")](folder)
    sizes = {"vocab_size": vocab_size, "max_position_embeddings": POSITIONS + OFFSETS.get(model_type, 0)}
    model = random_model(seed, model_type, **(FAMILIES[model_type] | sizes | config))
    model.save_pretrained(folder)
    write_modules(folder, model.config.hidden_size, max_seq_length=32)
    return model


def save_bert_base(folder: Path, vocabulary: Path) -> None:
    """12 layers of width 768 and the real vocabulary, laid out as sentence-transformers/bert-base-nli-mean-tokens is."""
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        model = BertModel(BertConfig()).eval()
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Wide enough to show every fault, narrow enough that the twelfth layer is no noise of the first.
            parameter.normal_(std=0.1 if parameter.dim() == 1 else 0.028, generator=generator)
            parameter.add_(float("LayerNorm.weight" in name))
    model.save_pretrained(folder)
    for file in TOKENIZER_FILES:
        shutil.copy(vocabulary / file, folder / file)
    write_modules(folder, 768, max_seq_length=128)
