"""Step 1: split a word into pieces. What to do is in step01_wordpiece.md."""

from __future__ import annotations


def split_word(word: str, vocab: dict[str, int]) -> list[str]:
    """The pieces of one word, the longest first.

    Args:
        word: in lower case, at least one character.
        vocab: each piece and its id; pieces inside a word begin with "##".

    Returns:
        The pieces; ["[UNK]"] if the word cannot be put together, or has more than 100 letters.
    """
    raise NotImplementedError
