"""Pooling: from the token vectors of a sentence to one sentence vector. Below it, the modules that a checkpoint may have after it.

The usual mode is the masked mean, sum of x · mask over sum of mask: `mean_pooling`, the function of the model cards. All modes but
`max` are weighted sums of the token vectors, so a mode is defined by its weights:

    mean                   1/n for each of the n tokens                    Reimers & Gurevych 2019, section 3
    mean_sqrt_len_tokens   1/√n for each
    weightedmean           i/(1+2+…+n) for the i-th token: in a decoder,   Muennighoff 2022, "SGPT", section 3
                           later tokens have attended to more
    cls                    1 for the first token, 0 for the others         Devlin et al. 2019, section 3
    lasttoken              1 for the last token, 0 for the others
    max                    no weights: the largest value in each dimension

Notation as in `bert.py`; `dim` is the dimension of a sentence vector: hidden × number of modes, unless a module changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POOLING_MODES: Final = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""The modes, in the order in which a checkpoint's booleans concatenate them. A checkpoint's list has an order of its own."""


def mean_pooling(token_embeddings: Tensor | Sequence[Tensor], attention_mask: Tensor, mode: str = "mean") -> Tensor:
    """The masked mean Σ x · mask / Σ mask of the token vectors: the function of this name in the model cards of the hub.

    Args:
        token_embeddings: [batch, length, hidden], or a tuple or model output whose first element is that.
        attention_mask: [batch, length] of 0 and 1 (any dtype). A row of zeros gives a zero vector.
        mode: "mean", or another of "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken".

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


def pool(token_vectors: Tensor, mask: Tensor, modes: Sequence[str], prompt_tokens: int = 0) -> Tensor:
    """[sentences, length, hidden] and a mask [sentences, length] of 0 and 1 → [sentences, dim], the results of all modes."""
    pooled = []
    for mode in modes:
        if mode == "max":
            kept = kept_tokens(mask, prompt_tokens)
            largest = token_vectors.masked_fill(kept[..., None] == 0, -torch.inf).amax(dim=1)
            pooled.append(largest.masked_fill(kept.sum(dim=1, keepdim=True) == 0, 0))
        else:
            pooled.append((token_vectors * token_weights(mode, mask, prompt_tokens)[..., None]).sum(dim=1))
    return torch.cat(pooled, dim=1)


def token_weights(mode: str, mask: Tensor, prompt_tokens: int = 0) -> Tensor:
    """The weight of each token: mask [sentences, length] of 0 and 1 → [sentences, length]. A row without tokens gets zeros.

    Args:
        mode: any of `POOLING_MODES` but "max".
        mask: 1 where there is a token, 0 for padding.
        prompt_tokens: how many tokens at the start get weight 0, because they belong to a prompt. Positions still count from the
            first token of all, which matters for "weightedmean". If no other token is left, "cls" takes the first of all.

    >>> token_weights("mean", torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    tensor([[0.5000, 0.5000, 0.0000, 0.0000]])
    >>> token_weights("weightedmean", torch.tensor([[1.0, 1.0, 1.0, 1.0]]), prompt_tokens=2)
    tensor([[0.0000, 0.0000, 0.4286, 0.5714]])
    """
    kept = kept_tokens(mask, prompt_tokens)
    if mode == "cls":
        some = torch.where(kept.sum(dim=1, keepdim=True) > 0, kept, mask)
        return some * (some.cumsum(dim=1) == 1)
    if mode == "lasttoken":
        return kept * (kept.flip(1).cumsum(dim=1).flip(1) == 1)
    if mode == "weightedmean":
        weights = kept * _positions(mask)
        return weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
    count = kept.sum(dim=1, keepdim=True).clamp(min=1)
    return kept / (count if mode == "mean" else count.sqrt())


def kept_tokens(mask: Tensor, prompt_tokens: int) -> Tensor:
    """The mask without `prompt_tokens` positions, counted from the first token: [sentences, length] → same shape.

    >>> kept_tokens(torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]]), prompt_tokens=2)
    tensor([[0, 0, 0, 1],
            [0, 0, 1, 1]])
    """
    return mask * (_positions(mask) > prompt_tokens) if prompt_tokens else mask


def _positions(mask: Tensor) -> Tensor:
    """Positions 1, 2, 3 … that begin at the first token: [sentences, length]. Padding before it has values below 1."""
    first = mask.cumsum(dim=1).eq(0).sum(dim=1, keepdim=True)
    return torch.arange(1, mask.shape[1] + 1, device=mask.device) - first


@dataclass(frozen=True)
class PoolingConfig:
    """How token vectors become the sentence vector; the results of several modes are concatenated."""

    dimension: int
    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True


class Pooling(nn.Module):
    """Pools packed tokens, one length group at a time: [tokens, hidden] → [sentences, dim].

    A group is a block [sentences, length, hidden] without padding, so its mask is all ones.
    """

    def __init__(self, config: PoolingConfig) -> None:
        super().__init__()
        self.modes = config.modes
        self.include_prompt = config.include_prompt
        self.dimension = config.dimension * len(config.modes)

    def forward(self, token_vectors: Tensor, groups: Sequence[tuple[int, int]], prompt_tokens: int = 0) -> Tensor:
        rows = []
        start = 0
        for sentences, length in groups:
            stop = start + sentences * length
            mask = token_vectors.new_ones(1, length)
            rows.append(pool(token_vectors[start:stop].view(sentences, length, -1), mask, self.modes, prompt_tokens))
            start = stop
        return torch.cat(rows)


def vector_dtype_of(dtype: torch.dtype) -> torch.dtype:
    """The dtype of pooling and of sentence vectors: float32 for a model in half precision, because it sums hundreds of tokens."""
    return torch.float64 if dtype == torch.float64 else torch.float32


# The modules after the pooling


@dataclass(frozen=True)
class DenseConfig:
    """A layer on the sentence vector: activation(W x + b), plus x or a linear map of x if `residual` is true.

    Attributes:
        folder: where its weights are inside the checkpoint.
        activation: a name of `ACTIVATIONS`.
    """

    folder: str
    in_features: int
    out_features: int
    bias: bool = True
    activation: str = "Tanh"
    residual: bool = False


@dataclass(frozen=True)
class LayerNormConfig:
    """A layer norm on the sentence vector, with weights in `folder`."""

    folder: str
    dimension: int


@dataclass(frozen=True)
class NormalizeConfig:
    """Scales the sentence vector to length 1."""


ModuleConfig = DenseConfig | LayerNormConfig | NormalizeConfig
"""A post-pooling module."""

ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {
    name: getattr(nn, name)
    for name in (
        *("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "LogSigmoid"),
        *("Mish", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink"),
    )
}
"""The activations that a dense layer may have: the elementwise classes of torch.nn that need no argument."""


class Dense(nn.Module):
    """A layer on the sentence vector, often to reduce its dimension: [sentences, in] → [sentences, out].

    Here and in `LayerNorm`, parameters have the names of the checkpoint.
    """

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.in_features, config.out_features, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]()
        self.residual: nn.Module | None = None
        if config.residual:
            same = config.in_features == config.out_features
            self.residual = nn.Identity() if same else nn.Linear(config.in_features, config.out_features, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        out: Tensor = self.activation(self.linear(vectors))
        if self.residual is not None:
            out = out + self.residual(vectors)
        return out  # [sentences, out]


class LayerNorm(nn.Module):
    """A layer norm on the sentence vector, [sentences, dim]. ε is PyTorch's default, because checkpoints do not state it."""

    def __init__(self, config: LayerNormConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dimension)

    def forward(self, vectors: Tensor) -> Tensor:
        out: Tensor = self.norm(vectors)
        return out


class Normalize(nn.Module):
    """Scales each vector to length 1, and leaves a zero vector unchanged: [sentences, dim]."""

    def forward(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors)


def build_modules(configs: Sequence[ModuleConfig]) -> nn.Sequential:
    """The post-pooling modules, in order, with weights still to be loaded."""
    kinds: dict[type, Callable[[Any], nn.Module]] = {
        DenseConfig: Dense,
        LayerNormConfig: LayerNorm,
        NormalizeConfig: lambda _: Normalize(),
    }
    return nn.Sequential(*(kinds[type(config)](config) for config in configs))


def width(pooling: PoolingConfig, modules: Sequence[ModuleConfig]) -> int:
    """The dimension of a sentence vector after the pooling and these modules."""
    dimension = pooling.dimension * len(pooling.modes)
    for module in modules:
        if isinstance(module, DenseConfig):
            dimension = module.out_features
    return dimension
