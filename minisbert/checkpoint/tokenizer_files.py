"""Reads a checkpoint's tokenizer files into a `TextTokenizer`: tokenizer.json or vocab.txt, and their settings."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece as WordPieceModel
from tokenizers.normalizers import BertNormalizer, Precompiled
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Metaspace, WhitespaceSplit
from tokenizers.processors import RobertaProcessing, TemplateProcessing

from minisbert.checkpoint.config import CheckpointConfig, WordPieceConfig
from minisbert.checkpoint.families import FAMILIES
from minisbert.checkpoint.fields import LARGEST_JSON, Fields, Find, MissingFileError, brief, inside, listed, read_fields
from minisbert.checkpoint.tokenizer_json import check_unknown, parts_of, read_tokenizer_json, step_json, unknown_token
from minisbert.errors import CheckpointError, rust_errors
from minisbert.tokenizer import TextTokenizer

BERT_TOKENS = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
FRAME = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"}
ROBERTA_TOKENS = FRAME | {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}


@dataclass(frozen=True)
class TokenizerClass:
    """A tokenizer class of transformers that takes only the vocabulary from tokenizer.json, and its steps from settings.

    Attributes:
        model: its algorithm.
        tokens: its default special tokens by their roles.
        ends: the roles of the tokens before and after a text.
        mask_takes_space: whether the mask token includes the space before it.
        unk_id: the id that the unknown token must have; None: any.
        extra: its default additional special tokens.
    """

    model: str
    tokens: Mapping[str, str]
    ends: tuple[str, str] = ("cls_token", "sep_token")
    mask_takes_space: bool = False
    unk_id: int | None = None
    extra: tuple[str, ...] = ()


_BERT = TokenizerClass("WordPiece", BERT_TOKENS)
CLASSES = {
    **dict.fromkeys(
        (
            *("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"),
            *("DPRQuestionEncoderTokenizer", "DPRContextEncoderTokenizer", "DPRReaderTokenizer", "MobileBertTokenizer"),
            *("LayoutLMTokenizer", "LxmertTokenizer", "SqueezeBertTokenizer", "ConvBertTokenizer"),
        ),
        _BERT,
    ),
    "SplinterTokenizer": TokenizerClass("WordPiece", BERT_TOKENS, extra=("[QUESTION]",)),
    "MPNetTokenizer": TokenizerClass("WordPiece", ROBERTA_TOKENS | {"unk_token": "[UNK]"}, mask_takes_space=True),
    "RobertaTokenizer": TokenizerClass("BPE", ROBERTA_TOKENS),
    "XLMRobertaTokenizer": TokenizerClass("Unigram", ROBERTA_TOKENS, ("bos_token", "eos_token"), unk_id=3),
    "CamembertTokenizer": TokenizerClass(
        *("Unigram", ROBERTA_TOKENS, ("bos_token", "eos_token")),
        mask_takes_space=True,
        extra=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"),
    ),
}
"""By their names, to which "Fast" may be appended."""

AS_THE_FILE_SAYS = ("PreTrainedTokenizer", "TokenizersBackend")
"""Classes of transformers that use tokenizer.json unchanged."""

MOST_ADDED_TOKENS = 1 << 16


def read_tokenizer(find: Find, config: CheckpointConfig) -> TextTokenizer:
    """Reads the tokenizer of a checkpoint: `tokenizer.json`, else `vocab.txt`, and the settings.

    As in transformers, tokenizer_config.json and its defaults override tokenizer.json, with a load warning if they differ, unless
    `tokenizer_class` says that tokenizer.json is used unchanged. Its truncation and padding are switched off, because the limit is
    the checkpoint's `max_seq_length`.

    Raises:
        CheckpointError: if there is neither file, or it is broken, not supported, or does not fit the model's embeddings.
    """
    settings = _Settings.read(find, config)
    file = inside(config.folder, "tokenizer.json")
    path = find(file)
    load_warnings: list[str] = []
    side = config.wordpiece.truncation_side
    if path is not None:
        tokenizer = read_tokenizer_json(path, file)
        if side is None and tokenizer.truncation is not None:
            side = tokenizer.truncation["direction"]
    else:
        file = inside(config.folder, "vocab.txt")
        path = find(file)
        if path is None:
            raise MissingFileError(_nothing_found(find, config.folder), config.folder)
        if settings.kind is None or settings.kind.model != "WordPiece":
            raise CheckpointError(
                f"{inside(config.folder, 'tokenizer_config.json')}: field 'tokenizer_class': found {settings.tokenizer_class}, "
                "which needs a tokenizer.json, and there is none. Add it, or correct the class to BertTokenizer."
            )
        tokenizer = Tokenizer(WordPieceModel(_read_vocab(path, file, load_warnings), unk_token=settings.named["unk_token"].content))

    def complaint(reason: str) -> CheckpointError:
        return CheckpointError(f"{file}: not a tokenizer that can be used ({reason}). Take an unchanged copy of the checkpoint.")

    with rust_errors(complaint):
        if settings.kind is not None:
            tokenizer = settings.rebuilt(settings.kind, tokenizer, file, load_warnings)
        settings.add_tokens(tokenizer, config.bert.vocab_size, load_warnings)
        tokenizer.encode_special_tokens = settings.split_special_tokens
        ids = tokenizer.get_vocab()
        ids.pop("", None)  # an empty line of vocab.txt, which is no token
        highest = max(ids.values(), default=-1)
        if highest >= config.bert.vocab_size:
            raise CheckpointError(
                f"{file}: the highest token id is {highest}, expected at most {config.bert.vocab_size - 1}, because config.json "
                f"gives vocab_size {config.bert.vocab_size}. The tokenizer and the model do not belong together."
            )
        check_unknown(tokenizer, file)
        given = tokenizer.normalizer
        if config.lower_case_first and not (isinstance(given, BertNormalizer) and given.lowercase):
            tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([] if given is None else [given])])
        names = {role: token.content for role, token in settings.named.items()}
        return TextTokenizer(tokenizer, config.max_seq_length, (side or "right").lower(), load_warnings, names)


def _nothing_found(find: Find, folder: str) -> str:
    """The message if there is neither tokenizer.json nor vocab.txt."""
    others = [name for name in ("sentencepiece.bpe.model", "vocab.json", "merges.txt") if find(inside(folder, name)) is not None]
    found = f"found only {' and '.join(others)}" if others else "neither is in the checkpoint"
    remedy = (
        "Make it with transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)."
        if others
        else "Add the tokenizer the model was trained with."
    )
    return f"{inside(folder, 'tokenizer.json')} and {inside(folder, 'vocab.txt')}: {found}, expected one of them. {remedy}"


class _Settings:
    """Special and added tokens in the files beside the vocabulary, as transformers reads them.

    Attributes:
        tokenizer_class: the given class, without "Fast".
        kind: its row of `CLASSES`; None if the class uses tokenizer.json unchanged.
        named: special tokens by their roles, such as unk_token and cls_token.
        added: tokens added to the vocabulary, by the id that the file gives them.
        has_decoder: whether they come from `added_tokens_decoder`, which then replaces those of tokenizer.json.
        extra: additional special tokens.
        split_special_tokens: whether "[SEP]" in a text is split like other text, instead of being a special token.
    """

    def __init__(self, fields: Fields, config: WordPieceConfig, tokenizer_class: str) -> None:
        self.fields = fields
        self.config = config
        self.tokenizer_class = tokenizer_class
        self.kind = CLASSES.get(tokenizer_class)
        self.added: dict[int, AddedToken] = {}
        self.has_decoder = False
        self.split_special_tokens = fields.boolean("split_special_tokens", default=False) is True
        self.named: dict[str, AddedToken] = {}
        usual = self.kind.tokens if self.kind else {}
        for name in ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"):
            if fields.values.get(name) is not None:
                self.named[name] = self._token(fields, name)
            elif name in usual:
                self.named[name] = self._special(usual[name], name)
        for name, value in fields.values.items():
            if name.endswith("_token") and isinstance(value, str) and name not in self.named:
                self.named[name] = self._token(fields, name)
        self.extra: list[AddedToken] = []
        self._read_extra(fields)

    @classmethod
    def read(cls, find: Find, config: CheckpointConfig) -> _Settings:
        file = inside(config.folder, "tokenizer_config.json")
        fields = read_fields(find, file) or Fields({}, file)
        model = read_fields(find, inside(config.folder, "config.json")) or Fields({}, "config.json")
        source = fields if fields.values.get("tokenizer_class") is not None else model
        name = source.text("tokenizer_class") or FAMILIES[config.bert.model_type].tokenizer
        if name.removesuffix("Fast") not in (*CLASSES, *AS_THE_FILE_SAYS):
            source.refuse(
                "tokenizer_class",
                "one of " + ", ".join((*CLASSES, *AS_THE_FILE_SAYS)),
                "minisbert has no other tokenizer; load this checkpoint with sentence-transformers.",
            )
        settings = cls(fields, config.wordpiece, name.removesuffix("Fast"))
        if fields.values.get("added_tokens_decoder") is not None:
            settings.has_decoder = True
            settings._read_decoder(fields)
        else:  # the files of transformers before 4.34
            if (special := read_fields(find, inside(config.folder, "special_tokens_map.json"))) is not None:
                for name, value in special.values.items():
                    if name.endswith("_token") and value is not None:
                        settings.named[name] = settings._token(special, name)
                settings._read_extra(special)
            if (added := read_fields(find, inside(config.folder, "added_tokens.json"))) is not None:
                settings._read_added(added)
        if settings.kind is not None and not settings.extra:
            settings.extra = [_special(token) for token in settings.kind.extra]
        return settings

    def rebuilt(self, kind: TokenizerClass, tokenizer: Tokenizer, file: str, load_warnings: list[str]) -> Tokenizer:
        """The tokenizer that this class of transformers would build from the vocabulary. Differences give load warnings."""
        model = type(tokenizer.model).__name__
        if model != kind.model:
            raise CheckpointError(
                f"{file}: found a {model} tokenizer, expected {kind.model}, because the tokenizer_class is {self.tokenizer_class}. "
                "Correct tokenizer_class in tokenizer_config.json; PreTrainedTokenizerFast takes the file as it is."
            )
        normalizer, pre_tokenizer = self._steps(kind, tokenizer)
        settings = self._model_settings(kind, tokenizer, file)
        if kind.model == "Unigram":
            same_model = unknown_token(tokenizer) == tokenizer.id_to_token(settings["unk_id"])
        else:
            same_model = all((getattr(tokenizer.model, name) or None) == (value or None) for name, value in settings.items())
        if file.endswith("tokenizer.json"):
            for name, before, after in (
                ("normalizer", tokenizer.normalizer, normalizer),
                ("pre_tokenizer", tokenizer.pre_tokenizer, pre_tokenizer),
            ):
                if _without_idle(kind, before) != _without_idle(kind, after):
                    load_warnings.append(
                        f"{file}: its {name} is {brief(step_json(before))}, and {brief(step_json(after))} is taken, as in "
                        "transformers: the settings of tokenizer_config.json hold"
                    )
            if not same_model:
                load_warnings.append(
                    f"{file}: its model has other settings than {self.tokenizer_class}'s, which are taken, as in transformers"
                )
        there = tokenizer.get_added_tokens_decoder()
        plain = [{number: _plain(token) for number, token in added.items()} for added in (there, self.added)]
        if not same_model or (self.has_decoder and plain[0] != plain[1]):
            values = json.loads(tokenizer.to_str()) | {"added_tokens": []}
            values["model"] |= settings
            tokenizer = Tokenizer.from_str(json.dumps(values))
            if not self.has_decoder:
                self.added |= there
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
        before, after = (self._end(tokenizer, kind.ends[place], file) for place in (0, 1))
        if kind.model == "BPE":
            tokenizer.post_processor = RobertaProcessing(after, before, add_prefix_space=bool(self.config.add_prefix_space))
        else:
            single = [f"{before[0]}:0", "$A:0", f"{after[0]}:0"]
            tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=list({before, after}))
        return tokenizer

    def _steps(self, kind: TokenizerClass, tokenizer: Tokenizer) -> tuple[Any, Any]:
        """The normalizer and the pre-tokenizer that a class builds from its settings."""
        config = self.config
        if kind.model == "BPE":
            return None, ByteLevel(add_prefix_space=config.add_prefix_space is True)
        if kind.model == "Unigram":
            parts = parts_of(step_json(tokenizer.normalizer))
            maps = [part["precompiled_charsmap"] for part in parts if part["type"] == "Precompiled"]
            scheme = "never" if config.add_prefix_space is False else "always"
            return (
                Precompiled(base64.b64decode(maps[0])) if maps else None,
                pre_tokenizers.Sequence([WhitespaceSplit(), Metaspace(prepend_scheme=scheme)]),
            )
        normalizer = BertNormalizer(
            lowercase=config.do_lower_case is not False,
            handle_chinese_chars=config.tokenize_chinese_chars is not False,
            strip_accents=config.strip_accents,
        )
        return normalizer, BertPreTokenizer()

    def _model_settings(self, kind: TokenizerClass, tokenizer: Tokenizer, file: str) -> dict[str, Any]:
        """A class's settings of the model, under the names of tokenizer.json."""
        unknown = self.named["unk_token"].content
        if kind.model == "WordPiece":
            return {"unk_token": unknown, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
        if kind.model == "BPE":
            switches = dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
            return {"dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": ""} | switches
        found = tokenizer.model.token_to_id(unknown)
        if found is None or found != (found if kind.unk_id is None else kind.unk_id):
            raise CheckpointError(
                f"{file}: the unknown token {brief(unknown)} has the id {found}, expected "
                f"{'any' if kind.unk_id is None else kind.unk_id} in its vocabulary, as {self.tokenizer_class} has it. "
                "Take an unchanged copy of it, or correct tokenizer_config.json."
            )
        return {"unk_id": found, "byte_fallback": False}

    def _end(self, tokenizer: Tokenizer, role: str, file: str) -> tuple[str, int]:
        """The special token of a role, which is added before or after every text, and its id."""
        token = self.named[role].content
        token_id = tokenizer.token_to_id(token)
        if token_id is None:
            raise CheckpointError(
                f"{file}: the token {token!r} is missing among its {tokenizer.get_vocab_size():,} tokens, expected it as the "
                f"{role}. Take an unchanged copy of it, or correct tokenizer_config.json."
            )
        return token, token_id

    def add_tokens(self, tokenizer: Tokenizer, vocab_size: int, load_warnings: list[str]) -> None:
        """Adds the tokens that the tokenizer does not have yet: by id, then special tokens by role, then additional ones."""
        known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        for token_id, token in sorted(self.added.items()):
            if token.content in {named.content for named in self.named.values()}:
                token.special = True
            if token.content not in known:
                tokenizer.add_tokens([token])
            found = tokenizer.token_to_id(token.content)
            if found != token_id:
                load_warnings.append(
                    f"{self.fields.file}: the added token {brief(token.content)} has the id {token_id} there, and {found} is "
                    "taken, as in transformers: its place in the vocabulary, or the next free id"
                )
            known.add(token.content)
        for token in (*self.named.values(), *self.extra):
            if token.content in known:
                continue
            # A token such as [MASK] stays plain text if neither the vocabulary nor the embeddings have a row for it.
            if tokenizer.token_to_id(token.content) is not None or tokenizer.get_vocab_size() < vocab_size:
                tokenizer.add_tokens([token])
                known.add(token.content)

    def _special(self, content: str, role: str) -> AddedToken:
        takes_space = role == "mask_token" and self.kind is not None and self.kind.mask_takes_space
        return AddedToken(content, special=True, normalized=False, lstrip=takes_space)

    def _token(self, fields: Fields, name: str) -> AddedToken:
        value = fields.values[name]
        return self._special(value, name) if isinstance(value, str) and value else self._object(fields, name, value, special=True)

    def _object(self, fields: Fields, name: str, value: object, *, special: bool) -> AddedToken:
        """An added token as an object: {"content": "<x>", "lstrip": false, …}."""
        if not isinstance(value, dict):
            Fields({name: value}, fields.file).refuse(name, "a token, as a text or as an object with the text in 'content'")
        given = Fields(value, f"{fields.file}, {name}")
        content = given.string("content")
        if not content:
            given.refuse("content", "the text of a token")
        special = given.boolean("special", default=special) is True
        flags = {flag: given.boolean(flag, default=False) is True for flag in ("lstrip", "rstrip", "single_word")}
        return AddedToken(content, special=special, normalized=given.boolean("normalized", default=not special) is True, **flags)

    def _read_extra(self, fields: Fields) -> None:
        for name in ("extra_special_tokens", "additional_special_tokens"):
            value = fields.values.get(name)
            if value:
                values = list(value.values()) if isinstance(value, dict) else value
                if not isinstance(values, list) or len(values) > MOST_ADDED_TOKENS:
                    fields.refuse(name, "a list of tokens")
                for one in values:
                    token = _special(one) if isinstance(one, str) and one else self._object(fields, name, one, special=True)
                    self.extra.append(token)
                return

    def _read_decoder(self, fields: Fields) -> None:
        values = fields.values["added_tokens_decoder"]
        if not isinstance(values, dict) or len(values) > MOST_ADDED_TOKENS:
            fields.refuse("added_tokens_decoder", "an object of added tokens by their ids")
        for key, value in values.items():
            if not key.isascii() or not key.isdecimal() or len(key) > 9:
                fields.refuse("added_tokens_decoder", f"token ids as keys, and not {brief(key)}")
            self.added[int(key)] = self._object(fields, f"added_tokens_decoder, {key}", value, special=False)

    def _read_added(self, fields: Fields) -> None:
        special = {token.content for token in (*self.named.values(), *self.extra)}
        if len(fields.values) > MOST_ADDED_TOKENS:
            raise CheckpointError(f"{fields.file}: found {len(fields.values):,} tokens, expected at most {MOST_ADDED_TOKENS:,}.")
        for token in fields.values:
            token_id = fields.values[token]
            if isinstance(token_id, bool) or not isinstance(token_id, int) or token_id < 0 or not token:
                fields.refuse(token, "the id of a token")
            self.added[token_id] = AddedToken(token, special=token in special, normalized=token not in special)


def _special(content: str) -> AddedToken:
    return AddedToken(content, special=True, normalized=False)


def _plain(token: AddedToken) -> tuple[object, ...]:
    return token.content, token.special, token.normalized, token.lstrip, token.rstrip, token.single_word


def _without_idle(kind: TokenizerClass, step: Any) -> list[dict[str, Any]]:
    """The parts of a step, without parts of XLM-R's old files that have no effect beside a split at spaces."""
    idle = ("WhitespaceSplit", "Strip", "Replace") if kind.model == "Unigram" else ()
    return [part for part in parts_of(step_json(step)) if part["type"] not in idle]


def _read_vocab(path: Path, file: str, load_warnings: list[str]) -> dict[str, int]:
    """Reads a vocab.txt: one token per line, whose id is the index of the line.

    As in transformers, an empty line counts but is no token, and of equal tokens the last is used. Both give a load warning.
    """
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise CheckpointError(f"{file}: {size:,} bytes, expected at most {LARGEST_JSON:,}. Take an unchanged copy of it.")
    try:
        lines = path.read_bytes().decode().split("\n")
    except ValueError as error:
        raise CheckpointError(f"{file}: not UTF-8 ({error}). Take an unchanged copy of it.") from error
    if not lines[-1]:
        lines.pop()
    vocab: dict[str, int] = {}
    odd: list[str] = []
    for number, line in enumerate(lines):
        token = line.rstrip() or line  # a trailing space is no part of a token, unless the token is all spaces
        if not token:
            odd.append(f"line {number + 1} is empty")
        elif token in vocab:
            odd.append(f"line {number + 1} is {token!r}, as line {vocab[token] + 1} is")
        vocab[token] = number
    if odd:
        load_warnings.append(
            f"{file}: {listed(odd, 3)}; as in transformers, an empty line is no token, and the last of equal tokens is used"
        )
    return vocab
