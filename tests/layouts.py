"""Small checkpoints with random weights in every layout that published sentence models have had.

The newest layout is written by sentence-transformers itself, `written`. It writes no other, so the older ones are laid out here by
hand, `laid`, as its former versions did: file by file, under the class names of their time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from checkpoints import save_tiny, write_json
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
HIDDEN = 32


def moved(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with every parameter moved at random, so that no two of them can be swapped unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module


def written(
    folder: Path,
    modes: str | Sequence[str] = "mean",
    after: Sequence[nn.Module] = (),
    *,
    include_prompt: bool = True,
    bert: dict[str, Any] | None = None,
    **settings: Any,
) -> None:
    """A checkpoint by sentence-transformers as installed.

    Args:
        folder: where to, a folder that does not exist.
        modes: of the pooling.
        after: its modules after the pooling.
        include_prompt: of the pooling.
        bert: for `save_tiny`.
        settings: for SentenceTransformer, such as `prompts`.
    """
    plain = folder.with_name(folder.name + "-plain")
    save_tiny(plain, **(bert or {}))
    without_pooler = {} if (bert or {}).get("model_type") in ("distilbert", "electra") else {"add_pooling_layer": False}
    transformer = Transformer(str(plain), model_kwargs=without_pooler)
    pooling = Pooling(HIDDEN, modes if isinstance(modes, str) else tuple(modes), include_prompt=include_prompt)
    after = [moved(module, seed) for seed, module in enumerate(after)]
    SentenceTransformer(modules=[transformer, pooling, *after], device="cpu", **settings).save(str(folder), create_model_card=False)


def laid(
    folder: Path,
    modes: Sequence[str] = ("mean",),
    after: Sequence[tuple[str, dict[str, Any] | None]] = (),
    *,
    names: str = "sentence_transformers.models.{}",
    transformer: str = "Transformer",
    root: str = "",
    flags: Sequence[str] = MODES,
    pickled: bool = False,
    sentence: dict[str, Any] | None = None,
    usage: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
    bert: dict[str, Any] | None = None,
) -> None:
    """A checkpoint in the layout that sentence-transformers wrote until 5.3.

    Args:
        folder: where to, a folder that does not exist.
        modes: the pooling modes that are on.
        after: the modules after the pooling: class and config.json, None where there is not even a folder (Normalize).
        names: how the class names of modules.json are written.
        transformer: the class of the first module.
        root: the folder of the first module.
        flags: the pooling modes that the version of the time knew.
        pickled: the weights in pytorch_model.bin instead of model.safetensors.
        sentence: sentence_bert_config.json.
        usage: config_sentence_transformers.json, which there was from version 2 on.
        tokenizer: tokenizer_config.json.
        bert: for `save_tiny`.
    """
    home = folder / root
    save_tiny(home, **(bert or {}))
    for file in "modules.json", "1_Pooling/config.json", "sentence_bert_config.json":
        (home / file).unlink()
    (home / "1_Pooling").rmdir()
    rows = [(root, transformer), ("1_Pooling", "Pooling"), *((f"{i}_{kind}", kind) for i, (kind, _) in enumerate(after, start=2))]
    write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": path, "type": names.format(kind)} for i, (path, kind) in enumerate(rows)],
    )
    on = {FLAGS[mode]: mode in modes for mode in flags}
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": HIDDEN, **on})
    write_json(home / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False} | (sentence or {}))
    if usage is not None:
        versions = {"__version__": {"sentence_transformers": "2.2.2", "transformers": "4.20.1", "pytorch": "1.11.0"}}
        write_json(folder / "config_sentence_transformers.json", versions | usage)
    if tokenizer is not None:
        write_json(home / "tokenizer_config.json", tokenizer)
    for (path, kind), (_, config) in zip(rows[2:], after, strict=True):
        if config is not None:
            write_json(folder / path / "config.json", config)
        module = stored_module(kind, config)
        if module is not None:
            save_file(module.state_dict(), folder / path / "model.safetensors")
    if pickled:
        for file in [*folder.rglob("model.safetensors")]:
            torch.save(load_file(file), file.with_name("pytorch_model.bin"))
            file.unlink()


class _Stored(nn.Module):
    """The tensors of a Dense or LayerNorm module, under the names that its file has."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def stored_module(kind: str, config: dict[str, Any] | None) -> nn.Module | None:
    if config is None:
        return None
    if kind == "Dense":
        return moved(_Stored(linear=nn.Linear(config["in_features"], config["out_features"], bias=config["bias"])))
    return moved(_Stored(norm=nn.LayerNorm(config["dimension"]))) if kind == "LayerNorm" else None


def dense(inside: int, outside: int, activation: str = "torch.nn.modules.activation.Tanh", bias: bool = True) -> dict[str, Any]:
    """A Dense module's config.json of old."""
    return {"in_features": inside, "out_features": outside, "bias": bias, "activation_function": activation}


def without_modules(folder: Path) -> None:
    """A plain BERT, as transformers saves one."""
    save_tiny(folder)
    shutil.rmtree(folder / "1_Pooling")
    for file in "modules.json", "sentence_bert_config.json":
        (folder / file).unlink()


def as_transformer(folder: Path, copy: Path) -> Path:
    """A copy whose first module is named as sentence-transformers still knows it; the class BERT of 2019 it does not."""
    shutil.copytree(folder, copy)
    rows = json.loads((copy / "modules.json").read_text(encoding="utf-8"))
    rows[0]["type"] = "sentence_transformers.models.Transformer"
    write_json(copy / "modules.json", rows)
    return copy
