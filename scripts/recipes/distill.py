"""Distillation: the first three layers of a model learn to give the vectors of all of them (Reimers & Gurevych 2020, section 2).

    python scripts/recipes/distill.py --data DIR

No label is needed: the vectors of the teacher are the labels, and the sentences of the STS benchmark are the texts. Printed:
Spearman on the STS tasks of the teacher, of the student before and after.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Sequence

import common
import reference

import minisbert
from minisbert.train import DistillationLoss, Examples, History, fit


def first_layers(encoder: minisbert.SentenceEncoder, layers: int) -> minisbert.SentenceEncoder:
    """A copy with the first layers only."""
    student = copy.deepcopy(encoder)
    student.bert.layers = student.bert.layers[:layers]
    student.bert.config = dataclasses.replace(student.bert.config, num_hidden_layers=layers)
    return student


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, and prints the table."""
    parser = common.options(__doc__, epochs=4, batch_size=32, learning_rate=2e-4)
    parser.add_argument("--layers", type=int, default=3, metavar="N", help="of the student (default: 3)")
    chosen = parser.parse_args(arguments)
    teacher = minisbert.load(chosen.model)
    if not 1 <= chosen.layers < len(teacher.bert.layers):
        parser.error(f"--layers: found {chosen.layers}, expected 1 to {len(teacher.bert.layers) - 1}, fewer than the teacher has.")
    texts = list(dict.fromkeys(text for column in common.read_sts(chosen, "train").columns for text in column))
    data = Examples([texts], teacher.encode(texts, on_truncate="ignore"))
    untrained = first_layers(teacher, chosen.layers)

    def train(student: minisbert.SentenceEncoder, seed: int) -> History:
        return fit(student, data, loss=DistillationLoss(), seed=seed, **common.settings(chosen))

    def theirs(seed: int) -> common.Row:
        from sentence_transformers.sentence_transformer import losses

        return reference.theirs(untrained, data, losses.MSELoss, chosen, seed)

    before = {
        f"teacher, {len(teacher.bert.layers)} layers": common.ours(chosen, teacher),
        f"{chosen.layers} layers, before": common.ours(chosen, untrained),
    }
    return common.run(f"{len(texts)} sentences: Spearman × 100", chosen, before, untrained, train, theirs)


if __name__ == "__main__":
    sys.exit(main())
