"""Step 10: the stack: BERT for one sentence. What to do is in step10_stack.md."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def bert(ids: Tensor, w: dict[str, Tensor], config: dict[str, Any]) -> list[Tensor]:
    """The states of one sentence: after the embeddings, and after every layer.

    Args:
        ids: [length].
        w: all tensors of the checkpoint.
        config: what config.json says.

    Returns:
        num_hidden_layers + 1 tensors, each [length, hidden].
    """
    raise NotImplementedError
