"""The regression objective of Reimers & Gurevych 2019, section 4.2: the cosine of a pair is to be its score.

    python scripts/recipes/stsb.py --data DIR
    python scripts/recipes/stsb.py --data DIR --seeds 0 1 2 --compare

Trained on the train split of the STS benchmark, with the squared error; the dev split chooses the weights, four times an epoch; the
test split is looked at once, at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import common
import reference

import minisbert
from minisbert.train import CosineSimilarityLoss, History, fit


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, and prints the table."""
    chosen = common.options(__doc__).parse_args(arguments)
    data, judge = common.read_sts(chosen, "train"), common.judge(chosen)
    every = max(1, -(-len(data) // chosen.batch_size) // 4)
    untrained = minisbert.load(chosen.model)

    def train(encoder: minisbert.SentenceEncoder, seed: int) -> History:
        options = common.settings(chosen) | {"evaluate": judge, "evaluate_every": every}
        return fit(encoder, data, loss=CosineSimilarityLoss(), seed=seed, **options)

    def theirs(seed: int) -> common.Row:
        from sentence_transformers.sentence_transformer import evaluation, losses

        dev = evaluation.EmbeddingSimilarityEvaluator(judge.sentences1, judge.sentences2, judge.scores.tolist())
        loss = losses.CosineSimilarityLoss
        return reference.theirs(untrained, data, loss, chosen, seed, lambda model: dev(model)["spearman_cosine"], every)

    title = f"{len(data)} pairs with scores: Spearman × 100"
    return common.run(title, chosen, {"before": common.ours(chosen, untrained)}, untrained, train, theirs)


if __name__ == "__main__":
    sys.exit(main())
