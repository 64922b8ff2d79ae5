"""Step 14: the whole of it, in 60 lines. What to do is in step14_minisbert.md."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def plain_bert(w: dict[str, Tensor], config: dict[str, Any], ids: Tensor, mask: Tensor, types: Tensor) -> list[Tensor]:
    """The states of a batch of padded sentences: after the embeddings, and after every layer.

    Args:
        w: all tensors of the checkpoint, under the names of step 10.
        config: what config.json says.
        ids: [batch, length].
        mask: [batch, length], 1 for a token and 0 for padding.
        types: [batch, length], the segment of each token, 0 or 1.

    Returns:
        num_hidden_layers + 1 tensors, each [batch, length, hidden].
    """
    raise NotImplementedError
