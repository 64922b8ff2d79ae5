"""Step 2, solved."""

from __future__ import annotations

from step01_wordpiece import split_word


def to_ids(words: list[str], vocab: dict[str, int]) -> list[int]:
    """The ids of a sentence, with those of [CLS] and [SEP] around them."""
    pieces = ["[CLS]"]
    for word in words:
        pieces.extend(split_word(word, vocab))
    pieces.append("[SEP]")
    return [vocab[piece] for piece in pieces]
