"""Step 11: many sentences at once: the mask. What to do is in step11_mask.md."""

from __future__ import annotations

from torch import Tensor


def masked_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention in which no token attends to the padding.

    Args:
        query: [batch, heads, length, head_dim].
        key: [batch, heads, length, head_dim].
        value: [batch, heads, length, head_dim].
        mask: [batch, length], 1 for a token and 0 for padding; each sentence has at least one token.

    Returns:
        [batch, heads, length, head_dim].
    """
    raise NotImplementedError
