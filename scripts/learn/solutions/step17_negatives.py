"""Step 17, solved."""

from __future__ import annotations

from step13_cosine import cosine
from torch import Tensor


def negatives_loss(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """The negative logarithm of the probability of the right answer, which stands on the diagonal."""
    return -(scale * cosine(a, b)).log_softmax(dim=1).diagonal()
