"""The weight-name mapper. Each model family has a table from the hub's names of its weights to ours.

A family is a model with BERT's arithmetic, whose weights and settings may have other names. It is data: one row of `FAMILIES`
states these names, where positions begin, whether there are token types, and the default tokenizer. A new family needs a row and
a test (CONTRIBUTING.md).

The tables are used in both directions, for loading and for saving. Historical names:

    bert.…                    the prefix in checkpoints that were saved with a head on top (BertForMaskedLM and the like)
    LayerNorm.gamma, .beta    TensorFlow's names for weight and bias, which the first PyTorch ports kept
    query, key, value         three layers in the checkpoint, one fused layer here: one product instead of three
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor

from minisbert.bert import ACTIVATIONS, Bert, BertConfig
from minisbert.checkpoint.fields import LARGEST_WIDTH, Fields, brief, refuse_remote_code

MOST_LAYERS: Final = 1 << 10

Names = tuple[tuple[tuple[str, ...], str], ...]
"""Rows of (names on the hub, our name). {n} is the index of a layer, {p} is weight or bias.
If a row has several names on the hub, their tensors are concatenated along the first axis, in this order."""

HUB_NAMES: Names = (
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

MPNET_NAMES: Names = (
    (("embeddings.word_embeddings.weight",), "embeddings.word.weight"),
    (("embeddings.position_embeddings.weight",), "embeddings.position.weight"),
    (("embeddings.LayerNorm.{p}",), "embeddings.norm.{p}"),
    (("encoder.relative_attention_bias.weight",), "relative_bias.table.weight"),
    (
        (
            "encoder.layer.{n}.attention.attn.q.{p}",
            "encoder.layer.{n}.attention.attn.k.{p}",
            "encoder.layer.{n}.attention.attn.v.{p}",
        ),
        "layers.{n}.attention.qkv.{p}",
    ),
    (("encoder.layer.{n}.attention.attn.o.{p}",), "layers.{n}.attention.out.{p}"),
    (("encoder.layer.{n}.attention.LayerNorm.{p}",), "layers.{n}.attention_norm.{p}"),
    (("encoder.layer.{n}.intermediate.dense.{p}",), "layers.{n}.feed_forward.up.{p}"),
    (("encoder.layer.{n}.output.dense.{p}",), "layers.{n}.feed_forward.down.{p}"),
    (("encoder.layer.{n}.output.LayerNorm.{p}",), "layers.{n}.feed_forward_norm.{p}"),
)

DISTILBERT_NAMES: Names = (
    (("embeddings.word_embeddings.weight",), "embeddings.word.weight"),
    (("embeddings.position_embeddings.weight",), "embeddings.position.weight"),
    (("embeddings.LayerNorm.{p}",), "embeddings.norm.{p}"),
    (
        (
            "transformer.layer.{n}.attention.q_lin.{p}",
            "transformer.layer.{n}.attention.k_lin.{p}",
            "transformer.layer.{n}.attention.v_lin.{p}",
        ),
        "layers.{n}.attention.qkv.{p}",
    ),
    (("transformer.layer.{n}.attention.out_lin.{p}",), "layers.{n}.attention.out.{p}"),
    (("transformer.layer.{n}.sa_layer_norm.{p}",), "layers.{n}.attention_norm.{p}"),
    (("transformer.layer.{n}.ffn.lin1.{p}",), "layers.{n}.feed_forward.up.{p}"),
    (("transformer.layer.{n}.ffn.lin2.{p}",), "layers.{n}.feed_forward.down.{p}"),
    (("transformer.layer.{n}.output_layer_norm.{p}",), "layers.{n}.feed_forward_norm.{p}"),
)

Switches = tuple[tuple[str, object, str], ...]
"""Rows of (field of config.json, the one value that minisbert computes, why)."""

ONLY: Switches = (
    ("is_decoder", False, "minisbert is an encoder, in which every token attends to every other"),
    ("is_encoder_decoder", False, "minisbert is an encoder without a decoder"),
    ("add_cross_attention", False, "minisbert is an encoder, without a second sequence to attend to"),
    ("position_embedding_type", "absolute", "minisbert has no other position embeddings"),
    ("pruned_heads", {}, "minisbert has no layers of unequal numbers of heads"),
    ("quantization_config", None, "minisbert reads plain weights"),
)


@dataclass(frozen=True)
class Family:
    """One family's names for BERT's fields and weights, and the values that are the same in all its models.

    Attributes:
        name: the name used in messages.
        classes: the beginning of its class names: "Bert" for BertModel, BertForMaskedLM and so on.
        prefix: the prefix of weights that were saved with a head on top.
        tokenizer: the class of its tokenizer if no file names one.
        weights: the names of its weights.
        keys: our field of `BertConfig` → its name in this family's config.json, if that differs.
        fixed: the fields of `BertConfig` that are the same in all its models. If config.json has such a field, it must agree.
        pad_before_positions: whether positions begin at `pad_token_id` + 1, and padding tokens do not count.
        beside: files for other outputs, which minisbert does not compute; a warning names them.
        only: as `ONLY`, for this family; "hidden_size" stands for the value of that field.
    """

    name: str
    classes: str
    prefix: str
    tokenizer: str = "BertTokenizer"
    weights: Names = HUB_NAMES
    keys: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    pad_before_positions: bool = False
    beside: tuple[str, ...] = ()
    only: Switches = ()


FAMILIES: dict[str, Family] = {
    "bert": Family("BERT", "Bert", "bert."),
    "roberta": Family("RoBERTa", "Roberta", "roberta.", "RobertaTokenizer", pad_before_positions=True),
    "xlm-roberta": Family(
        "XLM-RoBERTa",
        "XLMRoberta",
        "roberta.",
        "XLMRobertaTokenizer",
        pad_before_positions=True,
        beside=("sparse_linear.pt", "colbert_linear.pt"),  # of bge-m3
    ),
    "camembert": Family("CamemBERT", "Camembert", "roberta.", "CamembertTokenizer", pad_before_positions=True),
    "mpnet": Family(
        "MPNet",
        "MPNet",
        "mpnet.",
        "MPNetTokenizer",
        MPNET_NAMES,
        # Fixed in transformers: 1 is the padding token, and 32 the number of buckets, whatever config.json says.
        fixed={"type_vocab_size": 0, "position_offset": 2, "relative_attention_num_buckets": 32},
    ),
    "distilbert": Family(
        "DistilBERT",
        "DistilBert",
        "distilbert.",
        weights=DISTILBERT_NAMES,
        keys={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
        },
        fixed={"type_vocab_size": 0, "layer_norm_eps": 1e-12},
    ),
    "electra": Family(
        "ELECTRA",
        "Electra",
        "electra.",
        only=(("embedding_size", "hidden_size", "minisbert has no projection from a smaller embedding"),),
    ),
    "ernie": Family("ERNIE", "Ernie", "ernie.", only=(("use_task_id", False, "minisbert has no embeddings of tasks"),)),
}
"""By the `model_type` of config.json."""

# Other architectures of sentence encoders, by the `model_type` of config.json, so that the error can name them.
OTHER_ARCHITECTURES: Final = {
    "albert": "ALBERT",
    "bart": "BART",
    "bert-generation": "BERT for generation",
    "big_bird": "BigBird",
    "clip": "CLIP",
    "convbert": "ConvBERT",
    "deberta": "DeBERTa",
    "deberta-v2": "DeBERTa v2",
    "eurobert": "EuroBERT",
    "gemma3_text": "Gemma",
    "gpt2": "GPT-2",
    "gpt_neo": "GPT-Neo",
    "llama": "Llama",
    "longformer": "Longformer",
    "luke": "LUKE",
    "megatron-bert": "Megatron-BERT",
    "mistral": "Mistral",
    "mobilebert": "MobileBERT",
    "modernbert": "ModernBERT",
    "new": "NewModel of GTE v1.5",
    "nomic_bert": "NomicBERT",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "roformer": "RoFormer",
    "squeezebert": "SqueezeBERT",
    "t5": "T5",
    "xlnet": "XLNet",
    "xlm": "XLM",
}


# Tensors of published checkpoints that a sentence vector does not need, and why. A warning names any other unused tensor.
IGNORED: tuple[tuple[str, str], ...] = (
    (r"embeddings\.position_ids", "the positions 0, 1, 2 …, saved by old versions of transformers"),
    (r"embeddings\.token_type_ids", "zeros, saved by old versions of transformers"),
    (r"pooler\..*", "the next-sentence head's input, a layer on top of [CLS] that sentence vectors do not use"),
    (r"cls\..*", "the masked-word and next-sentence heads of pre-training"),
    (r"classifier\..*", "a classification head"),
    (r"qa_outputs\..*", "a question-answering head"),
    (r"lm_head\..*|vocab_(transform|layer_norm|projector)\..*", "the masked-word heads of RoBERTa, MPNet and DistilBERT"),
    (r"pre_classifier\..*", "a layer before the classification head of DistilBERT"),
    (r"(discriminator|generator)_\w+\..*", "the heads of ELECTRA's pre-training"),
)


def read_bert_config(fields: Fields, load_warnings: list[str]) -> BertConfig:
    """Reads `config.json`: every setting that changes the result is either applied or refused."""
    model_type, family = _family(fields, load_warnings)
    refuse_remote_code(fields)
    for name, expected, why in ONLY + family.only:
        value = fields.values.get("hidden_size") if expected == "hidden_size" else expected
        fields.must_be(name, value, f"{why}; load this checkpoint with transformers.")

    def key(name: str) -> str:
        """The family's name for a field of `BertConfig`. If config.json also has our name, the values must agree."""
        key = family.keys.get(name, name)
        fields.must_be(name, fields.values.get(key), f"{family.name} has it in {key!r}. Remove one of the two.")
        return key

    sizes: dict[str, Any] = {
        "vocab_size": fields.integer("vocab_size", maximum=1 << 24),
        "hidden_size": fields.integer(key("hidden_size"), maximum=LARGEST_WIDTH),
        "num_hidden_layers": fields.integer(key("num_hidden_layers"), maximum=MOST_LAYERS),
        "num_attention_heads": fields.integer(key("num_attention_heads"), maximum=LARGEST_WIDTH),
        "intermediate_size": fields.integer(key("intermediate_size")),
        "max_position_embeddings": fields.integer("max_position_embeddings"),
        "hidden_act": fields.choice(key("hidden_act"), list(ACTIVATIONS), default=BertConfig.hidden_act),
    }
    if sizes["hidden_size"] % sizes["num_attention_heads"]:
        fields.refuse(
            key("num_attention_heads"),
            f"a divisor of {key('hidden_size')}, which is {sizes['hidden_size']}",
            "Every head takes an equal share of it. Correct one of the two.",
        )
    for name in "hidden_dropout_prob", "attention_probs_dropout_prob":
        sizes[name] = fields.below_one(key(name), default=getattr(BertConfig, name), zero=True)
    for name, value in family.fixed.items():
        fields.must_be(name, value, f"{family.name} has no other; take an unchanged copy.")
    if "type_vocab_size" not in family.fixed:
        sizes["type_vocab_size"] = fields.integer("type_vocab_size", default=BertConfig.type_vocab_size)
    if "layer_norm_eps" not in family.fixed:
        sizes["layer_norm_eps"] = fields.below_one("layer_norm_eps", default=BertConfig.layer_norm_eps, zero=False)
    if family.pad_before_positions:
        sizes["position_offset"] = fields.integer("pad_token_id", minimum=0, maximum=sizes["vocab_size"] - 1) + 1
    return BertConfig(**sizes, **family.fixed, model_type=model_type)


