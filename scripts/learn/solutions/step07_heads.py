"""Step 7, solved."""

from __future__ import annotations

from step06_attention import attention
from torch import Tensor


def multi_head(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    """Self-attention in several heads."""

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def split(x: Tensor) -> Tensor:  # [length, hidden] → [heads, length, head_dim]
        return x.unflatten(-1, (heads, -1)).transpose(0, 1)

    query, key, value = (split(linear(x, f"self.{part}")) for part in ("query", "key", "value"))
    contexts = attention(query, key, value).transpose(0, 1).flatten(1)  # [length, hidden]
    return linear(contexts, "output.dense")
