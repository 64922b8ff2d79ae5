"""Step 8: feed-forward. What to do is in step08_feed_forward.md."""

from __future__ import annotations

from torch import Tensor


def feed_forward(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """Each token's vector through a wider layer and back.

    Args:
        x: [length, hidden].
        w: intermediate.dense.weight [inner, hidden], intermediate.dense.bias, output.dense.weight [hidden, inner], output.dense.bias.

    Returns:
        [length, hidden].
    """
    raise NotImplementedError
