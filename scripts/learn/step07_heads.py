"""Step 7: several heads. What to do is in step07_heads.md."""

from __future__ import annotations

from torch import Tensor


def multi_head(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    """Self-attention in several heads.

    Args:
        x: [length, hidden].
        w: self.query, self.key, self.value and output.dense, each with .weight [hidden, hidden] and .bias [hidden].
        heads: how many there are; hidden is a multiple of it.

    Returns:
        [length, hidden].
    """
    raise NotImplementedError
