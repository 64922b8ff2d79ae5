"""Many texts in, rows out, with the memory of a few: windows over any iterable, the rows of each, and what a caller is told."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minisbert.bert import LengthGroup
from minisbert.inference.batching import Batch
from minisbert.tokenizer import Tokenized, portions

if TYPE_CHECKING:
    from huggingface_hub.utils.tqdm import tqdm


WINDOW = 8192
"""Texts in one window: some 80 batches of short sentences, which gives 99 % of what sorting by length can gain."""

FIRST_WINDOW = 256
"""Texts in the first window, so that the first rows come soon; each further one is twice as large, up to the full size."""

WINDOW_CHARACTERS = 1 << 22
"""The most characters in a window, so that long texts do not fill the memory."""


def windows(texts: Iterable[str], most: int, characters: int = WINDOW_CHARACTERS) -> Iterator[list[str]]:
    """Cuts a stream of texts into lists, reading no further than the one that is asked for.

    >>> [len(window) for window in windows(map(str, range(1000)), most=512)]
    [256, 512, 232]
    """
    return portions(texts, most, characters, FIRST_WINDOW)


class VectorStream(Iterator[Any]):
    """What `SentenceEncoder.encode_stream` returns: an iterator over batches of rows, [sentences, dim] each."""

    def __init__(self, rows: Generator[Any, None, None], cut: TruncationReport, progress: Progress) -> None:
        self._rows = rows
        self._cut = cut
        self._progress = progress

    @property
    def texts(self) -> int:
        """How many texts were read and tokenized so far."""
        return self._cut.texts

    @property
    def cut(self) -> int:
        """How many of them were longer than the limit and were cut."""
        return self._cut.cut

    @property
    def longest(self) -> int:
        """Tokens of the longest text that was cut; 0 if none was."""
        return self._cut.longest

    @property
    def tokens(self) -> int:
        """How many tokens were computed so far; those of equal texts in one window once."""
        return self._progress.tokens

    def __iter__(self) -> VectorStream:
        return self

    def __next__(self) -> Any:
        return next(self._rows)

    def close(self) -> None:
        """Ends the stream early: nothing more is read. The end of the program, or of all references to the stream, does so too."""
        self._rows.close()


class TruncationReport:
    """The texts that were longer than the limit, counted window after window.

    Attributes:
        limit: the limit in tokens, special tokens included.
        texts: how many texts there were, cut or not.
        cut: how many of them were longer.
        longest: tokens of the longest of them.
        first: the index of the first of them, and its tokens; without a meaning if there is none.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.texts = 0
        self.cut = 0
        self.longest = 0
        self.first = (0, 0)

    def add(self, texts: Sequence[str], unique: Sequence[str], tokenized: Tokenized) -> None:
        """Counts one more window: the caller's texts, each of them once, and the ids of those."""
        lengths = {unique[index]: tokenized.untruncated_lengths[index] for index in tokenized.cut}
        if lengths:
            cut = [index for index, text in enumerate(texts) if text in lengths]
            if not self.cut:
                self.first = (self.texts + cut[0], lengths[texts[cut[0]]])
            self.cut += len(cut)
            self.longest = max(self.longest, *lengths.values())
        self.texts += len(texts)

    def message(self, happened: str = "cut") -> str:
        """The whole story in one line, if there is one; `happened` is "" if they were not cut."""
        index, tokens = self.first
        which = f"the longest has {self.longest} tokens, the first is number {index + 1} (index {index}) with {tokens}"
        return (
            f"{too_long(self.cut, self.texts, self.limit, happened)}: {f'it has {tokens} tokens' if self.texts == 1 else which}. "
            "Split long texts, or pass on_truncate='ignore' if this is meant."
        )


def too_long(longer: int, texts: int, limit: int, happened: str = "cut") -> str:
    """How many of the texts are longer than the limit, and what happened to them.

    >>> too_long(1, 2, 32), too_long(1, 1, 32, "")
    ('1 of 2 texts is longer than 32 tokens and was cut', 'the text is longer than 32 tokens')
    """
    which = "the text" if texts == 1 else f"{longer} of {texts} texts"
    verb, past = ("is", "was") if longer == 1 else ("are", "were")
    return f"{which} {verb} longer than {limit} tokens" + (f" and {past} {happened}" if happened else "")


