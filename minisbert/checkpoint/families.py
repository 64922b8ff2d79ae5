"""The weight-name mapper: from the hub's names to ours, and back.

`HUB_NAMES` is the whole translation. The historical names:

    bert.…                    the prefix of checkpoints saved with a head on top (BertForMaskedLM and the like)
    LayerNorm.gamma, .beta    the names of TensorFlow's BERT for weight and bias, kept by the first PyTorch ports
    query, key, value         three layers there, one fused layer here: one product instead of three
"""

from __future__ import annotations

import re

from torch import Tensor

from minisbert.bert import Bert, BertConfig

# (names on the hub, our name). {n} is a layer, {p} is weight or bias. Several names: stacked along the first axis, in this order.
HUB_NAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("embeddings.word_embeddings.weight",), "embeddings.word.weight"),
    (("embeddings.position_embeddings.weight",), "embeddings.position.weight"),
    (("embeddings.token_type_embeddings.weight",), "embeddings.token_type.weight"),
    (("embeddings.LayerNorm.{p}",), "embeddings.norm.{p}"),
    (
        (
            "encoder.layer.{n}.attention.self.query.{p}",
            "encoder.layer.{n}.attention.self.key.{p}",
            "encoder.layer.{n}.attention.self.value.{p}",
        ),
        "layers.{n}.attention.qkv.{p}",
    ),
    (("encoder.layer.{n}.attention.output.dense.{p}",), "layers.{n}.attention.out.{p}"),
    (("encoder.layer.{n}.attention.output.LayerNorm.{p}",), "layers.{n}.attention_norm.{p}"),
    (("encoder.layer.{n}.intermediate.dense.{p}",), "layers.{n}.feed_forward.up.{p}"),
    (("encoder.layer.{n}.output.dense.{p}",), "layers.{n}.feed_forward.down.{p}"),
    (("encoder.layer.{n}.output.LayerNorm.{p}",), "layers.{n}.feed_forward_norm.{p}"),
)

# What else lies in published files, and why a sentence vector does not need it. Anything else that is unused is named in a warning.
IGNORED: tuple[tuple[str, str], ...] = (
    (r"embeddings\.position_ids", "the numbers 0, 1, 2 …, saved by old versions of transformers"),
    (r"embeddings\.token_type_ids", "zeros, saved likewise"),
    (r"pooler\..*", "the next-sentence head's input, a layer on top of [CLS] that sentence vectors do not use"),
    (r"cls\..*", "the masked-word and next-sentence heads of pre-training"),
    (r"classifier\..*", "a classification head"),
    (r"qa_outputs\..*", "a question-answering head"),
)


def names(config: BertConfig) -> dict[str, tuple[str, ...]]:
    """`TABLE` written out for a model of that many layers: our name → the names on the hub."""
    table = {}
    for theirs, ours in HUB_NAMES:
        for layer in range(config.num_hidden_layers) if "{n}" in ours else [0]:
            for part in ("weight", "bias") if "{p}" in ours else [""]:
                table[ours.format(n=layer, p=part)] = tuple(name.format(n=layer, p=part) for name in theirs)
    return table


def to_hub_names(bert: Bert) -> dict[str, Tensor]:
    """The weights under the hub's names, q/k/v split again: what transformers' `BertModel.load_state_dict` takes."""
    state = bert.state_dict()
    return {
        name: part
        for ours, theirs in names(bert.config).items()
        for name, part in zip(theirs, state[ours].chunk(len(theirs)), strict=True)
    }


def current_name(name: str) -> str:
    """A name of any era as the hub writes it today.

    >>> current_name("bert.embeddings.LayerNorm.gamma")
    'embeddings.LayerNorm.weight'
    """
    name = name.removeprefix("bert.")
    return re.sub(r"LayerNorm\.(gamma|beta)$", lambda old: "LayerNorm." + {"gamma": "weight", "beta": "bias"}[old[1]], name)


def is_ignored(name: str) -> bool:
    """Whether a tensor of this name is known and not needed; see `IGNORED`."""
    return any(re.fullmatch(pattern, name) for pattern, _ in IGNORED)
