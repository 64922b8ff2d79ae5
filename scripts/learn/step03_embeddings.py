"""Step 3: embeddings add up. What to do is in step03_embeddings.md."""

from __future__ import annotations

from torch import Tensor


def embed(ids: Tensor, word: Tensor, position: Tensor, token_type: Tensor) -> Tensor:
    """The sum of the three embeddings of each token.

    Args:
        ids: [length], integers.
        word: [vocabulary, hidden].
        position: [positions, hidden], with at least `length` rows.
        token_type: [2, hidden].

    Returns:
        [length, hidden].
    """
    raise NotImplementedError
