"""Step 1, solved."""

from __future__ import annotations


def split_word(word: str, vocab: dict[str, int]) -> list[str]:
    """The pieces of one word, the longest first."""
    if len(word) > 100:
        return ["[UNK]"]
    pieces = []
    start = 0
    while start < len(word):
        mark = "##" if start > 0 else ""
        end = len(word)
        while end > start and mark + word[start:end] not in vocab:
            end -= 1
        if end == start:
            return ["[UNK]"]
        pieces.append(mark + word[start:end])
        start = end
    return pieces
