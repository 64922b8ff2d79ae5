"""Writes a `Checkpoint` to files in the hub's layout.

    config.json, model.safetensors             BERT, as transformers has it
    tokenizer.json, tokenizer_config.json      the vocabulary and its settings
    modules.json                               the chain: Transformer → Pooling → …
    sentence_bert_config.json                  the limit
    1_Pooling/, 2_Dense/, …                    a folder for each of the other modules
    config_sentence_transformers.json          prompts and the like

`replace.py` lets them replace an older checkpoint, and nothing else.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from minisbert.bert import BertConfig
from minisbert.checkpoint.cache import expand
from minisbert.checkpoint.config import SentenceTransformersConfig
from minisbert.checkpoint.families import FAMILIES, to_hub_config, to_hub_names
from minisbert.checkpoint.load import Checkpoint
from minisbert.checkpoint.modules import POOLING_FLAGS
from minisbert.checkpoint.replace import beside, check_replaceable, flush, keep, replace
from minisbert.checkpoint.tokenizer_files import CLASSES
from minisbert.errors import MinisbertError
from minisbert.pooling import DenseConfig, LayerNormConfig, ModuleConfig, PoolingConfig

if TYPE_CHECKING:
    from minisbert.tokenizer import TextTokenizer


FORMAT_VERSION = "2.2.2"
"""The files are in the format of this version of sentence-transformers, which every later version reads."""

KINDS = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def save(checkpoint: Checkpoint, usage: SentenceTransformersConfig, folder: str | os.PathLike[str]) -> None:
    """See `SentenceEncoder.save`; `usage` has the current prompts, similarity function and truncated dimension."""
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder: found {type(folder).__name__}, expected the path of a folder.")
    if not os.fspath(folder):
        raise ValueError("folder: found an empty text, expected the path of a folder.")
    dtype = checkpoint.bert.dtype
    if dtype not in KINDS:
        raise MinisbertError(f"found weights of {dtype}, which are not saved, expected one of {', '.join(map(str, KINDS))}.")
    if checkpoint.quantize:
        raise MinisbertError(
            f"quantize: found {checkpoint.quantize} weights, expected float ones, as checkpoints have them. Load without "
            "quantize, and save that."
        )
    target = Path(os.path.realpath(expand(folder)))  # a link is kept, and its target is replaced
    check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with beside(target) as new:
        write(checkpoint, usage, new)
        keep(target, new)
        flush(new)
        replace(new, target)


def write(checkpoint: Checkpoint, usage: SentenceTransformersConfig, folder: Path) -> None:
    """Writes all files of a checkpoint into an empty folder."""
    config, wordpiece = checkpoint.config, checkpoint.tokenizer
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules += [(f"{n}_{kind}", kind) for n, kind in enumerate(map(_kind, config.modules), start=2)]
    rows = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules)
    ]
    _write_json(folder / "modules.json", rows)  # first, because it lists the folders that may be removed if the process is killed
    dtype = str(checkpoint.bert.dtype).removeprefix("torch.")  # torch_dtype: its name until transformers 4.56
    sizes = {**to_hub_config(checkpoint.bert.config), "position_embedding_type": "absolute", "torch_dtype": dtype}
    _write_json(folder / "config.json", sizes)
    write_safetensors(to_hub_names(checkpoint.bert), folder / "model.safetensors")
    lower_first = _write_tokenizer(wordpiece, folder, config.bert, lower_first=config.lower_case_first)
    limits = {"max_seq_length": wordpiece.max_length, "do_lower_case": lower_first}
    _write_json(folder / "sentence_bert_config.json", limits)
    _write_json(folder / "1_Pooling/config.json", _pooling_json(config.pooling))
    for (path, _), module, settings in zip(modules[2:], checkpoint.modules, config.modules, strict=True):
        if (fields := _module_json(settings)) is not None:
            _write_json(folder / path / "config.json", fields)
            write_safetensors(module.state_dict(), folder / path / "model.safetensors")
    values: dict[str, Any] = {
        "__version__": {"sentence_transformers": FORMAT_VERSION},
        "model_type": "SentenceTransformer",
        "prompts": dict(usage.prompts),
        "default_prompt_name": usage.default_prompt_name,
        "similarity_fn_name": usage.similarity_fn_name,
    }
    if usage.truncate_dim is not None:
        values["truncate_dim"] = usage.truncate_dim
    _write_json(folder / "config_sentence_transformers.json", values)


def _kind(settings: ModuleConfig) -> str:
    return type(settings).__name__.removesuffix("Config")


def _pooling_json(config: PoolingConfig) -> dict[str, Any]:
    """The old format, which every version reads; or the new one if the modes have an order that the old one cannot express."""
    flags = {flag: mode in config.modes for flag, mode in POOLING_FLAGS.items()}
    if tuple(mode for mode in POOLING_FLAGS.values() if mode in config.modes) == config.modes:
        return {"word_embedding_dimension": config.dimension, **flags, "include_prompt": config.include_prompt}
    return {
        "embedding_dimension": config.dimension,
        "pooling_mode": list(config.modes),
        "include_prompt": config.include_prompt,
    }


def _module_json(config: ModuleConfig) -> dict[str, Any] | None:
    if isinstance(config, LayerNormConfig):
        return {"dimension": config.dimension}
    if not isinstance(config, DenseConfig):
        return None
    file = "linear" if config.activation == "Identity" else "activation"
    values = {
        "in_features": config.in_features,
        "out_features": config.out_features,
        "bias": config.bias,
        "activation_function": f"torch.nn.modules.{file}.{config.activation}",
    }
    return values | ({"use_residual": True} if config.residual else {})


def _write_tokenizer(wordpiece: TextTokenizer, folder: Path, bert: BertConfig, *, lower_first: bool) -> bool:
    """Writes the tokenizer; returns whether sentence_bert_config.json must ask for lower-casing the text first."""
    tokenizer = wordpiece.tokenizer
    values = json.loads(tokenizer.to_str())
    normalizer = values["normalizer"]
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else []
    lower_first = lower_first and bool(steps) and steps[0] == {"type": "Lowercase"}
    if lower_first:  # this step comes from sentence_bert_config.json, and is written there again
        normalizer = steps[1] if len(steps) == 2 else (normalizer | {"normalizers": steps[1:]} if len(steps) > 2 else None)
        values["normalizer"] = normalizer
    _write_text(folder / "tokenizer.json", json.dumps(values, ensure_ascii=False))

    names = {role: token for role, token in wordpiece.names.items() if tokenizer.token_to_id(token) is not None}
    settings: dict[str, Any] = {
        "added_tokens_decoder": {
            str(number): {
                "content": token.content,
                "lstrip": token.lstrip,
                "normalized": token.normalized,
                "rstrip": token.rstrip,
                "single_word": token.single_word,
                "special": token.special,
            }
            for number, token in sorted(tokenizer.get_added_tokens_decoder().items())
        },
        **names,
        "model_max_length": wordpiece.max_length,
        "truncation_side": wordpiece.truncation_side,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if bert.type_vocab_size < 2:  # transformers must not pass token types to such a model
        settings["model_input_names"] = ["input_ids", "attention_mask"]
    if _is_plain_bert(tokenizer, normalizer, names):
        own = FAMILIES[bert.model_type].tokenizer
        settings |= {
            "tokenizer_class": own if CLASSES[own].model == "WordPiece" else "BertTokenizer",
            "do_lower_case": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        }
    if tokenizer.encode_special_tokens:
        settings["split_special_tokens"] = True
    _write_json(folder / "tokenizer_config.json", settings)
    return lower_first


def _is_plain_bert(tokenizer: Tokenizer, normalizer: Any, names: Mapping[str, str]) -> bool:
    """Whether transformers' BertTokenizer, which is built from settings, equals this tokenizer."""
    model = tokenizer.model
    framed = tokenizer.encode("").tokens
    return (
        type(model).__name__ == "WordPiece"
        and bool(normalizer)
        and normalizer["type"] == "BertNormalizer"
        and normalizer["clean_text"]
        and type(tokenizer.pre_tokenizer).__name__ == "BertPreTokenizer"
        and (model.continuing_subword_prefix, model.max_input_chars_per_word) == ("##", 100)
        and model.unk_token == names.get("unk_token", "[UNK]")
        and framed == [names.get("cls_token", "[CLS]"), names.get("sep_token", "[SEP]")]
    )


# --- files --------------------------------------------------------------------------------------------------------------------


def write_safetensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a .safetensors file, one tensor at a time: the length of the header, the header, the values.

    safetensors' own function is not used, because it needs numpy and a second copy of all tensors in memory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the values begin at a multiple of eight
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            for part in _bytes(tensor):
                file.write(part)


def _bytes(tensor: Tensor, block: int = 1 << 24) -> Iterator[memoryview]:
    """The bytes of a tensor, one block at a time."""
    flat = tensor.detach().cpu().contiguous().flatten()
    if sys.byteorder != "little":
        raise MinisbertError("this machine is big-endian, and the files are little-endian; save on another.")
    raw = flat.view(torch.uint8)
    for part in raw.split(block) if raw.numel() else []:
        buffer = bytearray(part.numel())
        torch.frombuffer(buffer, dtype=torch.uint8).copy_(part)
        yield memoryview(buffer)


def _write_json(path: Path, value: object) -> None:
    if any(
        isinstance(number, float) and not math.isfinite(number) for number in (value.values() if isinstance(value, dict) else [])
    ):
        raise MinisbertError(f"{path.name}: found a value that is not finite, which json cannot store.")
    _write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
