"""Step 17: in-batch negatives. What to do is in step17_negatives.md."""

from __future__ import annotations

from torch import Tensor


def negatives_loss(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """For each row of a, the cross entropy of finding its own row of b among all rows of b.

    Args:
        a: [batch, dim].
        b: [batch, dim]; row i belongs to row i of a.
        scale: what the cosines are multiplied by.

    Returns:
        [batch].
    """
    raise NotImplementedError
