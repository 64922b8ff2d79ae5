"""What the recipes share: options, the STS tasks, the runs, a table."""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

import minisbert
from minisbert.train import EmbeddingSimilarityEvaluator, Examples, History, read_examples

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
    parser.add_argument("--out", type=Path, metavar="DIR", help="save the model of the first seed, and a plot beside it")
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


def ours(chosen: argparse.Namespace, encoder: minisbert.SentenceEncoder) -> Row:
    """`spearman` of an encoder of minisbert."""
    return spearman(chosen, lambda texts: encoder.encode(texts, on_truncate="ignore"))


def run(
    title: str,
    chosen: argparse.Namespace,
    before: dict[str, Row],
    untrained: minisbert.SentenceEncoder,
    train: Callable[[minisbert.SentenceEncoder, int], History],
    theirs: Callable[[int], Row],
    measure: Callable[[minisbert.SentenceEncoder], Row] | None = None,
) -> int:
    """Trains once for each seed, and prints the table; with --compare, the same training in sentence-transformers too.

    Args:
        title: of the table.
        chosen: the options.
        before: rows of the table that are known before training.
        untrained: each run begins with a copy of it.
        train: an encoder and a seed; trains the encoder.
        theirs: a seed → the row of sentence-transformers.
        measure: a trained encoder → its row. Default: `ours`.
    """
    rows: dict[str, list[Row]] = {name: [row] for name, row in before.items()} | {"minisbert": []}
    for seed in chosen.seeds:
        encoder = copy.deepcopy(untrained)
        history = train(encoder, seed)
        rows["minisbert"].append(measure(encoder) if measure else ours(chosen, encoder))
        if chosen.out and seed == chosen.seeds[0]:
            encoder.save(chosen.out)
            history.save_svg(chosen.out.with_suffix(".svg"))
    if chosen.compare:
        rows["sentence-transformers"] = [theirs(seed) for seed in chosen.seeds]
    print_table(f"{chosen.model}, {title}", rows)
    return 0


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
