"""Step 16, solved."""

from __future__ import annotations

import torch
from torch import Tensor


def softmax_loss(u: Tensor, v: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The negative logarithm of the probability that each pair's own class gets."""
    features = torch.cat([u, v, (u - v).abs()], dim=1)
    scores = features @ weight.T + bias
    return -scores.log_softmax(dim=1)[torch.arange(len(labels)), labels]