def _family(fields: Fields, load_warnings: list[str]) -> tuple[str, Family]:
    """The model_type and its row. If there is no model_type, the class names in `architectures` decide."""
    architectures = fields.values.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        fields.refuse("architectures", "a list of class names")
    by_class = next((t for t, row in FAMILIES.items() if any(name.startswith(row.classes) for name in architectures)), None)
    model_type = fields.values.get("model_type", by_class)
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = OTHER_ARCHITECTURES.get(model_type) if isinstance(model_type, str) else None
        fields.refuse(
            "model_type",
            "one of " + ", ".join(FAMILIES),
            (f"This is {known}, another architecture" if known else "minisbert knows no other")
            + "; load this checkpoint with sentence-transformers or transformers.",
        )
    family = FAMILIES[model_type]
    if architectures and not any(name.startswith(family.classes) for name in architectures):
        load_warnings.append(
            f"{fields.file}: architectures is {brief(architectures)}, but model_type is {model_type}; it is taken as {family.name}"
        )
    return model_type, family


def source_of(name: str, config: BertConfig, fields: Fields) -> str:
    """Where the value of a field of `BertConfig` comes from: config.json, the family, or the default."""
    family = FAMILIES[config.model_type]
    if name in family.fixed:
        return f"every {family.name}"
    return fields.source("pad_token_id" if name == "position_offset" else family.keys.get(name, name))


