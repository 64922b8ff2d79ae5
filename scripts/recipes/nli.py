"""The classification objective of Reimers & Gurevych 2019, section 3: entailment, contradiction or neutral.

    python scripts/recipes/nli.py --data DIR --nli sick-train.tsv
    python scripts/recipes/nli.py --data DIR --nli snli_1.0_train.jsonl multinli_1.0_train.jsonl --model bert-base-uncased

softmax(W (u, v, |u - v|)) on pairs of sentences, batch 16, AdamW 2e-5, 10 % warm-up, mean pooling, one epoch, as in the paper. What
counts is not how often the class is right, but what it does to the vectors: Spearman on the STS tasks, before and after.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import common
import reference
import torch

import minisbert
from minisbert.train import Examples, History, SoftmaxLoss, fit, read_examples


def read_nli(files: Sequence[Path], rows: int | None) -> Examples:
    """Pairs of one or several files: .jsonl as SNLI and MultiNLI have it, .tsv as SICK."""
    parts = [
        read_examples(file, ("sentence1", "sentence2"), "gold_label" if file.suffix == ".jsonl" else "entailment", skip_empty=True)
        for file in files
    ]
    columns = [[text for part in parts for text in part.columns[side]] for side in (0, 1)]
    labels = torch.cat([part.labels for part in parts if part.labels is not None])
    return common.first(Examples(columns, labels), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, and prints the table."""
    parser = common.options(__doc__)
    parser.add_argument("--nli", type=Path, nargs="+", required=True, metavar="FILE", help="sick-train.tsv, snli_1.0_train.jsonl …")
    chosen = parser.parse_args(arguments)
    data = read_nli(chosen.nli, chosen.rows)
    untrained = minisbert.load(chosen.model)

    def train(encoder: minisbert.SentenceEncoder, seed: int) -> History:
        loss = SoftmaxLoss(encoder.dimension, 3, seed=seed)
        return fit(encoder, data, loss=loss, seed=seed, **common.settings(chosen))

    def theirs(seed: int) -> common.Row:
        from sentence_transformers.sentence_transformer import losses

        return reference.theirs(untrained, data, lambda model: losses.SoftmaxLoss(model, untrained.dimension, 3), chosen, seed)

    title = f"{len(data)} pairs with classes: Spearman × 100"
    return common.run(title, chosen, {"before": common.ours(chosen, untrained)}, untrained, train, theirs)


if __name__ == "__main__":
    sys.exit(main())
