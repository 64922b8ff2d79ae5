"""What a checkpoint's json files say, read strictly.

Nothing here is guessed. A field is either right, or absent with a default that the reference (transformers,
sentence-transformers) has too, or it raises a `CheckpointError` that names the file, the field, what was found, what was
expected, and what to do.

A checkpoint in the hub's layout:

    modules.json                the chain of modules: Transformer, Pooling, perhaps Normalize
    config.json                 the sizes of BERT
    sentence_bert_config.json   the limit in tokens, and whether to lower-case the text first
    tokenizer_config.json       the settings of the tokenizer
    1_Pooling/config.json       how token vectors become one sentence vector
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from minisbert.errors import CheckpointError

Find = Callable[[str], "Path | None"]
"""Given a file's path inside a checkpoint, where it lies on this machine, or None if the checkpoint has no such file."""

Choice = TypeVar("Choice", bound=str)

# Far above every published BERT. A larger number is a broken or hostile file, and must not reserve any memory.
LARGEST_SIZE: Final = 1 << 20
MOST_LAYERS: Final = 1 << 10
LARGEST_JSON: Final = 64 << 20  # bytes

ACTIVATIONS: Final = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")

POOLING_MODES: Final = ("cls", "max", "mean", "mean_sqrt_len_tokens")
"""In the order in which modes that are given as booleans are concatenated; a list of modes has its own."""

_REQUIRED: Final = object()


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
class CheckpointConfig:
    """Everything the json files of one checkpoint say.

    Attributes:
        bert: the sizes of the encoder.
        wordpiece: the settings of the tokenizer.
        pooling: from token vectors to a sentence vector.
        normalize: whether the sentence vector is scaled to length 1.
        lower_case_first: whether the text is lower-cased before the tokenizer sees it.
        max_seq_length: the limit in tokens, special tokens included.
        folder: where config.json, the tokenizer and the weights lie inside the checkpoint; "" is its root.
        remarks: what a user should be told when this checkpoint is loaded.
    """

    bert: BertConfig
    wordpiece: WordPieceConfig
    pooling: PoolingConfig
    normalize: bool
    lower_case_first: bool
    max_seq_length: int
    folder: str = ""
    remarks: tuple[str, ...] = ()


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
        value: object = json.loads(path.read_bytes().decode(), object_pairs_hook=once, parse_constant=no_constant)
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


def read_bert_config(fields: Fields) -> BertConfig:
    """`config.json`: every setting that changes the result is obeyed or refused."""
    architectures = fields.values.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        fields.refuse("architectures", "a list of class names")
    model_type = fields.values.get("model_type", "bert" if any(name.startswith("Bert") for name in architectures) else None)
    if model_type != "bert":
        fields.refuse(
            "model_type",
            '"bert"',
            "minisbert runs BERT only: load this checkpoint with sentence-transformers or transformers.",
        )
    fields.must_be(
        "is_decoder",
        False,
        "minisbert is an encoder, in which every token attends to every other. Load this checkpoint with transformers.",
    )
    fields.must_be(
        "add_cross_attention",
        False,
        "minisbert is an encoder, without a second sequence to attend to. Load this checkpoint with transformers.",
    )
    fields.must_be("position_embedding_type", "absolute", "minisbert has no relative positions; load it with transformers.")
    return BertConfig(
        vocab_size=fields.integer("vocab_size", maximum=1 << 24),
        hidden_size=fields.integer("hidden_size", maximum=1 << 16),
        num_hidden_layers=fields.integer("num_hidden_layers", maximum=MOST_LAYERS),
        num_attention_heads=fields.integer("num_attention_heads", maximum=1 << 16),
        intermediate_size=fields.integer("intermediate_size"),
        max_position_embeddings=fields.integer("max_position_embeddings"),
        type_vocab_size=fields.integer("type_vocab_size", default=BertConfig.type_vocab_size),
        hidden_act=fields.choice("hidden_act", ACTIVATIONS, default=BertConfig.hidden_act),
        layer_norm_eps=fields.positive("layer_norm_eps", default=BertConfig.layer_norm_eps),
    )


def read_wordpiece_config(fields: Fields | None) -> WordPieceConfig:
    """`tokenizer_config.json`, which many repositories have beside or instead of `tokenizer.json`."""
    if fields is None:
        return WordPieceConfig()

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

    limit = fields.values.get("model_max_length")
    if isinstance(limit, float) and limit.is_integer():  # "no limit" is written as 10^30, and was once as 1e30
        limit = int(limit)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        fields.refuse("model_max_length", "a number of tokens")
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
        tokenizer_class=None if fields.values.get("tokenizer_class") is None else fields.string("tokenizer_class"),
    )


