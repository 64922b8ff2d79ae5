"""Training: the losses of Sentence-BERT and its successors, vectors with gradients, and the loop around them.

    embed              texts → vectors with gradients, for a loop of one's own
    fit                the loop: AdamW, warm-up, evaluation, checkpoints
    losses.py          what the vectors are trained for
    evaluate.py        how good they are
    read_examples      .tsv, .jsonl and .parquet files, SNLI's and MultiNLI's among them

It is for users, for `minisbert train` and for scripts/recipes. It imports encoder, files, checkpoint, inference and bert. It is
imported by cli, for the command.
"""

from minisbert.train.data import Examples, read_examples
from minisbert.train.embedding import embed
from minisbert.train.evaluate import EmbeddingSimilarityEvaluator, InformationRetrievalEvaluator, TripletEvaluator
from minisbert.train.history import Evaluation, History, Step
from minisbert.train.loop import fit
from minisbert.train.losses import (
    ContrastiveLoss,
    CoSENTLoss,
    CosineSimilarityLoss,
    DistillationLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    SoftmaxLoss,
    TripletLoss,
)

__all__ = [
    "CoSENTLoss",
    "ContrastiveLoss",
    "CosineSimilarityLoss",
    "DistillationLoss",
    "EmbeddingSimilarityEvaluator",
    "Evaluation",
    "Examples",
    "History",
    "InformationRetrievalEvaluator",
    "MatryoshkaLoss",
    "MultipleNegativesRankingLoss",
    "SoftmaxLoss",
    "Step",
    "TripletEvaluator",
    "TripletLoss",
    "embed",
    "fit",
    "read_examples",
]
