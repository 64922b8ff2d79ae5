"""Many texts in, rows out, with the memory of a few: windows over any iterable, and the iterator that a caller holds."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any

from minisbert.reports import Cut, Progress

WINDOW = 8192
"""Texts in one window: some 80 batches of short sentences, so that all but a hundredth of the gain of sorting by length is had."""

FIRST_WINDOW = 256
"""Texts in the first window, so that the first rows come soon; each further one is twice as large, up to the full size."""

WINDOW_CHARACTERS = 1 << 22
"""A window is closed at so many characters, whatever the number of its texts: long texts must not fill the memory either."""


def windows(texts: Iterable[str], most: int, characters: int = WINDOW_CHARACTERS) -> Iterator[list[str]]:
    """Cuts a stream of texts into lists, reading no further than the one that is asked for.

    >>> [len(window) for window in windows(map(str, range(1000)), most=512)]
    [256, 512, 232]
    """
    size = min(FIRST_WINDOW, most)
    window: list[str] = []
    held = 0
    for text in texts:
        window.append(text)
        held += len(text)
        if len(window) >= size or held >= characters:
            yield window
            window, held = [], 0
            size = min(2 * size, most)
    if window:
        yield window


class VectorStream(Iterator[Any]):
    """What `SentenceEncoder.encode_stream` returns: an iterator over batches of rows, [sentences, dim] each."""

    def __init__(self, rows: Generator[Any, None, None], cut: Cut, progress: Progress) -> None:
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
