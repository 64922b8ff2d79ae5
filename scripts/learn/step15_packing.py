"""Step 15: packing: attention without padding. What to do is in step15_packing.md."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def packed_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
    """Every token attends to the tokens of its own sentence; all sentences stand end to end.

    Args:
        query: [heads, tokens, head_dim], the tokens of the first sentence, then those of the second, and so on.
        key: the same.
        value: the same.
        lengths: the number of tokens of each sentence; their sum is tokens.

    Returns:
        [heads, tokens, head_dim], in the same order.
    """
    raise NotImplementedError
