"""Reads a checkpoint's json files: the encoder's sizes, the limit in tokens, prompts and similarity function.

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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from minisbert.bert import BertConfig
from minisbert.checkpoint.families import FAMILIES, read_bert_config, source_of
from minisbert.checkpoint.fields import DEFAULT, Fields, Find, MissingFileError, brief, inside, read_fields, refuse_remote_code
from minisbert.checkpoint.modules import POOLING_FLAGS, describe_module, read_module, read_modules, read_pooling_config
from minisbert.errors import CheckpointError
from minisbert.pooling import ModuleConfig, PoolingConfig, width

LEAST_LIMIT: Final = 3
"""[CLS], one word piece, [SEP]."""

SIMILARITY_FUNCTIONS: Final = ("cosine", "dot", "euclidean", "manhattan")

EVERY_MODELS_PROMPTS: Final = {"query": "", "document": ""}
"""The prompts of encode_query and encode_document if the checkpoint has none, as in sentence-transformers."""


@dataclass(frozen=True)
class WordPieceConfig:
    """The settings of the tokenizer, under the names of `tokenizer_config.json`. None: the file does not say."""

    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None
    model_max_length: int | None = None
    truncation_side: str | None = None
    add_prefix_space: bool | None = None
    unk_token: str | None = None
    cls_token: str | None = None
    sep_token: str | None = None
    pad_token: str | None = None
    mask_token: str | None = None
    tokenizer_class: str | None = None


@dataclass(frozen=True)
class SentenceTransformersConfig:
    """Prompts, similarity function and truncation that the checkpoint recommends: `config_sentence_transformers.json`.

    Attributes:
        prompts: texts to put before a sentence, by name.
        default_prompt_name: the prompt that is used by default.
        similarity_fn_name: one of `SIMILARITY_FUNCTIONS`; None: the file does not say.
        truncate_dim: how many dimensions of a vector to keep; None: all.
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
        reasons: what each file says about it, in order of precedence.
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
        modules: the post-pooling modules.
        usage: prompts, similarity function and truncated dimension.
        lower_case_first: whether the text is lower-cased before the tokenizer sees it.
        limit: the limit in tokens, and the reasons for it.
        folder: the folder of config.json, the tokenizer and the weights inside the checkpoint; "" is its root.
        load_warnings: the warnings to give when this checkpoint is loaded.
        settings: every setting that changes a vector, with the file that it comes from.
    """

    bert: BertConfig
    wordpiece: WordPieceConfig
    pooling: PoolingConfig
    modules: tuple[ModuleConfig, ...]
    usage: SentenceTransformersConfig
    lower_case_first: bool
    limit: Limit
    folder: str = ""
    load_warnings: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = field(default=(), compare=False, repr=False)

    @property
    def max_seq_length(self) -> int:
        """The limit in tokens, special tokens included."""
        return self.limit.tokens

    @property
    def dimension(self) -> int:
        """The dimension of a sentence vector before `truncate_dim`."""
        return width(self.pooling, self.modules)


def read_wordpiece_config(fields: Fields) -> WordPieceConfig:
    """Reads `tokenizer_config.json`, which many repositories have in addition to `tokenizer.json` or without it."""

    def token(field: str) -> str | None:
        """A special token, written as a text or as an object with the text in `content`."""
        value = fields.values.get(field)
        if value is None:
            return None
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
        add_prefix_space=fields.boolean("add_prefix_space", default=None),
        unk_token=token("unk_token"),
        cls_token=token("cls_token"),
        sep_token=token("sep_token"),
        pad_token=token("pad_token"),
        mask_token=token("mask_token"),
        tokenizer_class=fields.text("tokenizer_class"),
    )


def read_usage(fields: Fields | None, dimension: int, load_warnings: list[str]) -> SentenceTransformersConfig:
    """Reads `config_sentence_transformers.json`, which checkpoints older than sentence-transformers 2 do not have."""
    if fields is None:
        return SentenceTransformersConfig()
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
        load_warnings.append(
            f"{fields.file}: similarity_fn_name is {brief(similarity)}, not one of {', '.join(SIMILARITY_FUNCTIONS)}; "
            "cosine is used"
        )
        similarity = None
    truncate_dim = None
    if fields.values.get("truncate_dim") is not None:
        truncate_dim = fields.integer("truncate_dim", maximum=sys.maxsize)
        if truncate_dim > dimension:
            load_warnings.append(
                f"{fields.file}: truncate_dim is {truncate_dim}, but a vector has {dimension} dimensions; all are kept"
            )
    return SentenceTransformersConfig(prompts, default, similarity, truncate_dim)


def read_sentence_config(fields: Fields) -> None:
    """Checks `sentence_bert_config.json`: refuses settings that would change the vectors and that minisbert does not have.

    Its `max_seq_length` and `do_lower_case` are read elsewhere. Arguments for other libraries (`model_args` and similar fields) are
    accepted if they do not change the mathematics.
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


