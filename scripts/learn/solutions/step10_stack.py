"""Step 10, solved."""

from __future__ import annotations

from typing import Any

from step03_embeddings import embed
from step04_layer_norm import layer_norm
from step09_layer import layer
from torch import Tensor


def bert(ids: Tensor, w: dict[str, Tensor], config: dict[str, Any]) -> list[Tensor]:
    """The states of one sentence: after the embeddings, and after every layer."""
    eps = config["layer_norm_eps"]
    tables = (w[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type"))
    x = layer_norm(embed(ids, *tables), w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], eps)
    states = [x]
    for n in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{n}."
        own = {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}
        x = layer(x, own, config["num_attention_heads"], eps)
        states.append(x)
    return states
