"""All settings of a loaded encoder, and where each comes from: `encoder.info()` and `minisbert info`.

A vector depends on a dozen settings in half a dozen files, and two copies of a model may differ in any of them. If the vectors of
two machines differ, compare their settings first.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minisbert.checkpoint.cache import sha256
from minisbert.checkpoint.config import EVERY_MODELS_PROMPTS, SentenceTransformersConfig, Setting
from minisbert.checkpoint.load import Checkpoint
from minisbert.checkpoint.tokenizer_json import step_json
from minisbert.inference.quantization import Int8Linear
from minisbert.tokenizer import TextTokenizer

SET = "set in this program"


@dataclass(frozen=True)
class File:
    """A file that was read: its name inside the checkpoint, its path, and its current size and sha256.

    `sha256` and `bytes` are None if the file is no longer there.
    """

    name: str
    path: str
    bytes: int | None
    sha256: str | None


@dataclass(frozen=True, repr=False)
class Info:
    """Everything that determines an encoder's vectors. `print` shows it as a table.

    Attributes:
        model: the name or folder of the model.
        origin: where it was found, in words.
        revision: the commit on the hub; None for a folder or a package.
        parameters: the number of parameters, those of post-pooling modules included.
        dimension: the dimension of a vector.
        device: the device that the model computes on.
        dtype: the dtype that it computes in.
        quantize: "int8" if the linear layers have int8 weights; None if their weights have `dtype`.
        settings: every setting in force, with its source.
        limit: the reasons for the limit in tokens.
        files: the files that were read.
        warnings: the warnings that were given when it was loaded.
    """

    model: str
    origin: str
    revision: str | None
    parameters: int
    dimension: int
    device: str
    dtype: str
    quantize: str | None
    settings: tuple[Setting, ...]
    limit: tuple[str, ...]
    files: tuple[File, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries, lists, texts and numbers, for json."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def __str__(self) -> str:
        rows = [("model", self.model), ("from", self.origin), ("revision", self.revision or "none"), ("device", self.device)]
        rows += [
            ("dtype", self.dtype),
            ("quantize", self.quantize or "none"),
            ("parameters", f"{self.parameters:,}"),
            ("dimension", str(self.dimension)),
        ]
        lines = _table(rows)
        shown = [(setting.name, setting.source, json.dumps(setting.value, ensure_ascii=False)) for setting in self.settings]
        lines += ["", "settings", *_table(shown), "", "the limit", *(f"  {reason}" for reason in self.limit)]
        files = [(file.name, "gone" if file.bytes is None else f"{file.bytes:,} bytes", file.sha256 or "") for file in self.files]
        lines += ["", "files", *_table(files)]
        lines += ["", "warnings", *(f"  {warning}" for warning in self.warnings or ("none",))]
        return "\n".join(lines)

    __repr__ = __str__


def describe(checkpoint: Checkpoint, usage: SentenceTransformersConfig) -> Info:
    """See `SentenceEncoder.info`; `usage` has the current prompts, similarity function and truncated dimension."""
    config, source, tokenizer = checkpoint.config, checkpoint.source, checkpoint.tokenizer
    given = {setting.name: setting for setting in config.settings}

    def now(name: str, value: object) -> Setting:
        """A setting that a program may have changed since the checkpoint was read."""
        before = given.pop(name, None)  # None: the parts were not loaded from files
        return before if before is not None and before.value == value else Setting(name, value, SET)

    as_read = EVERY_MODELS_PROMPTS | dict(config.usage.prompts)
    limit, tokens = config.limit, tokenizer.max_length
    changeable = [
        now("prompts", config.usage.prompts if usage.prompts == as_read else usage.prompts),
        now("default_prompt_name", usage.default_prompt_name),
        Setting(
            "similarity_fn_name",
            usage.similarity_fn_name,
            given.pop("similarity_fn_name", Setting("", None, SET)).source,
        ),
        now("truncate_dim", usage.truncate_dim),
    ]
    file = next((name for name in checkpoint.files if name.endswith(("tokenizer.json", "vocab.txt"))), "")
    return Info(
        model="" if source is None else source.model,
        origin="" if source is None else source.origin,
        revision=_revision(checkpoint.files.values()),
        parameters=sum(part.numel() for module in (checkpoint.bert, checkpoint.modules) for part in module.parameters())
        + sum(module.in_features * module.out_features for module in checkpoint.bert.modules() if isinstance(module, Int8Linear)),
        dimension=min(config.dimension, usage.truncate_dim or config.dimension),
        device=str(checkpoint.bert.device),
        dtype=str(checkpoint.bert.dtype).removeprefix("torch."),
        quantize=checkpoint.quantize,
        settings=(
            Setting("max_seq_length", tokens, limit.source if tokens == limit.tokens else SET),
            *(Setting(name, value, file) for name, value in _tokenizer_settings(tokenizer).items()),
            *given.values(),
            *changeable,
        ),
        limit=limit.reasons if tokens == limit.tokens else (*limit.reasons, f"{SET}: max_seq_length is {tokens}"),
        files=tuple(_file(name, path) for name, path in checkpoint.files.items()),
        warnings=checkpoint.warnings,
    )


def _tokenizer_settings(tokenizer: TextTokenizer) -> dict[str, object]:
    return {
        "tokenizer": type(tokenizer.tokenizer.model).__name__,
        "normalizer": _without_long_texts(step_json(tokenizer.tokenizer.normalizer)),
        "truncation_side": tokenizer.truncation_side,
        "vocabulary": tokenizer.vocab_size,
    }


def _without_long_texts(value: Any) -> Any:
    """A json value in which long texts, such as XLM-R's map of characters, are replaced by their sha256."""
    if isinstance(value, dict):
        return {key: _without_long_texts(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_long_texts(part) for part in value]
    if isinstance(value, str) and len(value) > 200:
        return f"{len(value):,} characters, sha256 {hashlib.sha256(value.encode()).hexdigest()}"
    return value


def _revision(paths: Any) -> str | None:
    """The commit in the path of a file of the hub's cache: …/models--…/snapshots/<commit>/…"""
    for path in paths:
        if found := re.search(r"models--[^/\\]+[/\\]snapshots[/\\]([0-9a-f]{40})[/\\]", str(path)):
            return found[1]
    return None


def _file(name: str, path: Path) -> File:
    try:
        return File(name, str(path), path.stat().st_size, sha256(path))
    except OSError:
        return File(name, str(path), None, None)


def _table(rows: list[Any]) -> list[str]:
    widths = [min(max(len(row[column]) for row in rows), 60) for column in range(len(rows[0]))] if rows else []
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
