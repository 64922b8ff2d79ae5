"""What a checkpoint's json files say, read strictly.

Nothing here is guessed. A field is either right, or absent with a default that the reference (transformers,
sentence-transformers) has too, or it raises a `CheckpointError` that names the file, the field, what was found, what was
expected, and what to do.

A checkpoint in the hub's layout:

    modules.json                        the chain of modules: Transformer, Pooling, perhaps Dense, LayerNorm, Normalize
    config.json                         the sizes of BERT
    sentence_bert_config.json           the limit in tokens, and whether to lower-case the text first
    tokenizer_config.json               the settings of the tokenizer
    1_Pooling/config.json               how token vectors become one sentence vector
    2_Dense/config.json                 a layer on top of the sentence vector, with weights beside it
    config_sentence_transformers.json   prompts, the number of dimensions to keep, how vectors are compared
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, NoReturn, TypeVar

from minisbert.errors import CheckpointError

Find = Callable[[str], "Path | None"]
"""Given a file's path inside a checkpoint, where it lies on this machine, or None if the checkpoint has no such file."""

Choice = TypeVar("Choice", bound=str)

# Far above every published BERT. A larger number is a broken or hostile file, and must not reserve any memory.
LARGEST_SIZE: Final = 1 << 20
LARGEST_WIDTH: Final = 1 << 16
MOST_MODULES: Final = 1 << 6
MOST_LAYERS: Final = 1 << 10
LARGEST_JSON: Final = 64 << 20  # bytes

ACTIVATIONS: Final = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")

LEAST_LIMIT: Final = 3
"""[CLS], one word piece, [SEP]."""

