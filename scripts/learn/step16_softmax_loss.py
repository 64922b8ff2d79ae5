"""Step 16: the siamese softmax loss of Sentence-BERT. What to do is in step16_softmax_loss.md."""

from __future__ import annotations

from torch import Tensor


def softmax_loss(u: Tensor, v: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The cross entropy of each pair.

    Args:
        u: [batch, dim], the vectors of the first sentences.
        v: [batch, dim], the vectors of the second sentences.
        labels: [batch], the class of each pair: 0, 1, 2, …
        weight: [classes, 3 × dim].
        bias: [classes].

    Returns:
        [batch].
    """
    raise NotImplementedError
