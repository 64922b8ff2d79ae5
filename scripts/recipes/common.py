"""What the recipes share: options, the STS tasks, a table, and the same training in sentence-transformers to compare with."""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import minisbert
from minisbert.train import EmbeddingSimilarityEvaluator, Examples, read_examples
from minisbert.train.data import batches

sys.path.insert(0, str(Path(__file__).parent.parent))
from evaluate_sts import evaluate, read_task

TASKS = ("stsb-test", "sts12", "sts13", "sts15")
Encode = Callable[[list[str]], Tensor]
Row = dict[str, float]


def options(description: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """The command line of a recipe."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the folder with stsb-train.tsv, sts12.tsv and so on"
    )
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="a folder or a name; a plain BERT gets mean pooling")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="one run for each (default: 0)")
    parser.add_argument("--epochs", type=int, default=defaults.get("epochs", 1), metavar="N")
    parser.add_argument("--batch-size", type=int, default=defaults.get("batch_size", 16), metavar="N")
    parser.add_argument("--learning-rate", type=float, default=defaults.get("learning_rate", 2e-5), metavar="X")
    parser.add_argument(
        "--rows", type=int, metavar="N", help="train on the first N rows only, and evaluate on N pairs of each task"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="save the model of the first seed")
    parser.add_argument("--compare", action="store_true", help="the same in sentence-transformers, with the same seeds and batches")
    return parser


def settings(chosen: argparse.Namespace) -> dict[str, Any]:
    """What `fit` is given of the options."""
    return {"epochs": chosen.epochs, "batch_size": chosen.batch_size, "learning_rate": chosen.learning_rate}


def read_sts(chosen: argparse.Namespace, split: str) -> Examples:
    """A split of the STS benchmark with scores from 0 to 1."""
    data = read_examples(chosen.data / f"stsb-{split}.tsv", ("sentence1", "sentence2"), "score", max_score=5)
    return first(data, chosen.rows)


def first(data: Examples, rows: int | None) -> Examples:
    """The first rows; all for None."""
    labels = None if data.labels is None else data.labels[:rows]
    return Examples([column[:rows] for column in data.columns], labels)


def judge(chosen: argparse.Namespace, split: str = "dev") -> EmbeddingSimilarityEvaluator:
    """Spearman on a split of the STS benchmark."""
    data = read_sts(chosen, split)
    assert data.labels is not None  # noqa: S101 (read_sts asks for them)
    return EmbeddingSimilarityEvaluator(data.columns[0], data.columns[1], data.labels)


def spearman(chosen: argparse.Namespace, encode: Encode) -> Row:
    """Spearman × 100 of the cosine on each task."""
    tasks = {task: read_task(chosen.data, task) for task in TASKS}
    some = {task: type(pairs)(*(column[: chosen.rows] for column in pairs)) for task, pairs in tasks.items()}
    return {task: row["spearman_cosine"] for task, row in evaluate(encode, some).items()}


def ours(encoder: minisbert.SentenceEncoder) -> Encode:
    """The encode of minisbert."""
    return lambda texts: encoder.encode(texts, on_truncate="ignore")


def train_theirs(
    encoder: minisbert.SentenceEncoder,
    data: Examples,
    make_loss: Callable[[Any], torch.nn.Module],
    chosen: argparse.Namespace,
    seed: int,
    evaluate: Callable[[Any], float] | None = None,
    evaluate_every: int | None = None,
    no_duplicates: bool = False,  # noqa: FBT001, FBT002 (as `fit` has it)
) -> Any:
    """The same training with sentence-transformers' model and loss, torch's AdamW and transformers' schedule.

    Args:
        encoder: not trained yet; both sides begin with its weights.
        data: the rows.
        make_loss: the model → its loss.
        chosen: the recipe's options.
        seed: of the batches and of dropout.
        evaluate: the model → a number; the weights with the largest one count.
        evaluate_every: after how many steps that is asked.
        no_duplicates: no text twice in a batch.

    Returns:
        The trained SentenceTransformer.
    """
    from sentence_transformers import SentenceTransformer
    from transformers import get_linear_schedule_with_warmup

    with tempfile.TemporaryDirectory() as folder:
        encoder.save(folder)
        model = SentenceTransformer(folder, device=str(encoder.device))
    torch.manual_seed(seed)
    loss = make_loss(model).to(model.device)
    lengths = [sum(counts) for counts in zip(*(encoder.count_tokens(column) for column in data.columns), strict=True)]
    keys = list(zip(*data.columns, strict=True)) if no_duplicates else None
    order = [rows for epoch in range(chosen.epochs) for rows in batches(lengths, chosen.batch_size, seed, epoch, keys)]
    named = dict(loss.named_parameters())
    groups = [
        {"params": [weight for weight in named.values() if (weight.dim() > 1) is decayed], "weight_decay": 0.01 if decayed else 0.0}
        for decayed in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=chosen.learning_rate, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(0.1 * len(order)), len(order))
    best: tuple[float, dict[str, Tensor]] | None = None
    for step, rows in enumerate(order, start=1):
        model.train()
        features = [model.preprocess([column[row] for row in rows]) for column in data.columns]
        features = [
            {name: value.to(model.device) for name, value in each.items() if isinstance(value, Tensor)} for each in features
        ]
        labels = None if data.labels is None else data.labels[rows].to(model.device)
        loss(features, labels).backward()
        torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if evaluate is not None and (step % (evaluate_every or len(order)) == 0 or step == len(order)):
            value = evaluate(model.eval())
            if best is None or value > best[0]:
                best = value, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if best is not None:
        model.load_state_dict(best[1])
    return model.eval()


def theirs(*arguments: Any, **settings: Any) -> Encode:
    """The encode of what `train_theirs` gives."""
    model = train_theirs(*arguments, **settings)
    return lambda texts: model.encode(texts, convert_to_tensor=True, show_progress_bar=False).cpu()


def print_table(title: str, rows: dict[str, list[Row]]) -> None:
    """The mean of each column over the seeds, and the standard deviation if there are several."""
    print(title)
    columns = list(next(iter(rows.values()))[0])
    print(" " * 28 + "".join(f"{column:>16}" for column in columns) + "   runs")
    for name, runs in rows.items():
        cells = []
        for column in columns:
            values = [run[column] for run in runs]
            spread = f" ±{statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}")
        print(f"{name:<28}" + "".join(f"{cell:>16}" for cell in cells) + f"{len(runs):>7}")