POOLING_MODES: Final = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""In the order in which modes that are given as booleans are concatenated; a list of modes has its own."""

SIMILARITY_FUNCTIONS: Final = ("cosine", "dot", "euclidean", "manhattan")

EVERY_MODELS_PROMPTS: Final = {"query": "", "document": ""}
"""What encode_query and encode_document put before a text when the checkpoint has nothing for them, as in sentence-transformers."""

DENSE_ACTIVATIONS: Final = (
    "CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "LogSigmoid", "Mish",
    "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink",
)  # fmt: skip
"""The classes of torch.nn that work on each number by itself and need no argument."""

_REQUIRED: Final = object()

DEFAULT: Final = "the default"


@dataclass(frozen=True)
class BertConfig:
    """The sizes and switches of one BERT encoder, under the names of `config.json`.

    Source: Devlin et al. 2019, section 3 ("Model Architecture"), where L, H and A are `num_hidden_layers`, `hidden_size` and
    `num_attention_heads`.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise CheckpointError(
                f"config.json: hidden_size {self.hidden_size} is not divisible by num_attention_heads "
                f"{self.num_attention_heads}, but every head takes an equal share of it. Correct one of the two."
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class PoolingConfig:
    """Which token vectors make the sentence vector; the results of several modes are concatenated."""

    dimension: int
    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True


@dataclass(frozen=True)
class DenseConfig:
    """A layer on the sentence vector: activation(W x + b), plus x itself where `residual` says so.

    Attributes:
        folder: where its weights lie inside the checkpoint.
        activation: a name of `DENSE_ACTIVATIONS`.
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
    """The sentence vector is scaled to length 1."""


HeadConfig = DenseConfig | LayerNormConfig | NormalizeConfig
"""A module after the pooling."""


@dataclass(frozen=True)
class WordPieceConfig:
    """The settings of the tokenizer, under the names of `tokenizer_config.json`. None: the file does not say."""

    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None
    model_max_length: int | None = None
    truncation_side: str | None = None
    unk_token: str = "[UNK]"
    cls_token: str = "[CLS]"
    sep_token: str = "[SEP]"
    pad_token: str = "[PAD]"
    mask_token: str = "[MASK]"
    tokenizer_class: str | None = None


@dataclass(frozen=True)
class UsageConfig:
    """How the vectors are meant to be asked for and compared: `config_sentence_transformers.json`.

    Attributes:
        prompts: texts to put before a sentence, by name.
        default_prompt_name: the prompt that holds where none is asked for.
        similarity_fn_name: one of `SIMILARITY_FUNCTIONS`; None: the file does not say.
        truncate_dim: how many numbers of a vector to keep; None: all.
    """

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: int | None = None


@dataclass(frozen=True)
class Limit:
    """How many tokens a sentence may have, and why.

    Attributes:
        tokens: the limit, special tokens included.
        source: the file and field that decided.
        reasons: what each file had to say about it, in the order in which they are asked.
    """

    tokens: int
    source: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """One setting in force, and the file it came from ("the default" where no file says anything)."""

    name: str
    value: object
    source: str


@dataclass(frozen=True)
class CheckpointConfig:
    """Everything the json files of one checkpoint say.

    Attributes:
        bert: the sizes of the encoder.
        wordpiece: the settings of the tokenizer.
        pooling: from token vectors to a sentence vector.
        heads: what happens to the sentence vector then.
        usage: prompts and the like.
        lower_case_first: whether the text is lower-cased before the tokenizer sees it.
        limit: the limit in tokens, and what it follows from.
        folder: where config.json, the tokenizer and the weights lie inside the checkpoint; "" is its root.
        remarks: what a user should be told when this checkpoint is loaded.
        settings: every setting that changes a vector, with the file that gave it.
    """

    bert: BertConfig
    wordpiece: WordPieceConfig
    pooling: PoolingConfig
    heads: tuple[HeadConfig, ...]
    usage: UsageConfig
    lower_case_first: bool
    limit: Limit
    folder: str = ""
    remarks: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = field(default=(), compare=False, repr=False)

    @property
    def max_seq_length(self) -> int:
        """The limit in tokens, special tokens included."""
        return self.limit.tokens

    @property
    def dimension(self) -> int:
        """Numbers in a sentence vector, as the chain of modules gives it, before any of them are left out."""
        return width(self.pooling, self.heads)


def width(pooling: PoolingConfig, heads: Sequence[HeadConfig]) -> int:
    """Numbers in a vector that went through the pooling and these heads."""
    dimension = pooling.dimension * len(pooling.modes)
    for head in heads:
        if isinstance(head, DenseConfig):
            dimension = head.out_features
    return dimension


class Fields:
    """One json object, read field by field; every complaint names file, field, found and expected."""

    def __init__(self, values: dict[str, object], file: str) -> None:
        self.values = values
        self.file = file

    def refuse(self, field: str, expected: str, remedy: str = "Correct the file, or take an unchanged copy.") -> NoReturn:
        """Raises the CheckpointError that says what is wrong with a field."""
        found = brief(self.values[field]) if field in self.values else "no such field"
        raise CheckpointError(f"{self.file}: field {field!r}: found {found}, expected {expected}. {remedy}")

    def integer(self, field: str, *, maximum: int = LARGEST_SIZE, default: object = _REQUIRED) -> int:
        """A whole number from 1 to `maximum`. `true` is not a number, although Python says so."""
        value = self.values.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= maximum:
            self.refuse(field, f"a whole number from 1 to {maximum}")
        return value

    def positive(self, field: str, *, default: object = _REQUIRED) -> float:
        """A number above 0 and below 1, such as the ε of a layer norm."""
        value = self.values.get(field, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            self.refuse(field, "a number above 0 and below 1")
        return float(value)

    def boolean(self, field: str, *, default: bool | None) -> bool | None:
        """True or false; `null` and a field that is not there both mean the default."""
        value = self.values.get(field)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(field, "true or false")
        return value

    def string(self, field: str, *, default: object = _REQUIRED) -> str:
        """A text."""
        value = self.values.get(field, default)
        if not isinstance(value, str):
            self.refuse(field, "a text")
        return value

    def text(self, field: str) -> str | None:
        """A text; `null` and a field that is not there both mean None."""
        return None if self.values.get(field) is None else self.string(field)

    def source(self, field: str) -> str:
        """Where the value in force comes from: this file, or nowhere."""
        return self.file if self.values.get(field) is not None else DEFAULT

    def choice(self, field: str, choices: Sequence[Choice], *, default: object = _REQUIRED) -> Choice:
        """One of a few texts."""
        value = self.values.get(field, default)
        for choice in choices:
            if value == choice:
                return choice
        self.refuse(field, "one of " + ", ".join(choices))

    def must_be(self, field: str, expected: object, why: str) -> None:
        """Refuses a switch that is set to anything but what minisbert does."""
        if self.values.get(field, expected) != expected:
            self.refuse(field, json.dumps(expected), why)


def brief(value: object) -> str:
    """A json value as it stands in an error message: its text, cut when long, and its type.

    >>> brief("yes")
    '"yes" (str)'
    """
    try:
        text = json.dumps(value, ensure_ascii=False)
    except ValueError:  # an integer of more digits than Python prints
        text = "a number beyond measure"
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


def read_json(path: Path, file: str) -> object:
    """Parses one json file, refusing what json forbids or leaves open: NaN, a key given twice, bad UTF-8, endless nesting.

    Args:
        path: where the file lies.
        file: its name inside the checkpoint, for messages.
    """

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        values = dict(pairs)
        if len(values) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"the key {twice!r} is given twice")
        return values

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a json number")

    try:
        size = path.stat().st_size
        if size > LARGEST_JSON:
            raise CheckpointError(
                f"{file}: {size:,} bytes, expected at most {LARGEST_JSON:,}. Take an unchanged copy of the checkpoint."
            )
        text = path.read_bytes().decode()
        value: object = json.loads(text, object_pairs_hook=once, parse_constant=no_constant)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()  # json lets half a surrogate pair pass, and nothing after it does
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file}: not valid json ({error}). The file may be cut off or damaged; take an unchanged copy of it."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error}). Check the file and its permissions.") from error
    return value


def read_fields(find: Find, file: str) -> Fields | None:
    """The fields of a json file that holds one object, or None if the checkpoint has no such file."""
    path = find(file)
    if path is None:
        return None
    values = read_json(path, file)
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: found {brief(values)}, expected a json object {{...}}. Take an unchanged copy of it.")
    return Fields(values, file)


# Other architectures that sentence vectors are made with, by the `model_type` of config.json. Named, so that the message says
# plainly what the checkpoint is.
OTHER_ARCHITECTURES: Final = {
    "albert": "ALBERT",
    "bart": "BART",
    "bert-generation": "BERT for generation",
    "big_bird": "BigBird",
    "camembert": "CamemBERT",
    "clip": "CLIP",
    "convbert": "ConvBERT",
    "deberta": "DeBERTa",
    "deberta-v2": "DeBERTa v2",
    "distilbert": "DistilBERT",
    "electra": "ELECTRA",
    "ernie": "ERNIE",
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
    "mpnet": "MPNet",
    "new": "NewModel of GTE v1.5",
    "nomic_bert": "NomicBERT",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "roberta": "RoBERTa",
    "roformer": "RoFormer",
    "squeezebert": "SqueezeBERT",
    "t5": "T5",
    "xlm-roberta": "XLM-RoBERTa",
    "xlnet": "XLNet",
    "xlm": "XLM",
}


def read_bert_config(fields: Fields, remarks: list[str]) -> BertConfig:
    """`config.json`: every setting that changes the result is obeyed or refused."""
    architectures = fields.values.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        fields.refuse("architectures", "a list of class names")
    is_bert = any(name.startswith("Bert") for name in architectures)
    model_type = fields.values.get("model_type", "bert" if is_bert else None)
    if model_type != "bert":
        known = OTHER_ARCHITECTURES.get(model_type) if isinstance(model_type, str) else None
        fields.refuse(
            "model_type",
            '"bert"',
            (f"This is {known}, another architecture; " if known else "")
            + "minisbert runs BERT only: load this checkpoint with sentence-transformers or transformers.",
        )
    if architectures and not is_bert:
        remarks.append(f"{fields.file}: architectures is {brief(architectures)}, but model_type is bert; it is taken as a BERT")
    refuse_remote_code(fields)
    fields.must_be(
        "is_decoder",
        False,
        "minisbert is an encoder, in which every token attends to every other. Load this checkpoint with transformers.",
    )
    fields.must_be(
        "is_encoder_decoder", False, "minisbert is an encoder, without a decoder behind it. Load this checkpoint with transformers."
    )
    fields.must_be(
        "add_cross_attention",
        False,
        "minisbert is an encoder, without a second sequence to attend to. Load this checkpoint with transformers.",
    )
    fields.must_be("position_embedding_type", "absolute", "minisbert has no relative positions; load it with transformers.")
    fields.must_be("pruned_heads", {}, "minisbert has no layers of unequal numbers of heads; load it with transformers.")
    fields.must_be("quantization_config", None, "minisbert reads plain weights; take the checkpoint as it was before.")
    return BertConfig(
        vocab_size=fields.integer("vocab_size", maximum=1 << 24),
        hidden_size=fields.integer("hidden_size", maximum=LARGEST_WIDTH),
        num_hidden_layers=fields.integer("num_hidden_layers", maximum=MOST_LAYERS),
        num_attention_heads=fields.integer("num_attention_heads", maximum=LARGEST_WIDTH),
        intermediate_size=fields.integer("intermediate_size"),
        max_position_embeddings=fields.integer("max_position_embeddings"),
        type_vocab_size=fields.integer("type_vocab_size", default=BertConfig.type_vocab_size),
        hidden_act=fields.choice("hidden_act", ACTIVATIONS, default=BertConfig.hidden_act),
        layer_norm_eps=fields.positive("layer_norm_eps", default=BertConfig.layer_norm_eps),
    )


def refuse_remote_code(fields: Fields) -> None:
    """`auto_map` names Python files of the checkpoint that were meant to be run instead of BERT."""
    if fields.values.get("auto_map") is not None:
        fields.refuse(
            "auto_map",
            "no such field",
            "It names code that comes with the checkpoint, and minisbert runs none: load this checkpoint with "
            "sentence-transformers, if you trust that code.",
        )


def read_wordpiece_config(fields: Fields) -> WordPieceConfig:
    """`tokenizer_config.json`, which many repositories have beside or instead of `tokenizer.json`."""

    def token(field: str, default: str) -> str:
        """A special token, written as a text or as an object with the text in `content`."""
        value = fields.values.get(field)
        if value is None:
            return default
        if isinstance(value, dict):
            value = value.get("content")
        if not isinstance(value, str) or not value:
            fields.refuse(field, "a token, as a text or as an object with the text in 'content'")
        return value

    refuse_remote_code(fields)
    name = "max_len" if "max_len" in fields.values and "model_max_length" not in fields.values else "model_max_length"
    limit = fields.values.get(name)  # max_len: its name until transformers 3
    if isinstance(limit, float) and limit.is_integer():  # "no limit" is written as 10^30, and was once as 1e30
        limit = int(limit)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        fields.refuse(name, "a number of tokens")
    side = fields.values.get("truncation_side")
    return WordPieceConfig(
        do_lower_case=fields.boolean("do_lower_case", default=None),
        strip_accents=fields.boolean("strip_accents", default=None),
        tokenize_chinese_chars=fields.boolean("tokenize_chinese_chars", default=None),
        model_max_length=limit,
        truncation_side=None if side is None else fields.choice("truncation_side", ("right", "left")),
        unk_token=token("unk_token", WordPieceConfig.unk_token),
        cls_token=token("cls_token", WordPieceConfig.cls_token),
        sep_token=token("sep_token", WordPieceConfig.sep_token),
        pad_token=token("pad_token", WordPieceConfig.pad_token),
        mask_token=token("mask_token", WordPieceConfig.mask_token),
        tokenizer_class=fields.text("tokenizer_class"),
    )


POOLING_FLAGS: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def read_pooling_config(fields: Fields, remarks: list[str]) -> PoolingConfig:
    """`1_Pooling/config.json` of either generation: a boolean for each mode, or `pooling_mode` as a text or a list."""
    old, new = "word_embedding_dimension", "embedding_dimension"
    dimension = fields.integer(old if old in fields.values else new, maximum=LARGEST_WIDTH)
    if new in fields.values and fields.integer(new, maximum=LARGEST_WIDTH) != dimension:
        fields.refuse(new, f"{dimension}, as {old} says")
    if "pooling_mode" in fields.values:
        value = fields.values["pooling_mode"]
        named = [value] if isinstance(value, str) else value
        if not isinstance(named, list) or not 1 <= len(named) <= MOST_MODULES or not all(mode in POOLING_MODES for mode in named):
            fields.refuse("pooling_mode", "one of " + ", ".join(POOLING_MODES) + ", or a list of these")
        modes = tuple(named)  # in the order of the list
    else:
        modes = tuple(mode for flag, mode in POOLING_FLAGS.items() if fields.boolean(flag, default=False))
        if not modes and not fields.values.keys() & POOLING_FLAGS.keys():
            modes = PoolingConfig.modes
            remarks.append(f"{fields.file}: no pooling mode is given; it is mean, as in sentence-transformers")
        elif not modes:
            raise CheckpointError(
                f"{fields.file}: no pooling mode is switched on, expected at least one of {', '.join(POOLING_FLAGS)}. "
                "Set the one the model was trained with to true (mean_tokens for most)."
            )
    known = {old, new, "pooling_mode", "include_prompt", *POOLING_FLAGS}
    remarks.extend(unknown(fields, known))
    return PoolingConfig(dimension, modes, fields.boolean("include_prompt", default=True) is not False)


def unknown(fields: Fields, known: set[str]) -> list[str]:
    """A remark on the fields of a module that nobody here knows, and that therefore do nothing."""
    names = sorted(brief(name) for name in fields.values if name not in known)
    if not names:
        return []
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [f"{fields.file}: not known here, and not used: {shown}"]


# The dotted class names that modules.json gives, and what they are. They are looked up here and never imported: a checkpoint must
# not choose what code runs. sentence-transformers wrote, in turn:
#     sentence_transformers.models.BERT                                         until 0.2.6
#     sentence_transformers.models.Pooling                                      until 5.3
#     sentence_transformers.sentence_transformer.modules.pooling.Pooling        from 5.4 on
# and it reads, and people write, the class by its file (models.Pooling.Pooling) or by its package (modules.Pooling) as well.
_CLASSES: Final = {
    "transformer": ("Transformer", "base"),
    "pooling": ("Pooling", "sentence_transformer"),
    "dense": ("Dense", "base"),
    "layer_norm": ("LayerNorm", "sentence_transformer"),
    "normalize": ("Normalize", "base"),
    "dropout": ("Dropout", "sentence_transformer"),
}
MODULE_KINDS: Final = {
    "sentence_transformers.models.BERT": "transformer",
    "sentence_transformers.models.BERT.BERT": "transformer",
    "sentence_transformers.sentence_transformer.modules.normalize.Normalize": "normalize",  # 5.4 to 5.x
    **{
        name: kind
        for kind, (cls, home) in _CLASSES.items()
        for name in (
            f"sentence_transformers.models.{cls}",
            f"sentence_transformers.models.{cls}.{cls}",
            f"sentence_transformers.sentence_transformer.modules.{cls}",
            f"sentence_transformers.{home}.modules.{cls}",
            f"sentence_transformers.{home}.modules.{kind}.{cls}",
        )
    },
}

# Modules that exist and are not run here, with what a user should know about each.
OTHER_MODULES: Final = {
    "ALBERT": "an ALBERT encoder",
    "Asym": "different layers for queries and documents",
    "BoW": "a bag of words",
    "CLIPModel": "CLIP, for images",
    "CNN": "a convolution over word vectors",
    "CamemBERT": "a CamemBERT encoder",
    "DistilBERT": "a DistilBERT encoder",
    "LSTM": "an LSTM over word vectors",
    "LogitScore": "the score of a cross-encoder",
    "MLMTransformer": "a sparse encoder",
    "MultiVectorMask": "a multi-vector model, which keeps a vector for each token",
    "RoBERTa": "a RoBERTa encoder",
    "Router": "different layers for queries and documents",
    "SparseAutoEncoder": "a sparse encoder",
    "SparseStaticEmbedding": "a sparse encoder",
    "SpladePooling": "a sparse encoder",
    "StaticEmbedding": "word vectors without an encoder",
    "T5": "a T5 encoder",
    "TokenPooling": "a multi-vector model, which keeps a vector for each token",
    "WeightedLayerPooling": "a weighted sum of all layers",
    "WordEmbeddings": "word vectors without an encoder",
    "WordWeights": "weights for words",
    "XLMRoBERTa": "an XLM-RoBERTa encoder",
    "XLNet": "an XLNet encoder",
}


@dataclass(frozen=True)
class Module:
    """One row of modules.json: what it is, its folder inside the checkpoint, and the class name it was given."""

    kind: str
    folder: str
    name: str


def read_modules(find: Find) -> list[Module] | None:
    """`modules.json`: the chain that a sentence goes through, or None for a plain BERT repository without that file.

    minisbert runs a transformer, a pooling, and then any number of dense layers, layer norms and normalizations. Dropout does
    nothing outside of training and is passed over.
    """
    file = "modules.json"
    path = find(file)
    if path is None:
        return None
    rows = read_json(path, file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CheckpointError(f"{file}: found {brief(rows)}, expected a list of modules. Take an unchanged copy of it.")
    if len(rows) > MOST_MODULES:
        raise CheckpointError(
            f"{file}: found {len(rows):,} modules, expected at most {MOST_MODULES}. Take an unchanged copy of it."
        )
    modules = []
    names: set[str] = set()
    for number, row in enumerate(rows):
        fields = Fields(row, f"{file}, module {number}")
        kind = fields.string("type")
        if kind not in MODULE_KINDS:
            _refuse_module(fields, kind)
        name = fields.text("name")
        if name is not None and name in names:
            fields.refuse("name", "a name that no other module has")
        names.add(name or "")
        modules.append(Module(MODULE_KINDS[kind], _folder(fields), kind))
    modules = [module for module in modules if module.kind != "dropout"]
    kinds = [module.kind for module in modules]
    if kinds[:2] != ["transformer", "pooling"] or {"transformer", "pooling"} & set(kinds[2:]):
        raise CheckpointError(
            f"{file}: found the chain {' → '.join(kinds) or 'of no modules'}, expected transformer → pooling, and then only dense, "
            "layer_norm and normalize. Load this checkpoint with sentence-transformers."
        )
    return modules


def _refuse_module(fields: Fields, kind: str) -> NoReturn:
    known = OTHER_MODULES.get(kind.rpartition(".")[2]) if kind.startswith("sentence_transformers.") else None
    fields.refuse(
        "type",
        "a Transformer, Pooling, Dense, LayerNorm, Normalize or Dropout of sentence_transformers",
        (f"This is {known}; " if known else "") + "minisbert does not run this module, and no code is ever imported by name; "
        "load this checkpoint with sentence-transformers.",
    )


def _folder(fields: Fields) -> str:
    """The folder of a module, which must lie inside the checkpoint."""
    text = fields.string("path")
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or any(character in text for character in "\\:\0"):
        fields.refuse(
            "path", "a folder inside the checkpoint", "It asks for files outside of its folder: do not load this checkpoint."
        )
    return "/".join(path.parts)


def inside(folder: str, file: str) -> str:
    """The path of a module's file inside the checkpoint; the folder of the first module is usually its root, ""."""
    return f"{folder}/{file}" if folder else file


_DENSE_NAMES: Final = {
    f"{package}.{name}": name
    for name in DENSE_ACTIVATIONS
    for package in (
        "torch.nn",
        "torch.nn.modules",
        "torch.nn.modules.linear" if name == "Identity" else "torch.nn.modules.activation",
    )
}


def read_head(module: Module, fields: Fields, dimension: int, remarks: list[str]) -> HeadConfig:
    """A module after the pooling.

    Args:
        module: its row in modules.json.
        fields: its config.json.
        dimension: the numbers in the vector that comes to it.
        remarks: what should be told is added here.
    """
    why = "minisbert has only the sentence vector there. Load this checkpoint with sentence-transformers."
    for name in "module_input_name", "module_output_name", "key_name":  # key_name: once written, never read
        if fields.values.get(name) is not None:
            fields.must_be(name, "sentence_embedding", why)
    known = {"module_input_name", "module_output_name", "key_name"}
    if module.kind == "normalize":
        remarks.extend(unknown(fields, known))
        return NormalizeConfig()

    size = "dimension" if module.kind == "layer_norm" else "in_features"
    if fields.integer(size, maximum=LARGEST_WIDTH) != dimension:
        fields.refuse(
            size,
            f"{dimension}, the numbers in the vector that the module before it gives",
            "The two modules are of different models; take an unchanged copy.",
        )
    if module.kind == "layer_norm":
        remarks.extend(unknown(fields, known | {size}))
        return LayerNormConfig(module.folder, dimension)

    name = fields.string("activation_function", default="torch.nn.modules.activation.Tanh")
    if name not in _DENSE_NAMES:
        fields.refuse(
            "activation_function",
            "a class of torch.nn: one of " + ", ".join(DENSE_ACTIVATIONS),
            "It is looked up in a table, and no code is ever imported by name; load this checkpoint with sentence-transformers.",
        )
    remarks.extend(unknown(fields, known | {size, "out_features", "bias", "activation_function", "use_residual"}))
    return DenseConfig(
        folder=module.folder,
        in_features=dimension,
        out_features=fields.integer("out_features", maximum=LARGEST_WIDTH),
        bias=fields.boolean("bias", default=True) is not False,
        activation=_DENSE_NAMES[name],
        residual=bool(fields.boolean("use_residual", default=False)),
    )


def read_usage(fields: Fields | None, dimension: int, remarks: list[str]) -> UsageConfig:
    """`config_sentence_transformers.json`. A missing one, as before sentence-transformers 2, says nothing."""
    if fields is None:
        return UsageConfig()
    kind = fields.text("model_type")
    if kind not in (None, "SentenceTransformer"):
        fields.refuse(
            "model_type",
            '"SentenceTransformer"',
            "minisbert gives one vector a sentence, and this is a model of another kind: load it with sentence-transformers.",
        )
    prompts = fields.values.get("prompts")
    prompts = {} if prompts is None else prompts
    if not isinstance(prompts, dict) or not all(text is None or isinstance(text, str) for text in prompts.values()):
        fields.refuse("prompts", "an object of texts by their names")
    prompts = {name: text or "" for name, text in prompts.items()}
    default = fields.text("default_prompt_name")
    if default is not None and default not in EVERY_MODELS_PROMPTS | prompts:
        fields.refuse("default_prompt_name", "the name of a prompt: " + ", ".join(EVERY_MODELS_PROMPTS | prompts))
    similarity = fields.text("similarity_fn_name")
    if similarity is not None and similarity not in SIMILARITY_FUNCTIONS:
        remarks.append(
            f"{fields.file}: similarity_fn_name is {brief(similarity)}, not one of {', '.join(SIMILARITY_FUNCTIONS)}; "
            "cosine is used"
        )
        similarity = None
    keep = None
    if fields.values.get("truncate_dim") is not None:
        keep = fields.integer("truncate_dim", maximum=sys.maxsize)
        if keep > dimension:
            remarks.append(f"{fields.file}: truncate_dim is {keep}, but a vector has only {dimension} numbers; all are kept")
    return UsageConfig(prompts, default, similarity, keep)


def read_sentence_config(fields: Fields) -> None:
    """`sentence_bert_config.json`: refuses what changes the vectors in ways that minisbert does not know.

    Its `max_seq_length` and `do_lower_case` are read elsewhere. The arguments for other libraries (model_args and the like, of
    either generation) may hold what does not change the mathematics.
    """
    load = "Load this checkpoint with sentence-transformers."
    for name, expected in ("transformer_task", "feature-extraction"), ("module_output_name", "token_embeddings"):
        if fields.values.get(name) is not None:
            fields.must_be(name, expected, load)
    for name in "query_length", "document_length", "query_expansion", "tokenizer_name_or_path":
        fields.must_be(name, None, load)
    modality = fields.values.get("modality_config")
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    if modality is not None and (
        not isinstance(modality, dict)
        or not isinstance(modality.get("text"), dict)
        or any(modality["text"].get(name) != value for name, value in text.items())
    ):
        fields.refuse("modality_config", "the last hidden state for text: " + json.dumps({"text": text}), load)
    harmless = {"add_pooling_layer", "attn_implementation", "dtype", "torch_dtype", "trust_remote_code", "use_safetensors"}
    for name in (
        "model_args",
        "model_kwargs",
        "config_args",
        "config_kwargs",
        "tokenizer_args",
        "processor_kwargs",
        "processing_kwargs",
    ):
        value = fields.values.get(name)
        if value is not None and (not isinstance(value, dict) or value.keys() - harmless):
            fields.refuse(name, "nothing that changes a vector, only " + ", ".join(sorted(harmless)), load)


def decide_limit(sizes: Fields, wordpiece: Fields, asked: int | None, sentence: Fields, remarks: list[str]) -> Limit:
    """How many tokens a sentence may have: `max_seq_length`, else `model_max_length`, and never more than the positions.

    Args:
        sizes: config.json; the model has a vector for each position up to its `max_position_embeddings`.
        wordpiece: tokenizer_config.json.
        asked: its model_max_length.
        sentence: sentence_bert_config.json.
        remarks: what should be told is added here.

    Raises:
        CheckpointError: if there is no room for [CLS], [SEP] and one word piece.
    """
    last = f"{sizes.file}: max_position_embeddings"
    positions = sizes.integer("max_position_embeddings")
    limit, source = positions, last
    reasons = []
    if sentence.values.get("max_seq_length") is not None:
        limit = sentence.integer("max_seq_length", maximum=sys.maxsize)
        source = f"{sentence.file}: max_seq_length"
        reasons.append(f"{source} is {limit}")
    else:
        reasons.append(f"{sentence.file} gives no max_seq_length")
        if asked is not None:
            limit, source = asked, f"{wordpiece.file}: model_max_length"
            reasons.append(f"{source} is {asked if asked < 10**9 else 'no limit'}")
        else:
            reasons.append(f"{wordpiece.file} gives no model_max_length")
    reasons.append(f"{last} is {positions}, and no sentence can have more")
    if limit > positions:
        if source.startswith(sentence.file):
            remarks.append(
                f"{sentence.file}: max_seq_length is {limit}, but the model has only {positions} positions; "
                f"the limit is {positions} tokens"
            )
        limit, source = positions, last
    if limit < LEAST_LIMIT:
        raise CheckpointError(
            f"{source}: the limit is {limit} tokens, expected at least {LEAST_LIMIT}, for [CLS], a word piece and [SEP]. "
            "Correct the file, or take an unchanged copy."
        )
    return Limit(limit, source, tuple(reasons))


def read_checkpoint(find: Find) -> CheckpointConfig:
    """Reads all settings of a checkpoint, in the order of its chain, before any of its weights are touched.

    Raises:
        CheckpointError: naming file, field, found, expected, and what to do.
    """
    remarks: list[str] = []
    modules = read_modules(find)
    folder = modules[0].folder if modules else ""

    def required(file: str) -> Fields:
        fields = read_fields(find, file)
        if fields is None:
            raise CheckpointError(
                f"{file}: no such file in the checkpoint. Expected a folder in the layout of the hub, with config.json, "
                "a tokenizer (tokenizer.json or vocab.txt) and weights (model.safetensors or pytorch_model.bin)."
            )
        return fields

    def optional(file: str) -> Fields:
        return read_fields(find, file) or Fields({}, file)

    sizes = required(inside(folder, "config.json"))
    bert = read_bert_config(sizes, remarks)
    words = optional(inside(folder, "tokenizer_config.json"))
    wordpiece = read_wordpiece_config(words)

    heads: list[HeadConfig] = []
    settings: list[Setting] = []
    if modules is None:
        pooling = PoolingConfig(bert.hidden_size)
        remarks.append(
            "modules.json: no such file, so this is a plain BERT without instructions for sentences; "
            "its token vectors are averaged (mean pooling), and no sentence_bert_config.json or config_sentence_transformers.json "
            "is looked for, as in sentence-transformers"
        )
        sentence, usage_fields = Fields({}, inside(folder, "sentence_bert_config.json")), None
        settings.append(Setting("pooling_mode", list(pooling.modes), DEFAULT))
    else:
        file = inside(modules[1].folder, "config.json")
        fields = required(file)
        pooling = read_pooling_config(fields, remarks)
        if pooling.dimension != bert.hidden_size:
            raise CheckpointError(
                f"{file}: the dimension is {pooling.dimension}, expected {bert.hidden_size}, the hidden_size of "
                f"{inside(folder, 'config.json')}. The two files are of different models; take an unchanged copy."
            )
        given = fields.values.keys() & {"pooling_mode", *POOLING_FLAGS}
        settings.append(Setting("pooling_mode", list(pooling.modes), file if given else DEFAULT))
        settings.append(Setting("include_prompt", pooling.include_prompt, fields.source("include_prompt")))
        for module in modules[2:]:
            file = inside(module.folder, "config.json")
            if module.kind == "normalize":
                # Its folder may be absent; until 5.3 it never had a file, and a hub that cannot be asked need not be.
                fields = Fields({}, file) if module.name == "sentence_transformers.models.Normalize" else optional(file)
            else:
                fields = required(file)
            heads.append(read_head(module, fields, width(pooling, heads), remarks))
            settings.append(Setting(module.kind, _describe(heads[-1]), file if fields.values else "modules.json"))
        sentence = optional(inside(folder, "sentence_bert_config.json"))
        usage_fields = read_fields(find, "config_sentence_transformers.json")

    read_sentence_config(sentence)
    usage = read_usage(usage_fields, width(pooling, heads), remarks)
    limit = decide_limit(sizes, words, wordpiece.model_max_length, sentence, remarks)
    lower_case_first = bool(sentence.boolean("do_lower_case", default=False))
    stated = usage_fields or Fields({}, "config_sentence_transformers.json")
    return CheckpointConfig(
        bert=bert,
        wordpiece=wordpiece,
        pooling=pooling,
        heads=tuple(heads),
        usage=usage,
        lower_case_first=lower_case_first,
        limit=limit,
        folder=folder,
        remarks=tuple(remarks),
        settings=(
            *(Setting(name, value, sizes.source(name)) for name, value in vars(bert).items()),
            Setting("lower_case_first", lower_case_first, sentence.source("do_lower_case")),
            *settings,
            *(Setting(name, value, stated.source(name)) for name, value in vars(usage).items()),
        ),
    )


def _describe(head: HeadConfig) -> str:
    if isinstance(head, DenseConfig):
        parts = ("" if head.bias else ", no bias") + (", residual" if head.residual else "")
        return f"{head.in_features} → {head.out_features}, {head.activation}{parts}"
    return f"{head.dimension}" if isinstance(head, LayerNormConfig) else "length 1"
