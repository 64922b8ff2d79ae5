"""Checks the arguments of `Bert.forward`, apart from bert.py, which holds the model alone."""

from __future__ import annotations

import torch
from torch import Tensor


def check_padded(input_ids: Tensor, mask: Tensor, token_types: Tensor, *, longest: int, vocab_size: int, types: int) -> None:
    """Expects ids below `vocab_size`, a mask of 0 and 1, and token types below `types`, each [batch, length ≤ longest].

    Raises:
        ValueError: if a shape, an id, a type or a mask value is out of its range.
        TypeError: if ids or types are not integers.
    """
    shape = list(input_ids.shape)
    if len(shape) != 2 or shape[1] > longest:
        raise ValueError(f"input_ids: found shape {shape}, expected [batch, length ≤ {longest}]. Cut or split longer texts.")
    for name, x, size in ("input_ids", input_ids, vocab_size), ("token_type_ids", token_types, types):
        if x.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"{name}: found {x.dtype}, expected integers (torch.int64).")
        if x.numel() and not 0 <= int(x.min()) <= int(x.max()) < size:
            raise ValueError(f"{name}: found {x.min()} to {x.max()}, expected 0 to {size - 1}.")
    for name, x in ("token_type_ids", token_types), ("attention_mask", mask):
        if x.shape != input_ids.shape:
            raise ValueError(f"{name}: found shape {list(x.shape)}, expected that of input_ids, {shape}.")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("attention_mask: found values other than 0 and 1. 1 keeps a token, 0 hides it.")
