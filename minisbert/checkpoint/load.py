"""Loads a `Checkpoint` by the name of a model: finds its files, reads its settings, builds its parts, and loads their weights."""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from minisbert.bert import Bert
from minisbert.checkpoint.config import CheckpointConfig, read_checkpoint
from minisbert.checkpoint.families import FAMILIES
from minisbert.checkpoint.fields import MissingFileError, inside
from minisbert.checkpoint.hub import Source, locate
from minisbert.checkpoint.other_files import advice, refuse_pointer
from minisbert.checkpoint.tokenizer_files import read_tokenizer
from minisbert.checkpoint.weights import StoredTensor, checksum, load_module, load_weights, open_weights
from minisbert.errors import MinisbertError
from minisbert.inference.threads import computes, computing, in_default_state
from minisbert.pooling import NormalizeConfig, Pooling, build_modules, vector_dtype_of
from minisbert.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Checkpoint:
    """The parts of one model and their source. `SentenceEncoder` is built from one; `save` and `info` take one.

    Attributes:
        bert: token ids → token vectors.
        tokenizer: text → token ids.
        pooling: token vectors → a sentence vector.
        modules: the post-pooling modules; often none.
        config: everything that the checkpoint's json files say.
        source: where the files were found; None if the parts were not loaded from files.
        files: the paths of the files that were read, by their names inside the checkpoint.
        warnings: the warnings that were given when it was loaded.
    """

    bert: Bert
    tokenizer: TextTokenizer
    pooling: Pooling
    modules: nn.Sequential
    config: CheckpointConfig
    source: Source | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def quantize(self) -> str | None:
        """What `minisbert.load` was given as `quantize`: "int8", or None for float weights."""
        return getattr(self.bert.layers[0].get_submodule("attention.out"), "quantize", None)


def load_checkpoint(
    model: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> tuple[Checkpoint, Source]:
    """Finds, reads, checks and fills a model; the arguments and errors are those of `minisbert.load`."""
    dtype = torch.float32 if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype: found {dtype!r}, expected a floating-point torch.dtype such as torch.float32.")
    device = find_device(device)
    source = locate(model, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
    files: dict[str, Path] = {}

    def find(file: str) -> Path | None:
        path = source.find(file)
        if path is not None:
            refuse_pointer(path, file)
            files[file] = path
        return path

    with _with_advice(source):
        config = read_checkpoint(find)
        tokenizer = read_tokenizer(find, config)
        stored: list[Sequence[StoredTensor]] = [open_weights(find, config.folder)]
        stored += [() if isinstance(one, NormalizeConfig) else open_weights(find, one.folder) for one in config.modules]
    bert, modules, found = in_default_state(lambda: _build(config, stored, device, dtype))
    warnings = [*config.load_warnings, *tokenizer.load_warnings, *found]
    beside = [file for file in FAMILIES[config.bert.model_type].beside if source.find(inside(config.folder, file)) is not None]
    if beside:
        warnings.append(f"{', '.join(beside)}: not used, because minisbert computes the sentence vector only")
    if device.type == "cpu" and dtype in (torch.float16, torch.bfloat16):
        warnings.append(
            f"{dtype} on a CPU is usually slower than torch.float32, by up to five times, and saves memory only. For speed load "
            "with the default dtype, or on a GPU."
        )
    parts = bert, tokenizer, Pooling(config.pooling), modules, config
    return Checkpoint(*parts, source, files, tuple(warnings)), source


def _build(
    config: CheckpointConfig, stored: Sequence[Sequence[StoredTensor]], device: torch.device, dtype: torch.dtype
) -> tuple[Bert, nn.Sequential, list[str]]:
    """The model and the post-pooling modules with their weights, and the load warnings."""
    with torch.device("meta"), _WithoutInitialization():  # shapes only, without memory
        bert = Bert(config.bert)
        modules = build_modules(config.modules)
    with computing():
        warnings = load_weights(bert, stored[0], dtype)
        for module, settings, weights in zip(modules, config.modules, stored[1:], strict=True):
            if not isinstance(settings, NormalizeConfig):
                warnings.extend(load_module(module, weights, vector_dtype_of(dtype), inside(settings.folder, "config.json")))
    return bert.to(device).eval(), modules.to(device).eval(), warnings


@contextmanager
def _with_advice(source: Source) -> Iterator[None]:
    """Adds to the error for a missing file which other files the checkpoint has, and what to do."""
    try:
        yield
    except MissingFileError as error:
        raise MissingFileError(f"{error} {advice(source.names(), error.folder)}".strip(), error.folder) from None


class _WithoutInitialization(TorchFunctionMode):
    """Skips the random initialization of modules, whose weights are loaded anyway.

    On the meta device it would cost no memory, but PyTorch would import its compiler, which takes a second and adds a warning
    filter.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


MOST_KEPT = 2
"""The most unpickled models that a process keeps."""

_kept: dict[Any, tuple[Any, weakref.ref[Any]]] = {}  # source → an encoder, and the copy of it that was returned last


def restore(load: partial[Any], settings: Mapping[str, Any], weights: int) -> Any:
    """Unpickles an encoder: loads it again, compares the checksum of its weights, and restores its settings.

    `pool.map(encoder.encode, ...)` pickles the encoder for every chunk. So a process keeps the encoder that it loaded. It reuses it
    if the last copy was garbage-collected, and the weights are still those that were pickled.

    Raises:
        MinisbertError: if the weights differ from those of the pickled encoder.
    """
    place = (load.func, load.args, tuple(sorted(load.keywords.items())))
    kept, given_out = _kept.pop(place, (None, None))  # another thread finds nothing meanwhile, and loads one of its own
    checked = computes(checksum)
    if kept is None or (given_out and given_out()) or checked(kept.bert, kept.modules) != weights:
        kept = load()
        if checked(kept.bert, kept.modules) != weights:
            raise MinisbertError(
                f"{kept.model}: its weights differ from those of the pickled encoder, so one of the two was changed. Save changed "
                "weights to another folder, and load that."
            )
    encoder = copy.copy(kept)
    _kept[place] = kept, weakref.ref(encoder)
    for old in list(_kept)[:-MOST_KEPT]:
        _kept.pop(old, None)
    for name, value in settings.items():
        setattr(encoder, name, value)
    return encoder


def find_device(device: str | torch.device | None) -> torch.device:
    """The requested or default device. It is tried, so that a wrong one is refused before anything is loaded."""
    if device is None:
        for kind, available in ("cuda", torch.cuda.is_available), ("mps", torch.backends.mps.is_available):
            if available():
                return torch.device(kind)
        return torch.device("cpu")
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device: found {type(device).__name__}, expected a str such as 'cpu' or 'cuda', or a torch.device.")
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each kind of device has its own
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        reason = reason if len(reason) <= 100 else reason[:100] + "…"  # PyTorch lists every kind of device it knows
        raise ValueError(f"device: {str(device)!r} cannot be used here ({reason}). Devices here: {_devices()}.") from error


def _devices() -> str:
    kinds = ["'cpu'", *(f"'cuda:{index}'" for index in range(torch.cuda.device_count()))]
    return ", ".join([*kinds, *(["'mps'"] if torch.backends.mps.is_available() else [])])
