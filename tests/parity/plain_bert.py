"""BERT as the paper tells it, padded and plain: a second opinion that shares no line with minisbert.

`w` is what model.safetensors holds, tensor by tensor under the hub's names, and `config` is what config.json says. A batch is
[sentences, tokens]: shorter sentences are padded. That no token looks at the padding is a matter of adding −∞ to
its score, since e^−∞ = 0; a sentence of nothing but padding comes out as NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def plain_bert(w: Mapping[str, Tensor], config: Mapping[str, Any], ids: Tensor, mask: Tensor, types: Tensor) -> list[Tensor]:
    """Three times [batch, length] → the output of the embeddings and of every layer, each [batch, length, hidden]."""
    heads, eps, act = config["num_attention_heads"], config["layer_norm_eps"], ACTIVATIONS[config["hidden_act"]]
    word, position, token_type = (w[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type"))
    bias = torch.zeros(mask.shape, dtype=word.dtype).masked_fill(mask == 0, -torch.inf)[:, None, None]  # [batch, 1, 1, length]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def split(x: Tensor) -> Tensor:  # [batch, length, hidden] → [batch, heads, length, head_dim]
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def attention(x: Tensor, name: str) -> Tensor:
        query, key, value = (split(linear(x, f"{name}.{part}")) for part in ("query", "key", "value"))
        scores = query @ key.mT / math.sqrt(query.shape[-1]) + bias  # [batch, heads, length, length]
        return (scores.softmax(-1) @ value).transpose(1, 2).flatten(-2)

    x = norm(word[ids] + position[: ids.shape[1]] + token_type[types], "embeddings.LayerNorm")
    states = [x]
    for n in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{n}"
        attended = linear(attention(x, f"{layer}.attention.self"), f"{layer}.attention.output.dense")
        x = norm(x + attended, f"{layer}.attention.output.LayerNorm")
        transformed = linear(act(linear(x, f"{layer}.intermediate.dense")), f"{layer}.output.dense")
        x = norm(x + transformed, f"{layer}.output.LayerNorm")
        states.append(x)
    return states


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def gelu_by_tanh(x: Tensor) -> Tensor:
    return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": gelu_by_tanh,
    "gelu_pytorch_tanh": gelu_by_tanh,
    "relu": lambda x: x.clamp(min=0),
    "silu": lambda x: x / (1 + torch.exp(-x)),
}