def progress_bar(**options: Any) -> tqdm | None:
    """A bar on stderr; None where there is none to write to: in a service, under pythonw, embedded in another program."""
    if not has_console():
        return None
    from huggingface_hub.utils.tqdm import tqdm  # the bar that huggingface_hub brings along; its import takes time

    return tqdm(**options)


def has_console() -> bool:
    """Whether stderr is open, and can do what a line that is written over needs."""
    return not getattr(sys.stderr, "closed", True) and all(hasattr(sys.stderr, name) for name in ("write", "flush", "isatty"))


def on_terminal() -> bool:
    """Whether stderr is one, or the output of a notebook's cell."""
    return has_console() and (sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel"))


class Progress:
    """A bar on stderr, if that can show one, that counts sentences and tokens.

    Args:
        shown: True, False, or None: on a terminal, when there is more than one batch.
        sentences: how many there will be, if that is known.
    """

    def __init__(self, shown: bool | None, sentences: int | None) -> None:  # noqa: FBT001 (an option handed on)
        self.shown = shown
        self.sentences = sentences
        self.tokens = 0
        self._bar: tqdm | None = None

    def start(self, batches: int) -> None:
        """Says how many batches come next."""
        if self.shown is None:
            self.shown = True if batches > 1 and on_terminal() else None
        if self.shown and self._bar is None:
            self._bar = progress_bar(total=self.sentences, unit="sentence", desc="encode")

    def update(self, sentences: int, tokens: int) -> None:
        """Adds to the numbers of sentences and tokens that are done."""
        self.tokens += tokens
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.tokens:,} tokens", refresh=False)
            self._bar.update(sentences)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


@dataclass(frozen=True)
class Window:
    """Some texts on their way.

    Attributes:
        texts: the caller's.
        unique: each of them once.
        ids: the word pieces of each of `unique`.
        start: how many texts came before these, in earlier windows.
    """

    texts: list[str]
    unique: list[str]
    ids: list[list[int]]
    start: int


class TokenRows:
    """Takes padded token vectors as a tensor takes rows, and keeps of each sentence what is its own: [tokens, hidden]."""

    def __init__(self, ids: list[list[int]]) -> None:
        self.lengths = [len(some) for some in ids]
        self.rows: dict[int, Tensor] = {}

    def __setitem__(self, indices: list[int], values: Tensor, /) -> None:
        for index, value in zip(indices, values, strict=True):
            self.rows[index] = value[: self.lengths[index]].clone()  # or all of its batch would stay in memory with it

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]


def first_not_finite(vectors: Tensor, batch: Batch) -> int | None:
    """The lowest index in a batch whose vector, or vectors of tokens, hold NaN or infinite values: [sentences, …] in its order."""
    finite = vectors.isfinite()
    if finite.all():
        return None
    rows = finite.flatten(1).all(dim=1).tolist()
    return min(index for index, good in zip(batch.indices, rows, strict=True) if not good)


def padded(token_vectors: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
    """[tokens, hidden] → [sentences, longest, hidden], with zeros behind the shorter ones."""
    longest = max(length for _, length in groups)
    blocks = []
    start = 0
    for sentences, length in groups:
        stop = start + sentences * length
        blocks.append(F.pad(token_vectors[start:stop].view(sentences, length, -1), (0, 0, 0, longest - length)))
        start = stop
    return torch.cat(blocks)


def in_order(rows: Tensor | TokenRows, window: Window, *, as_numpy: bool) -> Any:
    """The rows of the different texts → the rows of the caller's."""
    row = {text: index for index, text in enumerate(window.unique)}
    order = [row[text] for text in window.texts]
    if isinstance(rows, TokenRows):
        tokens = [rows[index].clone() for index in order]  # equal texts do not share memory: a caller may change one of them
        return [vectors.numpy() for vectors in tokens] if as_numpy else tokens
    vectors = rows if len(window.unique) == len(window.texts) else rows[order]
    return vectors.numpy() if as_numpy else vectors


def beginning(text: str, most: int = 40) -> str:
    """A text as an error shows it.

    >>> beginning("a" * 100, most=3)
    "'aaa'…"
    """
    return repr(text) if len(text) <= most else f"{text[:most]!r}…"
