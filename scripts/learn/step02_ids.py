"""Step 2: from words to ids. What to do is in step02_ids.md."""

from __future__ import annotations


def to_ids(words: list[str], vocab: dict[str, int]) -> list[int]:
    """The ids of a sentence, with those of [CLS] and [SEP] around them.

    Args:
        words: the words of the sentence, and its punctuation, in lower case; may be empty.
        vocab: each piece and its id.

    Returns:
        The ids, one for each piece.
    """
    raise NotImplementedError
