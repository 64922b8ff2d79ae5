"""What a caller is told about the work: texts that were cut, and how far it has come."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minisbert.tokenizer import Tokenized

if TYPE_CHECKING:
    from huggingface_hub.utils.tqdm import tqdm


class Cut:
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
        """Counts one more window of texts.

        Args:
            texts: the caller's.
            unique: each of them once.
            tokenized: the ids of `unique`.
        """
        lengths = {unique[index]: tokenized.full_lengths[index] for index in tokenized.cut}
        if lengths:
            cut = [index for index, text in enumerate(texts) if text in lengths]
            if not self.cut:
                self.first = (self.texts + cut[0], lengths[texts[cut[0]]])
            self.cut += len(cut)
            self.longest = max(self.longest, *lengths.values())
        self.texts += len(texts)

    def message(self, happened: str = " and were cut") -> str:
        """The whole story in one line, if there is one."""
        index, tokens = self.first
        return (
            f"{self.cut} of {self.texts} texts are longer than {self.limit} tokens{happened}: the longest has {self.longest} "
            f"tokens, the first is number {index + 1} (index {index}) with {tokens}. "
            "Split long texts, or pass on_truncate='ignore' if this is meant."
        )


class Progress:
    """A bar on stderr that counts sentences and tokens; made when it is first needed, since its import takes time.

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
            self.shown = True if batches > 1 and sys.stderr is not None and sys.stderr.isatty() else None
        if self.shown and self._bar is None:
            from huggingface_hub.utils.tqdm import tqdm  # the bar that huggingface_hub brings along

            self._bar = tqdm(total=self.sentences, unit="sentence", desc="encode")

    def update(self, sentences: int, tokens: int) -> None:
        """Says that so many more are done."""
        self.tokens += tokens
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.tokens:,} tokens", refresh=False)
            self._bar.update(sentences)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
