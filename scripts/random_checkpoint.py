"""Writes a checkpoint with random weights, using minisbert alone: for programs that need a model, whatever its quality.

python scripts/random_checkpoint.py FOLDER
"""

from __future__ import annotations

import json
import random
import string
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from minisbert.bert import Bert, BertConfig
from minisbert.checkpoint.families import to_hub_names

WORDS = ["".join(random.Random(n).choices(string.ascii_lowercase, k=3 + n % 6)) for n in range(500)]  # noqa: S311


def sentences(number: int) -> Iterator[str]:
    """Short sentences of 3 to 14 words, all different, generated lazily."""
    rng = random.Random(0)  # noqa: S311 (the same sentences each time)
    for n in range(number):
        yield f"{' '.join(rng.choices(WORDS, k=3 + n % 12))} {n}"


def save_random(folder: Path, *, hidden: int = 32, layers: int = 2, positions: int = 128) -> None:
    """Writes a checkpoint with mean pooling, whose vocabulary has `WORDS` and every ASCII character."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, *string.digits, *string.punctuation]
    vocabulary += [f"##{letter}" for letter in string.ascii_lowercase + string.digits]
    vocabulary = list(dict.fromkeys([*vocabulary, *WORDS]))
    sizes = {
        "vocab_size": len(vocabulary),
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 3 * hidden,
        "max_position_embeddings": positions,
    }
    torch.manual_seed(0)
    bert = Bert(BertConfig(**sizes))
    for parameter in bert.parameters():
        parameter.normal_(0, 0.1)
    save_file({name: tensor.contiguous() for name, tensor in to_hub_names(bert).items()}, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    module = "sentence_transformers.models."
    files = {
        "config.json": {"model_type": "bert", "architectures": ["BertModel"], "hidden_act": "gelu", **sizes},
        "tokenizer_config.json": {"do_lower_case": True, "model_max_length": positions},
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": module + "Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": module + "Pooling"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True},
    }
    for name, value in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value, indent=2), encoding="utf-8")


if __name__ == "__main__":
    save_random(Path(sys.argv[1]))
