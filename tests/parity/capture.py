"""What happens inside: the output of the embeddings and of every layer, each [batch, length, hidden], on either side."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from minisbert import Bert


class Batch(NamedTuple):
    """What a BERT is given, three times [batch, length]."""

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor


def minisbert_states(bert: Bert, batch: Batch) -> list[Tensor]:
    """minisbert's, seen from outside with hooks on the model as everybody uses it; zeros where the mask is 0.

    Inside, the tokens are packed: [tokens, hidden]. The model itself tells the place of each in the padded batch: the last
    layer's output is noted and then replaced by the numbers 1, 2, 3 … of the tokens, which `Bert.forward` moves to their places.
    """
    packed: list[Tensor] = []

    def note(_module: nn.Module, _arguments: tuple[object, ...], output: Tensor) -> None:
        packed.append(output)

    def number(_module: nn.Module, _arguments: tuple[object, ...], output: Tensor) -> Tensor:
        return torch.arange(1, len(output) + 1, dtype=output.dtype)[:, None].expand_as(output)

    with ExitStack() as hooks:
        for module in (bert.embeddings, *bert.layers):
            hooks.callback(module.register_forward_hook(note).remove)
        hooks.callback(bert.layers[-1].register_forward_hook(number).remove)
        place = bert(*batch)[..., 0].long()  # [batch, length]; 0 where nothing was computed
    nothing = torch.zeros_like(packed[0][:1])
    return [torch.cat([nothing, tokens])[place] for tokens in packed]


def transformers_states(model: PreTrainedModel, batch: Batch) -> list[Tensor]:
    """transformers'; where the mask is 0, whatever it leaves there."""
    given = batch._asdict()
    if not hasattr(model.config, "type_vocab_size"):  # MPNet and DistilBERT have no token types
        del given["token_type_ids"]
    with torch.inference_mode():
        return list(model(**given, output_hidden_states=True).hidden_states)
