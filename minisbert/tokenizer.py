"""Text → word pieces → token ids: a wrapper around the Rust library `tokenizers`.

WordPiece (Wu et al. 2016, section 4.1; Devlin et al. 2019, section 3) splits a word into the longest pieces that its vocabulary
knows: "embeddings" → em ##bed ##ding ##s. RoBERTa has byte-level BPE instead, XLM-RoBERTa and CamemBERT have Unigram. The library
runs these algorithms. This wrapper truncates long texts itself, because the library does not report which texts it truncated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from minisbert.errors import CheckpointError, rust_errors

MOST_TEXTS, MOST_CHARACTERS = 1024, 1 << 20
"""The most texts and characters in one call of the library, which keeps some hundred bytes for each token of the call."""


@dataclass(frozen=True)
class Tokenized:
    """The ids of some texts, and how long they were before truncation.

    Attributes:
        ids: the token ids of each text, special tokens included, at most as many as the limit.
        untruncated_lengths: how many token ids each text had before truncation, special tokens included.
    """

    ids: list[list[int]]
    untruncated_lengths: list[int]

    @property
    def cut(self) -> list[int]:
        """The indices of the texts that were truncated."""
        return [index for index, ids in enumerate(self.ids) if len(ids) < self.untruncated_lengths[index]]


class TextTokenizer:
    """Texts → token ids, at most `max_length` of them for each text, special tokens included.

    Attributes:
        tokenizer: the wrapped `tokenizers.Tokenizer`, without truncation and padding.
        max_length: the limit in tokens, special tokens included.
        load_warnings: warnings about the files that it was made from.
        names: the special tokens by their roles, such as unk_token and cls_token.

    Raises:
        ValueError: if the tokenizer does more to a text than to put special tokens before and after it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int,
        truncation_side: str = "right",
        load_warnings: Sequence[str] = (),
        names: Mapping[str, str] | None = None,
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.truncation_side = truncation_side
        self.load_warnings = tuple(load_warnings)
        self.names = dict(names or {})
        special = tokenizer.encode("").ids
        content = tokenizer.encode("a", add_special_tokens=False).ids
        whole = tokenizer.encode("a")
        for before in range(len(special) + 1):
            if whole.ids == special[:before] + content + special[before:] and not any(whole.type_ids):
                self.prefix, self.suffix = special[:before], special[before:]  # [CLS] and [SEP], as a rule
                break
        else:
            raise ValueError("found a tokenizer that does more than add special tokens of the first segment around a text")
        self.max_length = max_length

    def __repr__(self) -> str:
        special = [str(self.tokenizer.id_to_token(token_id)) for token_id in (*self.prefix, *self.suffix)]
        return f"TextTokenizer({self.vocab_size:,} tokens, at most {self.max_length} per text, special tokens {' '.join(special)})"

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
        """The number of token ids, added tokens included."""
        return self.tokenizer.get_vocab_size()

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """The token ids of each text, truncated to the limit; special tokens are kept.

        Raises:
            CheckpointError: if the tokenizer's files are damaged in a way that only some texts reveal.
        """
        most = self.max_length - len(self.prefix) - len(self.suffix)
        ids = []
        untruncated_lengths = []
        for some in portions(texts, MOST_TEXTS, MOST_CHARACTERS):
            with rust_errors(_broken):
                encodings = self.tokenizer.encode_batch_fast(some, add_special_tokens=False)
            for encoding in encodings:
                content = encoding.ids
                untruncated_lengths.append(len(self.prefix) + len(content) + len(self.suffix))
                content = content[:most] if self.truncation_side == "right" else content[-most:]
                ids.append(self.prefix + content + self.suffix)
        return Tokenized(ids, untruncated_lengths)


def _broken(reason: str) -> CheckpointError:
    return CheckpointError(
        f"the tokenizer fails at these texts ({reason}), so its files are damaged. Take an unchanged copy of them."
    )


def portions(texts: Iterable[str], most: int, characters: int, first: int | None = None) -> Iterator[list[str]]:
    """Splits an iterable of texts into lists, and reads no further than the list that is asked for.

    Args:
        texts: any iterable of texts.
        most: the most texts in a list.
        characters: a list ends as soon as its texts have this many characters.
        first: the most texts in the first list. Each next list may be twice as long, up to `most`. Default: `most`.

    >>> list(portions(["a", "b", "long", "c"], most=3, characters=5))
    [['a', 'b', 'long'], ['c']]
    >>> [len(some) for some in portions(map(str, range(1000)), most=512, characters=10_000, first=256)]
    [256, 512, 232]
    """
    size = most if first is None else min(first, most)
    some: list[str] = []
    held = 0
    for text in texts:
        some.append(text)
        held += len(text)
        if len(some) >= size or held >= characters:
            yield some
            some, held = [], 0
            size = min(2 * size, most)
    if some:
        yield some
