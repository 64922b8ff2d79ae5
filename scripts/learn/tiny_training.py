"""A tiny training run with a learner's own loss: two layers with random weights learn which made-up sentences mean the same.

    python scripts/learn/tiny_training.py my/step17_negatives.py

A sentence is three ideas, each in one of several words. Two sentences with the same ideas are a pair. Some combinations of ideas are
kept for the end: the closeness of their sentences should grow with the number of ideas that they share.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import random
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import torch
from check import load, neighbours
from torch import Tensor, nn

import minisbert
from minisbert.train import EmbeddingSimilarityEvaluator, History, fit

IDEAS = (
    ("the doctor|a physician", "the child|a kid", "the teacher|a tutor", "the dog|a hound"),
    ("buys|purchases", "fixes|repairs", "loses|misplaces", "finds|discovers"),
    ("the car|an automobile", "the house|a home", "the picture|a photo", "the bag|a purse"),
)
STEPS, BATCH = 60, 32


class Learners(nn.Module):
    """The learner's function as a loss of `fit`."""

    def __init__(self, function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:  # noqa: ARG002
        """The mean over the batch."""
        return self.function(embeddings[0], embeddings[1], 20.0).mean()


def small_encoder() -> minisbert.SentenceEncoder:
    """The tokenizer of the real checkpoint, and two layers with random weights."""
    encoder = copy.deepcopy(minisbert.load("all-MiniLM-L6-v2", device="cpu", dtype=torch.float32))
    bert = type(encoder.bert)(dataclasses.replace(encoder.bert.config, num_hidden_layers=2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in bert.named_parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.02, generator=generator)
            else:
                weight.fill_(1.0 if "norm.weight" in name else 0.0)
    encoder.bert = bert
    return encoder


def text(ideas: Sequence[int], choose: random.Random) -> str:
    """A sentence with these ideas, in words chosen at random."""
    return " ".join(choose.choice(IDEAS[place][idea].split("|")) for place, idea in enumerate(ideas))


def train(function: Callable[[Tensor, Tensor, float], Tensor], steps: int = STEPS) -> tuple[float, History]:
    """Trains with the learner's loss.

    Returns:
        Spearman's correlation before, and what happened.
    """
    choose = random.Random(0)  # noqa: S311
    meanings = list(product(*(range(len(words)) for words in IDEAS)))
    choose.shuffle(meanings)
    kept, known = meanings[:16], meanings[16:]
    pairs = [(text(ideas, choose), text(ideas, choose)) for ideas in choose.choices(known, k=steps * BATCH)]
    judged = [(text(a, choose), text(b, choose), sum(map(int.__eq__, a, b))) for a, b in product(kept, kept) if a < b]
    evaluate = EmbeddingSimilarityEvaluator(*zip(*judged, strict=True))
    encoder = small_encoder()
    before = evaluate(encoder)["spearman_cosine"]
    history = fit(
        encoder,
        pairs,
        loss=Learners(function),
        batch_size=BATCH,
        learning_rate=2e-4,
        evaluate=evaluate,
        evaluate_every=max(1, steps // 6),
    )
    return before, history


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="your step17_negatives.py")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help=f"how many; default {STEPS}")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw loss and Spearman over the steps")
    options = parser.parse_args(arguments)
    with neighbours(options.file.resolve().parent):
        before, history = train(load(options.file, "negatives_loss"), options.steps)
    print(f"step   0: Spearman {before:.2f}")
    for evaluation in history.evaluations:
        print(f"step {evaluation.step:3}: Spearman {evaluation.value:.2f}, loss {history.steps[evaluation.step - 1].loss:.2f}")
    if options.svg:
        history.save_svg(options.svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
