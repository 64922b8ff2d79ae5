"""Step 12: mean pooling: one vector for each sentence. What to do is in step12_mean_pooling.md."""

from __future__ import annotations

from torch import Tensor


def mean_pooling(token_vectors: Tensor, mask: Tensor) -> Tensor:
    """The mean of the vectors of the real tokens of each sentence.

    Args:
        token_vectors: [batch, length, hidden].
        mask: [batch, length], 1 for a token and 0 for padding; each sentence has at least one token.

    Returns:
        [batch, hidden].
    """
    raise NotImplementedError