def to_hub_config(config: BertConfig) -> dict[str, Any]:
    """The values of `config.json` under the family's names, without the family's fixed values."""
    family = FAMILIES[config.model_type]
    values: dict[str, Any] = {"architectures": [f"{family.classes}Model"]}
    derived = ("position_offset", "relative_attention_num_buckets")
    values |= {family.keys.get(name, name): value for name, value in vars(config).items() if name not in (*derived, *family.fixed)}
    if family.pad_before_positions:
        values["pad_token_id"] = config.position_offset - 1
    if "relative_attention_num_buckets" in family.fixed:
        values["relative_attention_num_buckets"] = config.relative_attention_num_buckets
    values |= {name: config.hidden_size if value == "hidden_size" else value for name, value, _ in family.only}
    return values


def names(config: BertConfig) -> dict[str, tuple[str, ...]]:
    """The family's table written out for all layers: our name → the names on the hub."""
    table = {}
    for theirs, ours in FAMILIES[config.model_type].weights:
        for layer in range(config.num_hidden_layers):  # a row without {n} or {p} gives the same name each time
            for part in "weight", "bias":
                table[ours.format(n=layer, p=part)] = tuple(name.format(n=layer, p=part) for name in theirs)
    return table


def to_hub_names(bert: Bert) -> dict[str, Tensor]:
    """The weights under the hub's names, with query, key and value split again, as transformers' model of the family loads them."""
    state = bert.state_dict()
    return {
        name: state[ours].chunk(len(theirs))[place]
        for ours, theirs in names(bert.config).items()
        for place, name in enumerate(theirs)
    }


def current_name(name: str, prefix: str = "bert.") -> str:
    """The current name on the hub for a current or historical name.

    >>> current_name("bert.embeddings.LayerNorm.gamma")
    'embeddings.LayerNorm.weight'
    """
    name = name.removeprefix(prefix)
    return re.sub(r"LayerNorm\.(gamma|beta)$", lambda old: "LayerNorm." + {"gamma": "weight", "beta": "bias"}[old[1]], name)


def is_superfluous(name: str, config: BertConfig) -> bool:
    """Whether another family has a tensor of this name, such as token types, but the config's family has not."""
    own = {theirs for theirs, _ in FAMILIES[config.model_type].weights}
    return any((name,) in {theirs for theirs, _ in family.weights} - own for family in FAMILIES.values())


def is_ignored(name: str) -> bool:
    """Whether a tensor of this name is in `IGNORED`."""
    return any(re.fullmatch(pattern, name) for pattern, _ in IGNORED)
