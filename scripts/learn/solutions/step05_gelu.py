"""Step 5, solved."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gelu(x: Tensor) -> Tensor:
    """x Φ(x), exactly, element by element."""
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2
