"""Search: in-batch negatives (Henderson et al. 2017) at several widths at once (Kusupati et al. 2022, "Matryoshka").

    python scripts/recipes/retrieval.py --data DIR

The pairs of the STS benchmark's train split with a score of 4 or more say the same in other words: one is the query, the other the
answer. The answers of the other rows in the batch are wrong ones, so no text may stand in a batch twice. Measured on the test
split: MRR@10 × 100 of such pairs among all second sentences, with the first 384, 192, 96 and 48 dimensions of each vector.
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
from minisbert.train import Examples, InformationRetrievalEvaluator, MatryoshkaLoss, MultipleNegativesRankingLoss, fit

LEAST_SCORE = 0.8
WIDTHS = (384, 192, 96, 48)


def alike(data: Examples) -> Examples:
    """The pairs that say the same, without labels."""
    assert data.labels is not None  # noqa: S101 (the STS benchmark has scores)
    kept = (data.labels >= LEAST_SCORE).nonzero().flatten().tolist()
    return Examples([[column[row] for row in kept] for column in data.columns])


def searches(test: Examples) -> InformationRetrievalEvaluator:
    """Each query's answers: the second sentences of its pairs that say the same."""
    pairs = alike(test)
    corpus = {text: text for text in test.columns[1]}
    relevant: dict[str, set[str]] = {}
    for query, answer in zip(*pairs.columns, strict=True):
        relevant.setdefault(query, set()).add(answer)
    return InformationRetrievalEvaluator({query: query for query in relevant}, corpus, relevant)


def measure(encoder: minisbert.SentenceEncoder, judge: InformationRetrievalEvaluator) -> common.Row:
    """MRR@10 × 100 at each width that the model has."""
    row = {}
    for width in (width for width in WIDTHS if width <= encoder.config.dimension):
        encoder.truncate_dim = width
        row[f"{width}"] = 100 * judge(encoder)["cosine_mrr@10"]
    encoder.truncate_dim = None
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, and prints the table."""
    parser = common.options(__doc__, batch_size=64, epochs=2)
    chosen = parser.parse_args(arguments)
    data, judge = alike(common.read_sts(chosen, "train")), searches(common.read_sts(chosen, "test"))
    untrained = minisbert.load(chosen.model)
    loss = MatryoshkaLoss(MultipleNegativesRankingLoss(), [width for width in WIDTHS if width <= untrained.config.dimension])
    rows = {"before": [measure(untrained, judge)], "minisbert": []}
    for seed in chosen.seeds:
        encoder = copy.deepcopy(untrained)
        fit(encoder, data, loss=loss, no_duplicates=True, seed=seed, **common.settings(chosen))
        rows["minisbert"].append(measure(encoder, judge))
        if chosen.out and seed == chosen.seeds[0]:
            encoder.save(chosen.out)
    if chosen.compare:
        rows["sentence-transformers"] = [compare(chosen, untrained, data, judge, seed) for seed in chosen.seeds]
    common.print_table(f"{chosen.model}, {len(data)} pairs that say the same: MRR@10 × 100 at each width", rows)
    return 0


def compare(
    chosen: argparse.Namespace,
    untrained: minisbert.SentenceEncoder,
    data: Examples,
    judge: InformationRetrievalEvaluator,
    seed: int,
) -> common.Row:
    """The same in sentence-transformers; its vectors are looked at by its own evaluator."""
    from sentence_transformers.sentence_transformer import evaluation, losses

    widths = [width for width in WIDTHS if width <= untrained.config.dimension]
    relevant = {
        query: {list(judge.corpus)[place] for place in found.tolist()}
        for query, found in zip(judge.queries, judge.relevant, strict=True)
    }
    model = reference.train_theirs(
        untrained,
        data,
        lambda model: losses.MatryoshkaLoss(model, losses.MultipleNegativesRankingLoss(model), widths),
        chosen,
        seed,
        no_duplicates=True,
    )
    row = {}
    for width in widths:
        theirs = evaluation.InformationRetrievalEvaluator(judge.queries, judge.corpus, relevant, truncate_dim=width)
        row[f"{width}"] = 100 * theirs(model)["cosine_mrr@10"]
    return row


if __name__ == "__main__":
    sys.exit(main())
