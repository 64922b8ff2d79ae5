"""`minisbert train`: the parser and what it runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from minisbert.commands import load_model, say
from minisbert.train.data import Examples, read_examples
from minisbert.train.evaluate import EmbeddingSimilarityEvaluator, TripletEvaluator
from minisbert.train.loop import fit
from minisbert.train.losses import (
    ContrastiveLoss,
    CoSENTLoss,
    CosineSimilarityLoss,
    Loss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    SoftmaxLoss,
    TripletLoss,
)

DESCRIPTION = """\
Trains a model on pairs or triplets of texts, and saves it for minisbert, sentence-transformers
and transformers. Ctrl-C keeps what was learned; the same command continues from there.

  minisbert train --data pairs.tsv --columns sentence1 sentence2 score --loss cosine --model all-MiniLM-L6-v2 --out tuned
  minisbert train --data snli_1.0_train.jsonl --columns sentence1 sentence2 gold_label --loss softmax --model bert-base --out nli
  minisbert train --data answers.parquet --columns question answer --loss negatives --model all-MiniLM-L6-v2 --out search

  softmax       pairs with a class: entailment, contradiction, neutral, or an integer from 0
  cosine        pairs with a score from -1 to 1 (see --max-score)
  cosent        pairs with any score; only the order of the scores counts
  contrastive   pairs with 1 (alike) or 0 (not alike)
  triplet       anchor, positive, negative; no label
  negatives     question, answer, and hard negatives if there are any; no label; the answers of other rows count as wrong
"""

LOSSES: dict[str, type[Loss]] = {
    "softmax": SoftmaxLoss,
    "cosine": CosineSimilarityLoss,
    "cosent": CoSENTLoss,
    "contrastive": ContrastiveLoss,
    "triplet": TripletLoss,
    "negatives": MultipleNegativesRankingLoss,
}
WITHOUT_LABELS = ("triplet", "negatives")


def add_parser(commands: Any, common: argparse.ArgumentParser, formatter: type[argparse.HelpFormatter]) -> None:
    """Adds the command to the parsers of `minisbert`.

    Args:
        commands: what `add_subparsers` gave.
        common: the options that say which model.
        formatter: of the help.
    """
    parser = commands.add_parser(
        "train",
        parents=[common],
        formatter_class=formatter,
        help="train a model on pairs or triplets of texts",
        description=DESCRIPTION,
    )
    parser.add_argument("--data", required=True, metavar="FILE", help=".tsv, .jsonl or .parquet with named columns")
    parser.add_argument(
        "--columns", required=True, nargs="+", metavar="NAME", help="the columns of the texts, then the column of the label"
    )
    parser.add_argument("--loss", required=True, choices=LOSSES, help="what to train for; see above")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="the folder of the model; DIR.training keeps the state of the run"
    )
    parser.add_argument("--max-score", type=float, default=1.0, metavar="N", help="the largest score in the file, such as 5")
    parser.add_argument("--evaluate", metavar="FILE", help="a file with the same columns; the model that does best on it is kept")
    parser.add_argument("--evaluate-every", type=int, metavar="N", help="steps (default: after each epoch)")
    parser.add_argument("--epochs", type=int, default=1, metavar="N", help="passes over the data (default: 1)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="rows in a batch (default: 16)")
    parser.add_argument("--learning-rate", type=float, default=2e-5, metavar="X", help="after the warm-up (default: 2e-5)")
    parser.add_argument(
        "--warmup", type=float, default=0.1, metavar="X", help="fraction of the steps with a rising learning rate (default: 0.1)"
    )
    parser.add_argument("--weight-decay", type=float, default=0.01, metavar="X", help="of AdamW (default: 0.01)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the order of the rows and of dropout (default: 0)")
    parser.add_argument("--save-every", type=int, metavar="N", help="steps (default: after each epoch, and with Ctrl-C)")
    parser.add_argument("--gradient-accumulation", type=int, default=1, metavar="N", help="batches of one step (default: 1)")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory for a third more time")
    parser.add_argument("--bfloat16", action="store_true", help="compute products in bfloat16")
    parser.add_argument("--no-duplicates", action="store_true", help="never the same text twice in a batch; for --loss negatives")
    parser.add_argument("--matryoshka", type=int, nargs="+", metavar="N", help="train these dimensions too, such as 384 192 96")
    parser.add_argument("--skip-empty", action="store_true", help="skip rows with an empty text")
    parser.add_argument("--plot", metavar="FILE", help="write loss and evaluation as an .svg")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON, on stdout")


def run(options: argparse.Namespace) -> None:
    """Runs the command with its parsed options."""
    data = _read(options, options.data)
    evaluate = None if options.evaluate is None else _evaluator(options, _read(options, options.evaluate))
    encoder = load_model(options)
    loss: Loss
    if options.loss == "softmax" and data.labels is not None:
        loss = SoftmaxLoss(encoder.config.dimension, max(2, int(data.labels.max()) + 1), seed=options.seed)
    else:
        loss = LOSSES[options.loss]()
    if options.matryoshka:
        loss = MatryoshkaLoss(loss, options.matryoshka)
    try:
        history = fit(
            encoder,
            data,
            loss=loss,
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            warmup=options.warmup,
            weight_decay=options.weight_decay,
            seed=options.seed,
            evaluate=evaluate,
            evaluate_every=options.evaluate_every,
            save_to=options.out,
            save_every=options.save_every,
            gradient_accumulation=options.gradient_accumulation,
            precision=torch.bfloat16 if options.bfloat16 else None,
            no_duplicates=options.no_duplicates,
            gradient_checkpointing=options.gradient_checkpointing,
        )
    except KeyboardInterrupt as stop:
        if stop.args:
            say(f"{stop.args[0]}. The same command goes on from there.")
        raise
    if options.plot is not None:
        history.save_svg(options.plot)
    best = history.best
    measures = (
        ""
        if best is None
        else "; best after step {}: {}".format(best.step, ", ".join(f"{name} {value:.4f}" for name, value in best.measures.items()))
    )
    say(f"{len(history.steps)} steps on {len(data)} rows, the model is in {options.out}{measures}")
    if options.json:
        done = {"out": options.out, "rows": len(data), "steps": len(history.steps), "loss": history.steps[-1].loss}
        print(json.dumps(done | {"best": None if best is None else {"step": best.step} | best.measures}))


def _read(options: argparse.Namespace, file: str) -> Examples:
    columns = options.columns
    texts, label = (columns, None) if options.loss in WITHOUT_LABELS else (columns[:-1], columns[-1])
    return read_examples(Path(file), texts, label, max_score=options.max_score, skip_empty=options.skip_empty)


def _evaluator(options: argparse.Namespace, data: Examples) -> EmbeddingSimilarityEvaluator | TripletEvaluator:
    if options.loss in ("cosine", "cosent", "contrastive") and data.labels is not None:
        return EmbeddingSimilarityEvaluator(data.columns[0], data.columns[1], data.labels)
    if len(data.columns) == 3:
        return TripletEvaluator(*data.columns)
    raise ValueError(
        f"--evaluate: found --loss {options.loss} with {len(data.columns)} columns of texts, expected pairs with scores, or "
        "triplets. Leave it out, and evaluate the saved model."
    )
