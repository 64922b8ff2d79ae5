"""Text → word pieces → ids: a wrapper around the Rust library `tokenizers`.

WordPiece (Wu et al. 2016, section 4.1; Devlin et al. 2019, section 3) splits a word into the longest pieces that its vocabulary
knows: "embeddings" → em ##bed ##ding ##s. The algorithm is the library's; what lives here is how a checkpoint's files become a
tokenizer, and the limit: the library would cut a long text without a word, so it never cuts here; this wrapper does, and counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, normalizers
from tokenizers.models import WordPiece as WordPieceModel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from minisbert.config import CheckpointConfig, Find, WordPieceConfig, inside
from minisbert.errors import CheckpointError


@dataclass(frozen=True)
class Tokenized:
    """The ids of some texts, and what had to be cut off.

    Attributes:
        ids: the ids of each text, special tokens included, at most the limit.
        full_lengths: how many ids each text had before it was cut, special tokens included.
    """

    ids: list[list[int]]
    full_lengths: list[int]

    @property
    def cut(self) -> list[int]:
        """The indices of the texts that lost something."""
        return [index for index, ids in enumerate(self.ids) if len(ids) < self.full_lengths[index]]


class WordPiece:
    """Texts in, ids out, at most `max_length` of them a text, special tokens included.

    Attributes:
        tokenizer: the wrapped `tokenizers.Tokenizer`, without truncation and padding.
        max_length: the limit in tokens, special tokens included.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, truncation_side: str = "right") -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.truncation_side = truncation_side
        special = tokenizer.encode("").ids
        content = tokenizer.encode("a", add_special_tokens=False).ids
        framed = tokenizer.encode("a").ids
        before = next(n for n in range(len(special) + 1) if framed[n : n + len(content)] == content)
        self.prefix, self.suffix = special[:before], special[before:]  # [CLS] and [SEP], as a rule
        self.max_length = max_length

    @property
    def max_length(self) -> int:
        """The limit in tokens, special tokens included."""
        return self._max_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        least = len(self.prefix) + len(self.suffix) + 1
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"max_length: found {type(value).__name__}, expected an int.")
        if value < least:
            raise ValueError(f"max_length: found {value}, expected at least {least}: the special tokens and one more.")
        self._max_length = value

    @property
    def vocab_size(self) -> int:
        """How many ids there are, added tokens included."""
        return self.tokenizer.get_vocab_size()

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """The ids of each text, cut to the limit with the special tokens kept."""
        room = self.max_length - len(self.prefix) - len(self.suffix)
        ids = []
        full_lengths = []
        for some in _portions(texts):
            for encoding in self.tokenizer.encode_batch_fast(some, add_special_tokens=False):
                content = encoding.ids
                full_lengths.append(len(self.prefix) + len(content) + len(self.suffix))
                content = content[:room] if self.truncation_side == "right" else content[-room:]
                ids.append(self.prefix + content + self.suffix)
        return Tokenized(ids, full_lengths)


def _portions(texts: Sequence[str], most: int = 1024, characters: int = 1 << 20) -> Iterator[list[str]]:
    """Texts in portions, since the library keeps some hundred bytes a token of all texts that it is given at once.

    >>> list(_portions(["a", "b", "long", "c"], most=3, characters=5))
    [['a', 'b', 'long'], ['c']]
    """
    some: list[str] = []
    held = 0
    for text in texts:
        some.append(text)
        held += len(text)
        if len(some) >= most or held >= characters:
            yield some
            some, held = [], 0
    if some:
        yield some


def read_tokenizer(find: Find, config: CheckpointConfig) -> WordPiece:
    """The tokenizer of a checkpoint: from `tokenizer.json`, else from `vocab.txt` and the settings.

    Truncation and padding that are baked into tokenizer.json are switched off: the limit is the checkpoint's `max_seq_length`.

    Raises:
        CheckpointError: if neither file is there, or if it is broken or no WordPiece, or does not fit the model's embeddings.
    """
    side = config.wordpiece.truncation_side
    file = inside(config.folder, "tokenizer.json")
    path = find(file)
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
        tokenizer = _from_vocab(path, file, config.wordpiece)

    highest = max(tokenizer.get_vocab().values())
    if highest >= config.bert.vocab_size:
        raise CheckpointError(
            f"{file}: the highest token id is {highest}, expected at most {config.bert.vocab_size - 1}, since config.json "
            f"gives vocab_size {config.bert.vocab_size}. The tokenizer and the model do not belong together."
        )
    if config.lower_case_first:
        steps = [normalizers.Lowercase()]
        if tokenizer.normalizer is not None:
            steps.append(tokenizer.normalizer)
        tokenizer.normalizer = normalizers.Sequence(steps)
    return WordPiece(tokenizer, config.max_seq_length, (side or "right").lower())


def _from_tokenizer_json(path: Path, file: str) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises bare Exceptions
        raise CheckpointError(f"{file}: not a tokenizer that can be read ({error}). Take an unchanged copy of it.") from error
    if not isinstance(tokenizer.model, WordPieceModel):
        raise CheckpointError(
            f"{file}: found a {type(tokenizer.model).__name__} tokenizer, expected WordPiece, as BERT has. "
            "Load this checkpoint with sentence-transformers."
        )
    return tokenizer


def _from_vocab(path: Path, file: str, config: WordPieceConfig) -> Tokenizer:
    """Builds what transformers' BertTokenizer builds from a vocab.txt, with the same defaults (lower-casing among them)."""
    try:
        lines = path.read_bytes().decode().split("\n")
    except ValueError as error:
        raise CheckpointError(f"{file}: not UTF-8 ({error}). Take an unchanged copy of it.") from error
    if lines and not lines[-1]:
        lines.pop()
    vocab: dict[str, int] = {}
    for number, line in enumerate(lines):
        token = line.removesuffix("\r")
        if token in vocab:
            raise CheckpointError(
                f"{file}: line {number + 1} is {token!r}, as line {vocab[token] + 1} is; expected each token once. "
                "Take an unchanged copy of it."
            )
        vocab[token] = number
    special = [config.unk_token, config.cls_token, config.sep_token]
    for token in special:
        if token not in vocab:
            raise CheckpointError(
                f"{file}: the token {token!r} is missing among its {len(vocab):,} lines, expected the special tokens "
                f"{', '.join(special)}. Take an unchanged copy of it, or correct tokenizer_config.json."
            )
    tokenizer = Tokenizer(WordPieceModel(vocab, unk_token=config.unk_token))
    tokenizer.normalizer = BertNormalizer(
        lowercase=config.do_lower_case is not False,
        handle_chinese_chars=config.tokenize_chinese_chars is not False,
        strip_accents=config.strip_accents,
    )
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{config.cls_token} $A {config.sep_token}",
        special_tokens=[(config.cls_token, vocab[config.cls_token]), (config.sep_token, vocab[config.sep_token])],
    )
    named = [*special, config.pad_token, config.mask_token]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in named if token in vocab])
    return tokenizer
