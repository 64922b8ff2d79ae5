"""From the vectors of a sentence's tokens to one vector for the sentence.

Every way of pooling but `max` is a weighted sum of the token vectors, so a mode *is* its weights:

    mean                   1/n for each of the n tokens                    Reimers & Gurevych 2019, section 3
    mean_sqrt_len_tokens   1/√n for each
    cls                    1 for the first token, 0 for the others         Devlin et al. 2019, section 3
    max                    no weights: the largest value in each dimension

Notation as in `bert.py`; `dim` is the width of the result, hidden × number of modes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minisbert.config import POOLING_MODES, PoolingConfig


def token_weights(mode: str, mask: Tensor) -> Tensor:
    """How much each token counts: [sentences, length] of 0 and 1 → [sentences, length]. A row without tokens gets zeros.

    >>> token_weights("mean", torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    tensor([[0.5000, 0.5000, 0.0000, 0.0000]])
    """
    if mode == "cls":
        return mask * (mask.cumsum(dim=1) == 1)
    count = mask.sum(dim=1, keepdim=True).clamp(min=1)
    return mask / (count if mode == "mean" else count.sqrt())


def pool(token_vectors: Tensor, mask: Tensor, modes: Sequence[str]) -> Tensor:
    """[sentences, length, hidden] and a mask [sentences, length] of 0 and 1 → [sentences, dim], a mode beside the other."""
    pooled = []
    for mode in modes:
        if mode == "max":
            lowest = token_vectors.masked_fill(mask[..., None] == 0, -torch.inf).amax(dim=1)
            pooled.append(lowest.masked_fill(mask.sum(dim=1, keepdim=True) == 0, 0))
        else:
            pooled.append((token_vectors * token_weights(mode, mask)[..., None]).sum(dim=1))
    return torch.cat(pooled, dim=1)


class Pooling(nn.Module):
    """Pools packed tokens, run by run: [tokens, hidden] → [sentences, dim].

    A run is a rectangle [sentences, length, hidden] without padding, so its mask is all ones.
    """

    def __init__(self, config: PoolingConfig) -> None:
        super().__init__()
        self.modes = config.modes
        self.dimension = config.dimension * len(config.modes)

    def forward(self, token_vectors: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        rows = []
        start = 0
        for sentences, length in runs:
            stop = start + sentences * length
            mask = token_vectors.new_ones(1, length)
            rows.append(pool(token_vectors[start:stop].view(sentences, length, -1), mask, self.modes))
            start = stop
        return torch.cat(rows)


def mean_pooling(token_embeddings: Tensor | Sequence[Tensor], attention_mask: Tensor, mode: str = "mean") -> Tensor:
    """The mean of the token vectors that the mask keeps: the function of that name in the model cards of the hub.

    Args:
        token_embeddings: [batch, length, hidden], or a tuple or model output whose first element is that.
        attention_mask: [batch, length] of 0 and 1 (any dtype). A row of zeros gives a zero vector.
        mode: "mean", or another of "cls", "max", "mean_sqrt_len_tokens".

    Returns:
        [batch, hidden], in the dtype of the token embeddings.

    Raises:
        TypeError: if there is no tensor where the token embeddings should be.
        ValueError: if the shapes do not belong together, or the mode is unknown.

    Source: Reimers & Gurevych 2019, section 3 ("MEAN-strategy").

    >>> vectors = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
    >>> mean_pooling(vectors, torch.tensor([[1, 1, 0]]))
    tensor([[2., 3.]])
    """
    vectors = token_embeddings if isinstance(token_embeddings, Tensor) else token_embeddings[0]
    for name, value in ("token_embeddings", vectors), ("attention_mask", attention_mask):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: found {type(value).__name__}, expected a torch.Tensor.")
    if vectors.dim() != 3 or attention_mask.shape != vectors.shape[:2]:
        raise ValueError(
            f"found token embeddings {list(vectors.shape)} and a mask {list(attention_mask.shape)}, "
            "expected [batch, length, hidden] and [batch, length]."
        )
    if mode not in POOLING_MODES:
        raise ValueError(f"mode: found {mode!r}, expected one of {', '.join(POOLING_MODES)}.")
    return pool(vectors, attention_mask.to(vectors.dtype), (mode,))