def decide_limit(
    bert: BertConfig, sizes: Fields, wordpiece: Fields, asked: int | None, sentence: Fields, load_warnings: list[str]
) -> Limit:
    """The limit in tokens: `max_seq_length`, else `model_max_length`, but never more than the model has positions.

    Args:
        bert: the sizes of the encoder.
        sizes: config.json.
        wordpiece: tokenizer_config.json.
        asked: its `model_max_length`, if it has one.
        sentence: sentence_bert_config.json.
        load_warnings: warnings are appended here.

    Raises:
        CheckpointError: if the limit is too small for [CLS], [SEP] and one word piece.
    """
    last = f"{sizes.file}: max_position_embeddings"
    positions = bert.max_position_embeddings - bert.position_offset
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
    before = f", {bert.position_offset} of which come before a sentence" if bert.position_offset else ""
    reasons.append(f"{last} is {bert.max_position_embeddings}{before}, and no sentence can have more")
    if limit > positions:
        if source.startswith(sentence.file):
            load_warnings.append(
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
    """Reads all settings of a checkpoint, in the order of its modules, before any weights are read.

    Raises:
        CheckpointError: naming file, field, found, expected, and what to do.
    """
    load_warnings: list[str] = []
    modules = read_modules(find)
    folder = modules[0].folder if modules else ""

    def required(file: str) -> Fields:
        fields = read_fields(find, file)
        if fields is None:
            raise MissingFileError(
                f"{file}: no such file in the checkpoint. Expected a folder in the layout of the hub, with config.json, "
                "a tokenizer (tokenizer.json or vocab.txt) and weights (model.safetensors or pytorch_model.bin)."
            )
        return fields

    def optional(file: str) -> Fields:
        return read_fields(find, file) or Fields({}, file)

    sizes = required(inside(folder, "config.json"))
    bert = read_bert_config(sizes, load_warnings)
    words = optional(inside(folder, "tokenizer_config.json"))
    wordpiece = read_wordpiece_config(words)

    post_pooling: list[ModuleConfig] = []
    settings: list[Setting] = []
    if modules is None:
        pooling = PoolingConfig(bert.hidden_size)
        load_warnings.append(
            f"modules.json: no such file, so this is a plain {FAMILIES[bert.model_type].name} without instructions for sentences; "
            "its token vectors are averaged (mean pooling), and no sentence_bert_config.json or config_sentence_transformers.json "
            "is looked for, as in sentence-transformers"
        )
        sentence, usage_fields = Fields({}, inside(folder, "sentence_bert_config.json")), None
        settings.append(Setting("pooling_mode", list(pooling.modes), DEFAULT))
    else:
        file = inside(modules[1].folder, "config.json")
        fields = required(file)
        pooling = read_pooling_config(fields, load_warnings)
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
            post_pooling.append(read_module(module, fields, width(pooling, post_pooling), load_warnings))
            settings.append(Setting(module.kind, describe_module(post_pooling[-1]), file if fields.values else "modules.json"))
        sentence = optional(inside(folder, "sentence_bert_config.json"))
        usage_fields = read_fields(find, "config_sentence_transformers.json")

    read_sentence_config(sentence)
    usage = read_usage(usage_fields, width(pooling, post_pooling), load_warnings)
    limit = decide_limit(bert, sizes, words, wordpiece.model_max_length, sentence, load_warnings)
    lower_case_first = bool(sentence.boolean("do_lower_case", default=False))
    stated = usage_fields or Fields({}, "config_sentence_transformers.json")
    return CheckpointConfig(
        bert=bert,
        wordpiece=wordpiece,
        pooling=pooling,
        modules=tuple(post_pooling),
        usage=usage,
        lower_case_first=lower_case_first,
        limit=limit,
        folder=folder,
        load_warnings=tuple(load_warnings),
        settings=(
            *(Setting(name, value, source_of(name, bert, sizes)) for name, value in vars(bert).items()),
            Setting("lower_case_first", lower_case_first, sentence.source("do_lower_case")),
            *settings,
            *(Setting(name, value, stated.source(name)) for name, value in vars(usage).items()),
        ),
    )
