"""Step 3, solved."""

from __future__ import annotations

from torch import Tensor


def embed(ids: Tensor, word: Tensor, position: Tensor, token_type: Tensor) -> Tensor:
    """The sum of the three embeddings of each token."""
    return word[ids] + position[: len(ids)] + token_type[0]
