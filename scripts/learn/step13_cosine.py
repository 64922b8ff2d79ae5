"""Step 13: cosine similarity. What to do is in step13_cosine.md."""

from __future__ import annotations

from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of every vector of a with every vector of b.

    Args:
        a: [n, dim].
        b: [m, dim].

    Returns:
        [n, m].
    """
    raise NotImplementedError
