"""Streams of texts: windows over any iterable, their rows, the report of truncated texts, and the progress bar."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minisbert.bert import LengthGroup, split
from minisbert.inference.batching import Batch
from minisbert.tokenizer import Tokenized, portions

if TYPE_CHECKING:
    from huggingface_hub.utils.tqdm import tqdm


WINDOW = 8192
"""Texts in a window: about 80 batches of short sentences, which gains 99 % of what sorting by length can gain."""

FIRST_WINDOW = 256
"""Texts in the first window, so that the first rows come soon. Each next window is twice as large, up to the full size."""

WINDOW_CHARACTERS = 1 << 22
"""The most characters in a window, which bounds memory for long texts."""


def windows(texts: Iterable[str], most: int, characters: int = WINDOW_CHARACTERS) -> Iterator[list[str]]:
    """Splits a stream of texts into windows, and reads no further than the window that is asked for.

    >>> [len(window) for window in windows(map(str, range(1000)), most=512)]
    [256, 512, 232]
    """
    return portions(texts, most, characters, FIRST_WINDOW)


class VectorStream(Iterator[Any]):
    """What `SentenceEncoder.encode_stream` returns: an iterator over batches of rows, [sentences, dim] each."""

    def __init__(self, rows: Generator[Any, None, None], report: TruncationReport, progress: Progress) -> None:
        self._rows = rows
        self._report = report
        self._progress = progress

    @property
    def texts(self) -> int:
        """The number of texts that were read and tokenized so far."""
        return self._report.texts

    @property
    def cut(self) -> int:
        """The number of texts so far that were longer than the limit and were truncated."""
        return self._report.cut

    @property
    def longest(self) -> int:
        """The number of tokens of the longest text that was truncated, before truncation; 0 if none was."""
        return self._report.longest

    @property
    def tokens(self) -> int:
        """The number of tokens that were computed so far. Equal texts in one window count once."""
        return self._progress.tokens

    def __iter__(self) -> VectorStream:
        return self

    def __next__(self) -> Any:
        return next(self._rows)

    def close(self) -> None:
        """Ends the stream early; no more texts are read. This also happens when the stream is garbage-collected."""
        self._rows.close()


class TruncationReport:
    """Counts the texts that are longer than the limit, over all windows.

    Attributes:
        limit: the limit in tokens, special tokens included.
        texts: the number of all texts.
        cut: the number of texts that are longer than the limit.
        longest: the number of tokens of the longest of these.
        first: the index of the first of these, and its number of tokens; meaningless if there is none.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.texts = 0
        self.cut = 0
        self.longest = 0
        self.first = (0, 0)

    def add(self, texts: Sequence[str], unique: Sequence[str], tokenized: Tokenized) -> None:
        """Counts one more window: the caller's texts, the same without duplicates, and the token ids of the latter."""
        lengths = {unique[index]: tokenized.untruncated_lengths[index] for index in tokenized.cut}
        if lengths:
            cut = [index for index, text in enumerate(texts) if text in lengths]
            if not self.cut:
                self.first = (self.texts + cut[0], lengths[texts[cut[0]]])
            self.cut += len(cut)
            self.longest = max(self.longest, *lengths.values())
        self.texts += len(texts)

    def message(self, happened: str = "cut") -> str:
        """The report in one line, if any text is too long; `happened` is "" if texts were not truncated."""
        index, tokens = self.first
        which = f"the longest has {self.longest} tokens, the first is number {index + 1} (index {index}) with {tokens}"
        return (
            f"{too_long(self.cut, self.texts, self.limit, happened)}: {f'it has {tokens} tokens' if self.texts == 1 else which}. "
            "Split long texts, or pass on_truncate='ignore' if this is meant."
        )


def too_long(longer: int, texts: int, limit: int, happened: str = "cut") -> str:
    """Says how many of the texts are longer than the limit, and what happened to them.

    >>> too_long(1, 2, 32), too_long(1, 1, 32, "")
    ('1 of 2 texts is longer than 32 tokens and was cut', 'the text is longer than 32 tokens')
    """
    which = "the text" if texts == 1 else f"{longer} of {texts} texts"
    verb, past = ("is", "was") if longer == 1 else ("are", "were")
    return f"{which} {verb} longer than {limit} tokens" + (f" and {past} {happened}" if happened else "")


