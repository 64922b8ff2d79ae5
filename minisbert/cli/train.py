"""What `minisbert train` runs; its parser is in parsers.py."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from minisbert.cli.commands import load_model, named, say
from minisbert.train import losses
from minisbert.train.data import Examples, read_examples
from minisbert.train.evaluate import EmbeddingSimilarityEvaluator, TripletEvaluator
from minisbert.train.loop import fit

LOSSES: dict[str, type[losses.Loss]] = {
    "softmax": losses.SoftmaxLoss,
    "cosine": losses.CosineSimilarityLoss,
    "cosent": losses.CoSENTLoss,
    "contrastive": losses.ContrastiveLoss,
    "triplet": losses.TripletLoss,
    "negatives": losses.MultipleNegativesRankingLoss,
}
WITHOUT_LABELS = ("triplet", "negatives")


def run(options: argparse.Namespace) -> None:
    """Runs the command with its parsed options."""
    data = _read(options, options.data)
    evaluate = None if options.evaluate is None else _evaluator(options, _read(options, options.evaluate))
    encoder = load_model(options)
    loss: losses.Loss
    if options.loss == "softmax" and data.labels is not None:
        loss = losses.SoftmaxLoss(encoder.config.dimension, max(2, int(data.labels.max()) + 1), seed=options.seed)
    else:
        loss = LOSSES[options.loss]()
    if options.matryoshka:
        loss = losses.MatryoshkaLoss(loss, options.matryoshka)
    same = ("epochs", "batch_size", "learning_rate", "warmup", "weight_decay", "seed", "evaluate_every", "save_every")
    try:
        history = fit(
            encoder,
            data,
            loss=loss,
            evaluate=evaluate,
            save_to=options.out,
            precision=torch.bfloat16 if options.bfloat16 else None,
            **named(options, *same, "gradient_accumulation", "no_duplicates", "gradient_checkpointing"),
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
