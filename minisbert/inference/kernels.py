"""The matrix products of `bert.py`, done by oneDNN: on x86 processors, in float32.

PyTorch multiplies float32 matrices with MKL, unless one asks for oneDNN, which comes with it. Asked for, it stores a weight in
blocks, in the order in which its inner loop reads them, and applies GELU to each tile of the result while that is in the cache.
What this gains (2 cores, 1,536 tokens; more in scripts/benchmark/README.md, "Tried and dropped"):

    a tenth of the time of every product; with GELU, a tenth at 1,536 numbers a token, and a third at 3,072
    a row has the same bits in any batch of two rows or more, for any number of threads

The model stays the one in `bert.py`. Its layers `nn.Linear` are exchanged for these, one for one, after the weights were loaded;
the activation that follows one of them becomes part of it.
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minisbert.bert import Bert, Layer


def suits(bert: Bert) -> bool:
    """Whether this is a model, a machine and a PyTorch for it: float32, on the processor, x86, built with oneDNN."""
    weight = bert.embeddings.word.weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def use_onednn(bert: Bert) -> None:
    """Exchanges every `nn.Linear` of a model that suits for an `OneDNNLinear`. One weight at a time stands in memory twice."""
    for layer in cast("Iterable[Layer]", bert.layers):
        attention, feed_forward = layer.attention, layer.feed_forward
        attention.qkv = OneDNNLinear(attention.qkv)
        attention.out = OneDNNLinear(attention.out)
        exact_gelu = feed_forward.activation is F.gelu
        feed_forward.up = OneDNNLinear(feed_forward.up, gelu=exact_gelu)
        feed_forward.down = OneDNNLinear(feed_forward.down)
        if exact_gelu:
            feed_forward.activation = _done_already


def _done_already(x: Tensor) -> Tensor:
    return x


class OneDNNLinear(nn.Linear):
    """x Wᵀ + b, then perhaps GELU, in one call: [tokens, in] → [tokens, out].

    Attributes:
        weight: [out, in], in oneDNN's own layout; `weight.to_dense()` is the matrix.
        bias: [out].
        gelu: whether GELU follows (the exact one, with the error function).
    """

    def __init__(self, linear: nn.Linear, *, gelu: bool = False) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.gelu = gelu
        blocked = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.weight = nn.Parameter(blocked, requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        activation, algorithm = ("gelu", "none") if self.gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, activation, [], algorithm)

    def __deepcopy__(self, memo: dict[int, Any]) -> OneDNNLinear:
        plain = nn.Linear(self.in_features, self.out_features, device="meta")
        plain.weight = nn.Parameter(self.weight.to_dense(), requires_grad=False)
        plain.bias = copy.deepcopy(self.bias, memo)
        return OneDNNLinear(plain, gelu=self.gelu)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:  # noqa: FBT001
        """What `state_dict` gives is the matrix, in the layout that everyone knows."""
        destination[f"{prefix}weight"] = self.weight.detach().to_dense()
        destination[f"{prefix}bias"] = self.bias if keep_vars else self.bias.detach()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, gelu={self.gelu}"
