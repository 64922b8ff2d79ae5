"""From the name of a model to a `SentenceEncoder`: its files are found, its settings read, its parts built and filled."""

from __future__ import annotations

import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from minisbert.bert import Bert
from minisbert.checkpoint.config import read_checkpoint
from minisbert.checkpoint.fields import inside
from minisbert.checkpoint.hub import locate
from minisbert.checkpoint.tokenizer_files import read_tokenizer
from minisbert.checkpoint.weights import load_module, load_weights, open_weights
from minisbert.encoder import SentenceEncoder
from minisbert.errors import MinisbertWarning
from minisbert.inference.kernels import suits, use_onednn
from minisbert.inference.threads import computing, fork_safe
from minisbert.pooling import NormalizeConfig, Pooling, build_modules, vector_dtype_of


def load_encoder(
    model: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    truncate_dim: int | None = None,
) -> SentenceEncoder:
    """See `minisbert.load`, which is this with a default for `model`."""
    dtype = torch.float32 if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype: found {dtype!r}, expected a floating-point torch.dtype such as torch.float32.")
    device = _device(device)
    source = locate(model, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
    files: dict[str, Path] = {}

    def find(file: str) -> Path | None:
        path = source.find(file)
        if path is not None:
            files[file] = path
        return path

    config = read_checkpoint(find)
    tokenizer = read_tokenizer(find, config)
    with torch.device("meta"), _Unfilled():  # the shapes without the memory
        bert = Bert(config.bert)
        heads = build_modules(config.heads)
    stored = open_weights(find, config.folder)

    def fill() -> list[str]:
        with computing():
            return load_weights(bert, stored, dtype)

    load_warnings = [*config.load_warnings, *tokenizer.load_warnings, *fork_safe(fill)]
    for head, settings in zip(heads, config.heads, strict=True):
        if not isinstance(settings, NormalizeConfig):
            stored = open_weights(find, settings.folder)
            load_warnings.extend(load_module(head, stored, vector_dtype_of(dtype), inside(settings.folder, "config.json")))
    # No token: secrets are not pickled.
    again = os.path.abspath(source.model) if source.origin == "a local folder" else source.model  # noqa: PTH100 (links stay)
    loaded = partial(load_encoder, again, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    bert = bert.to(device).eval()
    if suits(bert):
        fork_safe(lambda: use_onednn(bert))
    encoder = SentenceEncoder(
        bert,
        tokenizer,
        Pooling(config.pooling),
        config,
        source.model,
        source.origin,
        heads=heads.to(device).eval(),
        files=files,
        load_warnings=[*source.load_warnings, *load_warnings],
        loaded=loaded,
    )
    if truncate_dim is not None:
        encoder.truncate_dim = truncate_dim
    for load_warning in load_warnings:
        warnings.warn(f"{source.model}: {load_warning}", MinisbertWarning, stacklevel=3)
    return encoder


def _device(device: str | torch.device | None) -> torch.device:
    """The device asked for, tried out, so that a wrong one is known before anything is loaded."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device: found {type(device).__name__}, expected a str such as 'cpu' or 'cuda', or a torch.device.")
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each kind of device has its own
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"device: {str(device)!r} cannot be used here ({reason}). Take another, such as 'cpu'.") from error


class _Unfilled(TorchFunctionMode):
    """Where modules are built and not filled with random numbers, which would be thrown away.

    On the meta device this costs no memory, but PyTorch imports its compiler for it, which takes a second and registers a filter
    for warnings.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
