"""Step 9, solved."""

from __future__ import annotations

from step04_layer_norm import layer_norm
from step07_heads import multi_head
from step08_feed_forward import feed_forward
from torch import Tensor


def layer(x: Tensor, w: dict[str, Tensor], heads: int, eps: float) -> Tensor:
    """One layer: attention and feed-forward, each added to what came in, and the sum normalized."""
    inner = {name.removeprefix("attention."): value for name, value in w.items() if name.startswith("attention.")}
    y = x + multi_head(x, inner, heads)
    y = layer_norm(y, w["attention.output.LayerNorm.weight"], w["attention.output.LayerNorm.bias"], eps)
    z = y + feed_forward(y, w)
    return layer_norm(z, w["output.LayerNorm.weight"], w["output.LayerNorm.bias"], eps)