def progress_bar(**options: Any) -> tqdm | None:
    """A progress bar on stderr; None if stderr cannot show one, as in a service or under pythonw."""
    if not has_console():
        return None
    from huggingface_hub.utils.tqdm import tqdm  # slow to import

    return tqdm(**options)


def has_console() -> bool:
    """Whether stderr is open, and has the methods that a progress bar needs."""
    return not getattr(sys.stderr, "closed", True) and all(hasattr(sys.stderr, name) for name in ("write", "flush", "isatty"))


def on_terminal() -> bool:
    """Whether stderr is a terminal or the output of a notebook's cell."""
    return has_console() and (sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel"))


class Progress:
    """Counts sentences and tokens, and shows a progress bar on stderr.

    Args:
        shown: whether to show a bar; None: on a terminal, if there is more than one batch.
        sentences: the number of all sentences; None: unknown.
    """

    def __init__(self, shown: bool | None, sentences: int | None) -> None:  # noqa: FBT001 (an option handed on)
        self.shown = shown
        self.sentences = sentences
        self.tokens = 0
        self._bar: tqdm | None = None

    def start(self, batches: int) -> None:
        """Shows the bar, if it is wanted for this number of batches."""
        if self.shown is None:
            self.shown = True if batches > 1 and on_terminal() else None
        if self.shown and self._bar is None:
            self._bar = progress_bar(total=self.sentences, unit="sentence", desc="encode")

    def update(self, sentences: int, tokens: int) -> None:
        """Adds to the sentences and tokens that are done."""
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
    """The texts that are computed together.

    Attributes:
        texts: the caller's texts.
        unique: the same without duplicates.
        ids: the token ids of each text of `unique`.
        start: the number of texts in earlier windows.
    """

    texts: list[str]
    unique: list[str]
    ids: list[list[int]]
    start: int


class TokenRows:
    """Takes padded token vectors as a tensor takes rows, and keeps those of each sentence without padding: [tokens, hidden]."""

    def __init__(self, ids: list[list[int]]) -> None:
        self.lengths = [len(some) for some in ids]
        self.rows: dict[int, Tensor] = {}

    def __setitem__(self, indices: list[int], values: Tensor, /) -> None:
        for index, value in zip(indices, values, strict=True):
            self.rows[index] = value[: self.lengths[index]].clone()  # a view would keep the whole batch in memory

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]


def first_not_finite(vectors: Tensor, batch: Batch) -> int | None:
    """The smallest index of a sentence whose vectors hold NaN or infinite values, or None; `vectors` is [sentences, …]."""
    finite = vectors.isfinite()
    if finite.all():
        return None
    rows = finite.flatten(1).all(dim=1).tolist()
    return min(index for index, good in zip(batch.indices, rows, strict=True) if not good)


def padded(token_vectors: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
    """[tokens, hidden] → [sentences, longest, hidden], with zeros after the shorter sentences."""
    longest = max(length for _, length in groups)
    return torch.cat([F.pad(block, (0, 0, 0, longest - block.shape[1])) for block in split(token_vectors, groups)])


def in_order(rows: Tensor | TokenRows, window: Window, *, as_numpy: bool) -> Any:
    """The rows of the unique texts → a row for each of the caller's texts."""
    row = {text: index for index, text in enumerate(window.unique)}
    indices = [row[text] for text in window.texts]
    if isinstance(rows, TokenRows):
        tokens = [rows[index].clone() for index in indices]  # equal texts do not share memory: a caller may change one of them
        return [vectors.numpy() for vectors in tokens] if as_numpy else tokens
    vectors = rows if len(window.unique) == len(window.texts) else rows[indices]
    return vectors.numpy() if as_numpy else vectors


def beginning(text: str, most: int = 40) -> str:
    """The beginning of a text, quoted, for an error message.

    >>> beginning("a" * 100, most=3)
    "'aaa'…"
    """
    return repr(text) if len(text) <= most else f"{text[:most]!r}…"
