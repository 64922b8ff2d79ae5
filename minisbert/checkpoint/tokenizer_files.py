"""From a checkpoint's tokenizer files to a `WordPiece`: tokenizer.json, vocab.txt and the settings beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers
from tokenizers.models import WordPiece as WordPieceModel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from minisbert.checkpoint.config import CheckpointConfig, WordPieceConfig
from minisbert.checkpoint.fields import LARGEST_JSON, Fields, Find, brief, inside, read_fields
from minisbert.errors import CheckpointError, rust_errors
from minisbert.tokenizer import WordPiece

BERT_TOKENIZERS = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
"""Classes of transformers, with or without "Fast" behind, that are one and the same. They take their settings from
tokenizer_config.json, and from tokenizer.json the vocabulary only."""

AS_THE_FILE_SAYS = ("PreTrainedTokenizer", "TokenizersBackend")
"""Classes of transformers that take tokenizer.json as it is."""

NORMALIZERS = ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Strip", "Nmt", "Sequence")
PRE_TOKENIZERS = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "Sequence")
PROCESSORS = ("BertProcessing", "TemplateProcessing")
"""The steps that a tokenizer.json may ask for. None of them can be told to take forever, as a regular expression can."""

MOST_ADDED_TOKENS = 1 << 16


def read_tokenizer(find: Find, config: CheckpointConfig) -> WordPiece:
    """The tokenizer of a checkpoint: from `tokenizer.json`, else from `vocab.txt`, and from the settings.

    As in transformers, the settings of tokenizer_config.json and their defaults hold, also where tokenizer.json has others (which
    is remarked upon), unless `tokenizer_class` says that the file is taken as it is. Truncation and padding that are baked into
    tokenizer.json are switched off: the limit is the checkpoint's `max_seq_length`.

    Raises:
        CheckpointError: if neither file is there, or if it is broken or no WordPiece, or does not fit the model's embeddings.
    """
    settings = _Settings.read(find, config)
    file = inside(config.folder, "tokenizer.json")
    path = find(file)
    load_warnings: list[str] = []
    side = config.wordpiece.truncation_side
    if path is not None:
        tokenizer = _from_tokenizer_json(path, file)
        if side is None and tokenizer.truncation is not None:
            side = tokenizer.truncation["direction"]
    else:
        file = inside(config.folder, "vocab.txt")
        path = find(file)
        if path is None:
            raise CheckpointError(
                f"{inside(config.folder, 'tokenizer.json')} and {file}: neither is in the checkpoint, expected one of them. "
                "Add the tokenizer the model was trained with."
            )
        if not settings.bert:
            raise CheckpointError(
                f"{inside(config.folder, 'tokenizer_config.json')}: field 'tokenizer_class': found {settings.tokenizer_class}, "
                "which needs a tokenizer.json, and there is none. Add it, or correct the class to BertTokenizer."
            )
        tokenizer = Tokenizer(WordPieceModel(_read_vocab(path, file), unk_token=settings.named["unk_token"].content))

    def complaint(reason: str) -> CheckpointError:
        return CheckpointError(f"{file}: not a tokenizer that can be used ({reason}). Take an unchanged copy of the checkpoint.")

    with rust_errors(complaint):
        if settings.bert:
            tokenizer = settings.as_bert(tokenizer, file, load_warnings)
        settings.add_tokens(tokenizer, config.bert.vocab_size)
        tokenizer.encode_special_tokens = settings.split_special_tokens
        highest = max(tokenizer.get_vocab().values(), default=-1)
        if highest >= config.bert.vocab_size:
            raise CheckpointError(
                f"{file}: the highest token id is {highest}, expected at most {config.bert.vocab_size - 1}, since config.json "
                f"gives vocab_size {config.bert.vocab_size}. The tokenizer and the model do not belong together."
            )
        unknown = tokenizer.model.unk_token
        if tokenizer.model.token_to_id(unknown) is None:
            raise CheckpointError(
                f"{file}: the token {brief(unknown)} for unknown words is missing among its {tokenizer.get_vocab_size():,} tokens. "
                "Take an unchanged copy of it."
            )
        if config.lower_case_first and not _lowers(tokenizer):
            steps = [normalizers.Lowercase()]
            if tokenizer.normalizer is not None:
                steps.append(tokenizer.normalizer)
            tokenizer.normalizer = normalizers.Sequence(steps)
        names = {role: token.content for role, token in settings.named.items()}
        return WordPiece(tokenizer, config.max_seq_length, (side or "right").lower(), load_warnings, names)


def _lowers(tokenizer: Tokenizer) -> bool:
    return isinstance(tokenizer.normalizer, BertNormalizer) and tokenizer.normalizer.lowercase


class _Settings:
    """What the files beside the vocabulary say about special and added tokens, as transformers reads them.

    Attributes:
        tokenizer_class: as given, without "Fast".
        bert: whether that is one of `BERT_TOKENIZERS`.
        named: unk_token, cls_token and the like.
        added: tokens beside the vocabulary, by the number that the file gives them.
        has_decoder: whether they are from `added_tokens_decoder`, which then stands for those of tokenizer.json.
        extra: additional special tokens.
        split_special_tokens: whether "[SEP]" in a text is a text and not a token.
    """

    def __init__(self, fields: Fields, config: WordPieceConfig, tokenizer_class: str) -> None:
        self.fields = fields
        self.config = config
        self.tokenizer_class = tokenizer_class
        self.bert = tokenizer_class in BERT_TOKENIZERS
        self.added: dict[int, AddedToken] = {}
        self.has_decoder = False
        self.split_special_tokens = fields.boolean("split_special_tokens", default=False) is True
        self.named: dict[str, AddedToken] = {}
        for name in ("bos_token", "eos_token"):
            if fields.values.get(name) is not None:
                self.named[name] = self._token(fields, name)
        for name in ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token"):
            given = fields.values.get(name) is not None
            self.named[name] = self._token(fields, name) if given else _special(getattr(config, name))
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
        name = "BertTokenizer" if source.values.get("tokenizer_class") is None else source.string("tokenizer_class")
        if name.removesuffix("Fast") not in (*BERT_TOKENIZERS, *AS_THE_FILE_SAYS):
            source.refuse(
                "tokenizer_class",
                "one of " + ", ".join((*BERT_TOKENIZERS, *AS_THE_FILE_SAYS)),
                "minisbert has WordPiece as BERT has it, and no other tokenizer; load this checkpoint with sentence-transformers.",
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
        return settings

    def as_bert(self, tokenizer: Tokenizer, file: str, load_warnings: list[str]) -> Tokenizer:
        """The tokenizer that transformers' BertTokenizer would build from the same vocabulary; what differs is remarked upon."""
        unknown = self.named["unk_token"].content
        normalizer = BertNormalizer(
            lowercase=self.config.do_lower_case is not False,
            handle_chinese_chars=self.config.tokenize_chinese_chars is not False,
            strip_accents=self.config.strip_accents,
        )
        built = Tokenizer(WordPieceModel({}, unk_token=unknown))
        built.normalizer, built.pre_tokenizer = normalizer, BertPreTokenizer()
        model, plain = tokenizer.model, built.model
        same_model = (model.unk_token, model.continuing_subword_prefix, model.max_input_chars_per_word) == (
            plain.unk_token, plain.continuing_subword_prefix, plain.max_input_chars_per_word,
        )  # fmt: skip
        if file.endswith("tokenizer.json"):
            for name, before, after in (
                ("normalizer", tokenizer.normalizer, normalizer),
                ("pre_tokenizer", tokenizer.pre_tokenizer, built.pre_tokenizer),
            ):
                if _state(before) != _state(after):
                    load_warnings.append(
                        f"{file}: its {name} is {brief(_state(before))}, and {_state(after)} is taken, as in transformers: "
                        "the settings of tokenizer_config.json hold"
                    )
            if not same_model:
                load_warnings.append(f"{file}: its model has other settings than BERT's, which are taken, as in transformers")
        there = tokenizer.get_added_tokens_decoder()
        if not same_model or (self.has_decoder and {n: _plain(t) for n, t in there.items()} != self._plain_added()):
            built = Tokenizer(WordPieceModel(tokenizer.get_vocab(with_added_tokens=False), unk_token=unknown))
            if not self.has_decoder:
                self.added |= there
            tokenizer = built
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, BertPreTokenizer()
        ends = [self.named[name].content for name in ("cls_token", "sep_token")]
        numbers = [tokenizer.token_to_id(token) for token in ends]
        for token, number in zip(ends, numbers, strict=True):
            if number is None:
                raise CheckpointError(
                    f"{file}: the token {token!r} is missing among its {tokenizer.get_vocab_size():,} tokens, expected the special "
                    f"tokens {', '.join(ends)}. Take an unchanged copy of it, or correct tokenizer_config.json."
                )
        tokenizer.post_processor = TemplateProcessing(
            single=[f"{ends[0]}:0", "$A:0", f"{ends[1]}:0"], special_tokens=list(dict(zip(ends, numbers, strict=True)).items())
        )
        return tokenizer

    def add_tokens(self, tokenizer: Tokenizer, room: int) -> None:
        """Adds what the vocabulary does not know as whole tokens yet: by number, then the named ones, then the extra ones."""
        known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        for number, token in sorted(self.added.items()):
            if token.content in {named.content for named in self.named.values()}:
                token.special = True
            if token.content not in known:
                tokenizer.add_tokens([token])
            found = tokenizer.token_to_id(token.content)
            if found != number:
                raise CheckpointError(
                    f"{self.fields.file}: the added token {brief(token.content)} has the number {number}, but the next free one "
                    f"in the vocabulary is {found}. The files are of different models; take an unchanged copy of the checkpoint."
                )
            known.add(token.content)
        for token in (*self.named.values(), *self.extra):
            if token.content in known:
                continue
            # A [MASK] that neither the vocabulary nor the embedding has a place for is just a text.
            if tokenizer.token_to_id(token.content) is not None or tokenizer.get_vocab_size() < room:
                tokenizer.add_tokens([token])
                known.add(token.content)

    def _plain_added(self) -> dict[int, object]:
        return {number: _plain(token) for number, token in self.added.items()}

    def _token(self, fields: Fields, name: str) -> AddedToken:
        value = fields.values[name]
        return _special(value) if isinstance(value, str) and value else self._object(fields, name, value, special=True)

    def _object(self, fields: Fields, name: str, value: object, *, special: bool) -> AddedToken:
        """An added token as an object: {"content": "<x>", "lstrip": false, …}."""
        if not isinstance(value, dict):
            fields.refuse(name, "a token, as a text or as an object with the text in 'content'")
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
            fields.refuse("added_tokens_decoder", "an object of added tokens by their numbers")
        for number, value in values.items():
            if not number.isascii() or not number.isdecimal() or len(number) > 9:
                fields.refuse("added_tokens_decoder", f"numbers as keys, and not {brief(number)}")
            self.added[int(number)] = self._object(fields, f"added_tokens_decoder, {number}", value, special=False)

    def _read_added(self, fields: Fields) -> None:
        special = {token.content for token in (*self.named.values(), *self.extra)}
        if len(fields.values) > MOST_ADDED_TOKENS:
            raise CheckpointError(f"{fields.file}: found {len(fields.values):,} tokens, expected at most {MOST_ADDED_TOKENS:,}.")
        for token in fields.values:
            number = fields.values[token]
            if isinstance(number, bool) or not isinstance(number, int) or number < 0 or not token:
                fields.refuse(token, "the number of a token")
            self.added[number] = AddedToken(token, special=token in special, normalized=token not in special)


