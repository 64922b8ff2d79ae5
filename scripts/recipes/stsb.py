"""The regression objective of Reimers & Gurevych 2019, section 4.2: the cosine of a pair is to be its score.

    python scripts/recipes/stsb.py --data DIR
    python scripts/recipes/stsb.py --data DIR --seeds 0 1 2 --compare

Trained on the train split of the STS benchmark, with the squared error; the dev split chooses the weights, four times an epoch; the
test split is looked at once, at the end.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import common
import reference

import minisbert
from minisbert.train import CosineSimilarityLoss, Examples, fit


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, and prints the table."""
    chosen = common.options(__doc__).parse_args(arguments)
    data, judge = common.read_sts(chosen, "train"), common.judge(chosen)
    every = max(1, -(-len(data) // chosen.batch_size) // 4)
    untrained = minisbert.load(chosen.model)
    rows = {"before": [common.spearman(chosen, common.ours(untrained))], "minisbert": []}
    for seed in chosen.seeds:
        encoder = copy.deepcopy(untrained)
        history = fit(
            encoder,
            data,
            loss=CosineSimilarityLoss(),
            seed=seed,
            evaluate=judge,
            evaluate_every=every,
            **common.settings(chosen),
        )
        rows["minisbert"].append(common.spearman(chosen, common.ours(encoder)))
        if chosen.out and seed == chosen.seeds[0]:
            encoder.save(chosen.out)
            history.save_svg(chosen.out.with_suffix(".svg"))
    if chosen.compare:
        rows["sentence-transformers"] = [compare(chosen, untrained, data, every, seed) for seed in chosen.seeds]
    common.print_table(f"{chosen.model}, {len(data)} pairs with scores: Spearman × 100", rows)
    return 0


def compare(chosen: argparse.Namespace, untrained: minisbert.SentenceEncoder, data: Examples, every: int, seed: int) -> common.Row:
    """The same in sentence-transformers, with its own evaluator."""
    from sentence_transformers.sentence_transformer import evaluation, losses

    dev = common.judge(chosen)
    judge = evaluation.EmbeddingSimilarityEvaluator(dev.sentences1, dev.sentences2, dev.scores.tolist())
    encode = reference.theirs(
        untrained, data, losses.CosineSimilarityLoss, chosen, seed, lambda model: judge(model)["spearman_cosine"], every
    )
    return common.spearman(chosen, encode)


if __name__ == "__main__":
    sys.exit(main())