_POOLING_FLAGS: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def read_pooling_config(fields: Fields) -> PoolingConfig:
    """`1_Pooling/config.json` of either generation: a boolean for each mode, or `pooling_mode` as a text or a list."""
    old = "word_embedding_dimension" in fields.values
    dimension = fields.integer("word_embedding_dimension" if old else "embedding_dimension", maximum=1 << 16)
    if "pooling_mode" in fields.values:
        value = fields.values["pooling_mode"]
        named = [value] if isinstance(value, str) else value
        if not isinstance(named, list) or not named or not all(mode in POOLING_MODES for mode in named):
            fields.refuse("pooling_mode", "one of " + ", ".join(POOLING_MODES) + ", or a list of these")
        modes = tuple(named)  # in the order of the list
    else:
        modes = tuple(mode for flag, mode in _POOLING_FLAGS.items() if fields.boolean(flag, default=False))
        for mode in modes:
            if mode not in POOLING_MODES:
                raise CheckpointError(
                    f"{fields.file}: pooling mode {mode!r} is on, expected one of {', '.join(POOLING_MODES)}. "
                    "minisbert has no such pooling; load this checkpoint with sentence-transformers."
                )
        if not modes:
            raise CheckpointError(
                f"{fields.file}: no pooling mode is switched on, expected at least one of {', '.join(_POOLING_FLAGS)}. "
                "Set the one the model was trained with to true (mean_tokens for most)."
            )
    fields.must_be("include_prompt", True, "minisbert does not leave prompts out of the pooling.")
    return PoolingConfig(dimension=dimension, modes=modes)


# The dotted class names that modules.json gives, of both generations, and what they are. They are looked up here and never
# imported: a checkpoint must not choose what code runs.
MODULE_KINDS: Final = {
    "sentence_transformers.models.Transformer": "transformer",
    "sentence_transformers.models.BERT": "transformer",
    "sentence_transformers.base.modules.transformer.Transformer": "transformer",
    "sentence_transformers.models.Pooling": "pooling",
    "sentence_transformers.sentence_transformer.modules.pooling.Pooling": "pooling",
    "sentence_transformers.models.Normalize": "normalize",
    "sentence_transformers.base.modules.normalize.Normalize": "normalize",
}


@dataclass(frozen=True)
class Module:
    """One row of modules.json: what it is, and its folder inside the checkpoint."""

    kind: str
    folder: str


def read_modules(find: Find) -> list[Module] | None:
    """`modules.json`: the chain that a sentence goes through, or None for a plain BERT repository without that file.

    minisbert runs the chains transformer → pooling and transformer → pooling → normalize.
    """
    file = "modules.json"
    path = find(file)
    if path is None:
        return None
    rows = read_json(path, file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CheckpointError(f"{file}: found {brief(rows)}, expected a list of modules. Take an unchanged copy of it.")
    modules = []
    for number, row in enumerate(rows):
        fields = Fields(row, f"{file}, module {number}")
        name = fields.string("type")
        if name not in MODULE_KINDS:
            fields.refuse(
                "type",
                "one of " + ", ".join(MODULE_KINDS),
                "minisbert does not run this module, and no code is ever imported by name; "
                "load this checkpoint with sentence-transformers.",
            )
        modules.append(Module(MODULE_KINDS[name], fields.string("path").strip("/")))
    kinds = [module.kind for module in modules]
    if kinds not in (["transformer", "pooling"], ["transformer", "pooling", "normalize"]):
        raise CheckpointError(
            f"{file}: found the chain {' → '.join(kinds) or 'of no modules'}, expected transformer → pooling (→ normalize). "
            "Load this checkpoint with sentence-transformers."
        )
    return modules


def inside(folder: str, file: str) -> str:
    """The path of a module's file inside the checkpoint; the folder of the first module is usually its root, ""."""
    return f"{folder}/{file}" if folder else file


def read_checkpoint(find: Find) -> CheckpointConfig:
    """Reads all settings of a checkpoint, in the order of its chain, before any of its weights are touched.

    Raises:
        CheckpointError: naming file, field, found, expected, and what to do.
    """
    remarks = []
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

    bert = read_bert_config(required(inside(folder, "config.json")))
    wordpiece = read_wordpiece_config(read_fields(find, inside(folder, "tokenizer_config.json")))

    if modules is None:
        pooling = PoolingConfig(bert.hidden_size)
        remarks.append(
            "modules.json: no such file, so this is a plain BERT without instructions for sentences; "
            "its token vectors are averaged (mean pooling)"
        )
    else:
        file = inside(modules[1].folder, "config.json")
        pooling = read_pooling_config(required(file))
        if pooling.dimension != bert.hidden_size:
            raise CheckpointError(
                f"{file}: the dimension is {pooling.dimension}, expected {bert.hidden_size}, the hidden_size of "
                f"{inside(folder, 'config.json')}. The two files are of different models; take an unchanged copy."
            )

    sentence = read_fields(find, inside(folder, "sentence_bert_config.json")) or Fields({}, "sentence_bert_config.json")
    asked = wordpiece.model_max_length
    if sentence.values.get("max_seq_length") is not None:
        asked = sentence.integer("max_seq_length", maximum=sys.maxsize)
    limit = min(asked or bert.max_position_embeddings, bert.max_position_embeddings)
    if sentence.values.get("max_seq_length") is not None and asked != limit:
        remarks.append(
            f"{sentence.file}: max_seq_length is {asked}, but the model has only {limit} positions; the limit is {limit} tokens"
        )
    return CheckpointConfig(
        bert=bert,
        wordpiece=wordpiece,
        pooling=pooling,
        normalize=modules is not None and modules[-1].kind == "normalize",
        lower_case_first=bool(sentence.boolean("do_lower_case", default=False)),
        max_seq_length=limit,
        folder=folder,
        remarks=tuple(remarks),
    )
