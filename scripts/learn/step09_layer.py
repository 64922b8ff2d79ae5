"""Step 9: a layer. What to do is in step09_layer.md."""

from __future__ import annotations

from torch import Tensor


def layer(x: Tensor, w: dict[str, Tensor], heads: int, eps: float) -> Tensor:
    """One layer: attention and feed-forward, each added to what came in, and the sum normalized.

    Args:
        x: [length, hidden].
        w: the weights of the layer, see step09_layer.md.
        heads: how many there are.
        eps: for both layer norms.

    Returns:
        [length, hidden].
    """
    raise NotImplementedError
