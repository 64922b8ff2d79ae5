"""Made-up training data in the words of the tiny vocabulary. It imports nothing heavy: processes that are killed import it."""

from __future__ import annotations

import random

from minisbert.train import EmbeddingSimilarityEvaluator

WORDS = ["a", "man", "is", "eat", "food", "the", "cat", "sat", "on", "mat", "run", "dog", "play", "red", "blue", "green", "water"]


def rows(count: int, seed: int = 0) -> list[tuple[str, str, float]]:
    """Pairs of texts, and the share of words that they have in common."""
    choose = random.Random(seed)
    texts = [[choose.choice(WORDS) for _ in range(choose.randint(1, 12))] for _ in range(2 * count)]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return [(" ".join(a), " ".join(b), len(set(a) & set(b)) / len(set(a) | set(b))) for a, b in pairs]


def evaluator(count: int = 40) -> EmbeddingSimilarityEvaluator:
    """On pairs that are not trained on."""
    return EmbeddingSimilarityEvaluator(*zip(*rows(count, seed=9), strict=True))
