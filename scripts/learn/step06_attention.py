"""Step 6: scaled dot-product attention. What to do is in step06_attention.md."""

from __future__ import annotations

from torch import Tensor


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q kᵀ / √head_dim) v.

    Args:
        query: [length, head_dim].
        key: [length, head_dim].
        value: [length, head_dim].

    Returns:
        [length, head_dim].
    """
    raise NotImplementedError