def _special(content: str) -> AddedToken:
    return AddedToken(content, special=True, normalized=False)


def _plain(token: AddedToken) -> tuple[object, ...]:
    return token.content, token.special, token.normalized, token.lstrip, token.rstrip, token.single_word


def _state(step: Any) -> object:
    """A step of a tokenizer as it stands in tokenizer.json."""
    return None if step is None else json.loads(step.__getstate__())


def _from_tokenizer_json(path: Path, file: str) -> Tokenizer:
    def complaint(reason: str) -> CheckpointError:
        return CheckpointError(f"{file}: not a tokenizer that can be read ({reason}). Take an unchanged copy of it.")

    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise complaint(f"{size:,} bytes, expected at most {LARGEST_JSON:,}")
    with rust_errors(complaint):
        tokenizer = Tokenizer.from_file(str(path))
        kind = type(tokenizer.model).__name__
    if not isinstance(tokenizer.model, WordPieceModel):
        raise CheckpointError(
            f"{file}: found a {kind} tokenizer, expected WordPiece, as BERT has. Load this checkpoint with sentence-transformers."
        )
    for field, step, allowed in (
        ("normalizer", tokenizer.normalizer, NORMALIZERS),
        ("pre_tokenizer", tokenizer.pre_tokenizer, PRE_TOKENIZERS),
        ("post_processor", tokenizer.post_processor, PROCESSORS),
    ):
        for name in _types(_state(step)):
            if name not in allowed:
                raise CheckpointError(
                    f"{file}: field {field!r}: found {brief(name)}, expected one of {', '.join(allowed)}. "
                    "minisbert does not run this step; load this checkpoint with sentence-transformers."
                )
    return tokenizer


def _types(state: object) -> list[object]:
    """The type of a step and of the steps in it."""
    if not isinstance(state, dict):
        return []
    inner = [part for name in ("normalizers", "pretokenizers", "processors") for part in state.get(name) or []]
    return [state.get("type"), *(kind for part in inner for kind in _types(part))]


def _read_vocab(path: Path, file: str) -> dict[str, int]:
    """A vocab.txt: one token a line, whose number is that of the line, from 0."""
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
    for number, line in enumerate(lines):
        token = line.rstrip() or line  # a token is never found with a space behind it; one that is all spaces, never at all
        if not token:
            raise CheckpointError(f"{file}: line {number + 1} is empty, expected a token. Take an unchanged copy of it.")
        if token in vocab:
            raise CheckpointError(
                f"{file}: line {number + 1} is {token!r}, as line {vocab[token] + 1} is; expected each token once. "
                "Take an unchanged copy of it."
            )
        vocab[token] = number
    return vocab
