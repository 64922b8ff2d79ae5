"""Computes what the SBERT paper (table 1) and MTEB report: how well the similarity of vectors agrees with human scores.

    python scripts/evaluate_sts.py --model all-MiniLM-L6-v2 --data DIR
    python scripts/evaluate_sts.py --model bert-base-nli-mean-tokens --data DIR --tasks stsb-test --check
    python scripts/evaluate_sts.py --model all-MiniLM-L6-v2 --data DIR --compare sentence-transformers

DIR holds one or several files for each task: `sts12.tsv`, or `sts12-MSRpar.tsv`, `sts12-MSRvid.tsv` and so on, whose pairs are then
combined, as MTEB does. A file is UTF-8 with a header line, tab-separated and never quoted: score, sentence1, sentence2.
Tasks without a file are left out, unless --tasks names them. Every distinct text is encoded once, for all tasks together.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import minisbert
from minisbert.train import read_examples
from minisbert.train.evaluate import pearson, spearman
from minisbert.util import similarity_pairwise

TASKS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb-dev", "stsb-test", "sick-r")
FUNCTIONS = ("cosine", "euclidean", "manhattan", "dot")
TOLERANCE = 0.02
"""The allowed distance from a published figure: those have two digits, and come from other versions and batches."""


class Published(NamedTuple):
    """Spearman × 100 of the cosine, as published.

    Attributes:
        source: where.
        figures: by task.
        exact: the tasks whose figure this checkpoint must reproduce with these files. The others are shown for comparison.
    """

    source: str
    figures: dict[str, float]
    exact: tuple[str, ...]


# Muennighoff et al. 2023, "MTEB", results of the leaderboard; Reimers & Gurevych 2019, table 1; and what the release of
# bert-base-nli-mean-tokens says of its own test.
PUBLISHED = {
    "all-MiniLM-L6-v2": Published(
        "MTEB",
        dict(zip((*TASKS[:5], *TASKS[6:]), (72.37, 80.60, 75.59, 85.39, 78.99, 82.03, 77.58), strict=True)),
        exact=(*TASKS[:5], *TASKS[6:]),
    ),
    "bert-base-nli-mean-tokens": Published(
        "SBERT paper, table 1; STSb test: the release's own test",
        dict(zip((*TASKS[:5], *TASKS[6:]), (70.97, 76.53, 73.19, 79.09, 74.30, 77.12, 72.91), strict=True)),
        exact=("stsb-test",),
    ),
    "bert-large-nli-mean-tokens": Published(
        "SBERT paper, table 1",
        dict(zip((*TASKS[:5], *TASKS[6:]), (72.27, 78.46, 74.90, 80.99, 76.25, 79.23, 73.75), strict=True)),
        exact=(),
    ),
}


class Pairs(NamedTuple):
    """The pairs of one task, from all its files."""

    scores: list[float]
    first: list[str]
    second: list[str]


def read_task(folder: Path, task: str) -> Pairs:
    """The pairs of a task; none if the folder has no file of it.

    Raises:
        ValueError: if a file does not have the form that the top of this file describes; the message names the file and the line.
    """
    pairs = Pairs([], [], [])
    for path in sorted(folder.glob("*.tsv")):
        if path.stem.lower() == task or path.stem.lower().startswith((task + "-", task + ".")):
            data = read_examples(path, ("sentence1", "sentence2"), "score", classes={})
            for values, more in zip(pairs, (data.labels.tolist(), *data.columns), strict=True):
                values.extend(more)
    return pairs


def evaluate(encode: Callable[[list[str]], Tensor], tasks: dict[str, Pairs]) -> dict[str, dict[str, float]]:
    """For each task, `spearman_cosine` and the like, × 100, and the number of pairs.

    Args:
        encode: texts → [texts, dim]; called once.
        tasks: the pairs of each.
    """
    place: dict[str, int] = {}
    for pairs in tasks.values():
        for text in (*pairs.first, *pairs.second):
            place.setdefault(text, len(place))
    vectors = encode(list(place))
    results = {}
    for task, pairs in tasks.items():
        human = torch.tensor(pairs.scores, dtype=torch.float64)
        sides = [vectors[[place[text] for text in texts]] for texts in (pairs.first, pairs.second)]
        row: dict[str, float] = {"pairs": len(human)}
        for function in FUNCTIONS:
            similarity = similarity_pairwise(sides[0], sides[1], function)
            row[f"spearman_{function}"] = 100 * spearman(similarity, human)
            row[f"pearson_{function}"] = 100 * pearson(similarity, human)
        results[task] = row
    return results


def reference_encoder(encoder: minisbert.SentenceEncoder, name: str) -> Callable[[list[str]], Tensor]:
    """sentence-transformers' encode, for the same files as `encoder`."""
    from sentence_transformers import SentenceTransformer

    from minisbert.checkpoint.hub import locate

    config = locate(name).find("modules.json")
    model = SentenceTransformer(str(config.parent) if config else name, device=str(encoder.device))
    return lambda texts: model.encode(texts, convert_to_tensor=True, show_progress_bar=sys.stderr.isatty()).cpu()


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder, organisation/name on the hub, or a bare name")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="the folder with the files of the tasks")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, metavar="TASK", help=f"of {', '.join(TASKS)} (default: all in DIR)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--check", action="store_true", help=f"exit with 1 if a published figure is missed by more than {TOLERANCE}"
    )
    parser.add_argument(
        "--compare", choices=["sentence-transformers"], help="compute with it too, and print the largest difference"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program. Exit codes: 0 done, 1 a check failed, 2 an error."""
    options = build_parser().parse_args(arguments)
    try:
        if not options.data.is_dir():
            raise ValueError(f"--data: there is no folder {str(options.data)!r}.")
        tasks = {task: read_task(options.data, task) for task in options.tasks or TASKS}
        missing = [task for task, pairs in tasks.items() if not pairs.scores]
        if missing and (options.tasks or len(missing) == len(tasks)):
            raise ValueError(
                f"--data: {options.data} has no pairs for {', '.join(missing)}, expected files such as {missing[0]}.tsv."
            )
        tasks = {task: pairs for task, pairs in tasks.items() if pairs.scores}
        encoder = minisbert.load(options.model)
    except (minisbert.MinisbertError, ValueError, OSError) as error:
        print(f"evaluate_sts: error: {error}", file=sys.stderr)
        return 2
    results = {"minisbert": evaluate(lambda texts: encoder.encode(texts, on_truncate="ignore"), tasks)}
    if options.compare:
        results[options.compare] = evaluate(reference_encoder(encoder, options.model), tasks)

    published = PUBLISHED.get(Path(options.model).name)
    failed = [
        task
        for task, row in results["minisbert"].items()
        if published and task in published.exact and not abs(row["spearman_cosine"] - published.figures[task]) <= TOLERANCE
    ]
    ours = results["minisbert"]
    rows = [(task, row) for by_task in results.values() for task, row in by_task.items()]
    difference = max(abs(row[key] - ours[task][key]) for task, row in rows for key in row)
    if options.json:
        report = {"model": options.model, "results": results, "published": published and published._asdict(), "failed": failed}
        print(json.dumps(report | ({"largest_difference": difference} if options.compare else {})))
    else:
        print_table(options.model, results, published)
        if options.compare:
            print(f"The largest difference to {options.compare}: {difference:.4f}")
        if failed:
            print(f"Missed by more than {TOLERANCE}: {', '.join(failed)}")
    return int(bool(options.check and failed))


def print_table(model: str, results: dict[str, dict[str, dict[str, float]]], published: Published | None) -> None:
    """Spearman and Pearson × 100 of each task and system, with the published figure."""
    print(f"{model}: Spearman / Pearson × 100 against the human scores")
    print("".join(f"{name:>15}" for name in ("task", "pairs", *FUNCTIONS, "published")) + "  system")
    for task in results["minisbert"]:
        for system, by_task in results.items():
            row = by_task[task]
            cells = [f"{row[f'spearman_{function}']:.2f} / {row[f'pearson_{function}']:.2f}" for function in FUNCTIONS]
            figure = f"{published.figures[task]:.2f}" if published and task in published.figures else "-"
            print("".join(f"{cell:>15}" for cell in (task, row["pairs"], *cells, figure)) + f"  {system}")
    if published:
        print(f"published: Spearman of the cosine, {published.source}")


if __name__ == "__main__":
    sys.exit(main())
