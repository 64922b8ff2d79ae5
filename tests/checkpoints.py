"""Checkpoints with random weights, written by transformers itself, in the hub's layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:  # some tests run without transformers
    from transformers import BertModel

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")

TINY_VOCAB = [
    *(
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "man",
        "is",
        "eat",
        "##ing",
        "food",
        "some",
        "##one",
        "hav",
        "meal",
        ".",
    ),
    *("the", "cat", "sat", "on", "mat", ",", "!", "?", "##s", "##ed", "run", "dog", "play", "red", "blue", "green", "water"),
]


def random_bert(seed: int = 0, **config: Any) -> BertModel:
    """A transformers BertModel in which *every* parameter was moved at random, so that no two names can be swapped unnoticed.

    At the usual initialization biases are zero, layer norms one and weights tiny: a wrong GELU or a dropped bias would hide.
    """
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)  # what BertModel fills its parameters from
    model = BertModel(BertConfig(**config), add_pooling_layer=False).eval()
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
    """modules.json and the settings of its modules, in the form of the home checkpoint (the old generation)."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    rows = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", rows)
    flags = {f"pooling_mode_{mode}": mode in modes for mode in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")}
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": dimension, **flags})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})


def save_tiny(folder: Path, seed: int = 0, **config: Any) -> BertModel:
    """A whole checkpoint of a few kilobytes, with vocab.txt and no tokenizer.json; returns the model that it holds."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
    sizes |= {"vocab_size": len(TINY_VOCAB), "max_position_embeddings": 40}
    model = random_bert(seed, **(sizes | config))
    model.save_pretrained(folder)
    write_modules(folder, model.config.hidden_size, max_seq_length=32)
    (folder / "vocab.txt").write_text("\n".join(TINY_VOCAB) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True, "model_max_length": 512})
    return model


def save_bert_base(folder: Path, vocabulary: Path) -> None:
    """12 layers of width 768 and the real vocabulary, laid out as sentence-transformers/bert-base-nli-mean-tokens is."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model = BertModel(BertConfig()).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Wide enough to show every fault, narrow enough that the twelfth layer is no noise of the first.
            parameter.add_(torch.randn(parameter.shape, generator=generator) * (0.1 if parameter.dim() == 1 else 0.02))
            assert parameter.isfinite().all(), name
    model.save_pretrained(folder)
    for file in TOKENIZER_FILES:
        shutil.copy(vocabulary / file, folder / file)
    write_modules(folder, 768, max_seq_length=128)
