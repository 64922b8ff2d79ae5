"""Search: in-batch negatives (Henderson et al. 2017) at several widths at once (Kusupati et al. 2022, "Matryoshka").

    python scripts/recipes/retrieval.py --data DIR

The pairs of the STS benchmark's train split with a score of 4 or more say the same in other words: one is the query, the other the
answer. The answers of the other rows in the batch are wrong ones, so no text may stand in a batch twice. Measured on the test
split: MRR@10 × 100 of such pairs among all second sentences, with the first 384, 192, 96 and 48 dimensions of each vector.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import common
import reference

import minisbert
from minisbert.train import Examples, History, InformationRetrievalEvaluator, MatryoshkaLoss, MultipleNegativesRankingLoss, fit

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
    widths = [width for width in WIDTHS if width <= untrained.config.dimension]

    def train(encoder: minisbert.SentenceEncoder, seed: int) -> History:
        loss = MatryoshkaLoss(MultipleNegativesRankingLoss(), widths)
        return fit(encoder, data, loss=loss, no_duplicates=True, seed=seed, **common.settings(chosen))

    def theirs(seed: int) -> common.Row:
        """Its vectors are looked at by its own evaluator."""
        from sentence_transformers.sentence_transformer import evaluation, losses

        def make_loss(model: Any) -> Any:
            return losses.MatryoshkaLoss(model, losses.MultipleNegativesRankingLoss(model), widths)

        model = reference.train_theirs(untrained, data, make_loss, chosen, seed, no_duplicates=True)
        documents = list(judge.corpus)
        answers = [{documents[place] for place in found.tolist()} for found in judge.relevant]
        asked = judge.queries, judge.corpus, dict(zip(judge.queries, answers, strict=True))
        judges = {width: evaluation.InformationRetrievalEvaluator(*asked, truncate_dim=width) for width in widths}
        return {f"{width}": 100 * each(model)["cosine_mrr@10"] for width, each in judges.items()}

    title = f"{len(data)} pairs that say the same: MRR@10 × 100 at each width"
    before = {"before": measure(untrained, judge)}
    return common.run(title, chosen, before, untrained, train, theirs, lambda encoder: measure(encoder, judge))


if __name__ == "__main__":
    sys.exit(main())
