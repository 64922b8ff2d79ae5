"""The figure `training`: how fast a model is trained, and with how much memory, beside sentence-transformers' own trainer."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmark.measure import ratios

BATCH_SIZES = (16, 64)
WARM_UP = 2
"""Steps that are not timed."""

Pairs = tuple[list[str], list[str], list[float]]
Clock = Callable[[], float]


def training_pairs(data: Path | None, texts: Sequence[str], count: int) -> Pairs:
    """Pairs with a score from 0 to 1: those of stsb-train.tsv, from all of it, or neighbours among the given texts."""
    file = None if data is None else Path(data) / "stsb-train.tsv"
    if file is None or not file.is_file():
        some = [texts[place % len(texts)] for place in range(2 * count)]
        return some[::2], some[1::2], [(place % 6) / 5 for place in range(count)]
    from minisbert.train import read_examples

    found = read_examples(file, ("sentence1", "sentence2"), "score", max_score=5)
    scores = [] if found.labels is None else found.labels.tolist()
    every = slice(None, None, max(1, len(found) // count))  # the file has its short sentences first
    return found.columns[0][every][:count], found.columns[1][every][:count], scores[every][:count]


def train_minisbert(folder: Path, pairs: Pairs, batch_size: int, clock: Clock, **options: Any) -> list[float]:
    """The seconds of each step of `fit`, from one call of the loss to the next."""
    import minisbert
    from minisbert.train import CosineSimilarityLoss, fit

    calls: list[float] = []
    loss = CosineSimilarityLoss()
    loss.register_forward_pre_hook(lambda *_: calls.append(clock()))
    data = list(zip(*pairs, strict=True))
    fit(minisbert.load(folder, device="cpu"), data, loss=loss, batch_size=batch_size, show_progress_bar=False, **options)
    return [end - start for start, end in pairwise(calls)]


def train_sentence_transformers(folder: Path, pairs: Pairs, batch_size: int, clock: Clock) -> list[float]:
    """The seconds of each step of SentenceTransformerTrainer with the same settings."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
    from transformers import TrainerCallback

    model = SentenceTransformer(str(folder), device="cpu")
    ends: list[float] = []

    class Ends(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(clock())

    with tempfile.TemporaryDirectory() as out:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=out,
            per_device_train_batch_size=batch_size,
            num_train_epochs=1,
            learning_rate=2e-5,
            weight_decay=0.01,
            warmup_steps=0.1,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        data = Dataset.from_dict(dict(zip(("sentence1", "sentence2", "score"), pairs, strict=True)))
        SentenceTransformerTrainer(
            model, arguments, train_dataset=data, loss=CosineSimilarityLoss(model), callbacks=[Ends()]
        ).train()
    return [end - start for start, end in pairwise(ends)]


TRAINERS: dict[str, Callable[..., list[float]]] = {
    "minisbert": train_minisbert,
    "sentence-transformers": train_sentence_transformers,
}


def trained(name: str, threads: int, clock: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[float, int]:
    """In a process of its own: the median seconds of a step, and the peak of memory in bytes."""
    import torch

    from benchmark.figures import peak_bytes
    from benchmark.interface import CLOCKS

    torch.set_num_threads(threads)
    seconds = TRAINERS[name](*arguments, CLOCKS[clock], **options)
    return statistics.median(seconds[WARM_UP:] or seconds), peak_bytes()


def in_turn(names: Sequence[str], setting: Any, arguments: tuple[Any, ...], rounds: int) -> dict[str, Any]:
    """Each trainer in a fresh process, in turn, round by round."""
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[name].append(pool.apply(trained, (name, setting.threads, setting.clock, arguments, {})))
    seconds = {name: [second for second, _ in runs] for name, runs in found.items()}
    return {
        name: {
            "seconds": statistics.median(seconds[name]),
            "peak": max(peak for _, peak in runs) / 1e6,
            "slower": ratios(seconds["minisbert"], seconds[name]),
        }
        for name, runs in found.items()
    }


def measure_training(request: Any) -> dict[str, Any]:
    """For each batch size, seconds of a step, tokens per second, and peaks in MB; then the peaks with long texts."""
    import minisbert

    setting, found = request.setting, {}
    tokenizer = minisbert.load(setting.folder).tokenizer
    names = [name for name in TRAINERS if name == "minisbert" or name in request.systems]
    quick = request.starts < 3
    for size in BATCH_SIZES:
        pairs = training_pairs(request.data, request.texts, (WARM_UP + 2 if quick else 20) * size)
        tokens = sum(len(ids) for column in pairs[:2] for ids in tokenizer(column).ids) / len(pairs[0]) * size
        rows = in_turn(names, setting, (setting.folder, pairs, size), 1 if quick else 3)
        found[f"batch {size}"] = {name: row | {"tokens_per_second": tokens / row["seconds"]} for name, row in rows.items()}
    if not quick:
        words = "the cat sat on the mat and " * 30
        texts = [f"{place} {words}" for place in range(64)]
        long: Pairs = (texts[:32] * 2, texts[32:] * 2, [0.5] * 64)  # 64 texts of 128 tokens
        peaks = {}
        for kept in (True, False):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                options = {"gradient_checkpointing": not kept}
                arguments = "minisbert", setting.threads, setting.clock, (setting.folder, long, 32), options
                peaks[kept] = pool.apply(trained, arguments)[1] / 1e6
        found["64 × 128 tokens"] = {"peak": peaks[True], "peak_with_checkpointing": peaks[False]}
    return found


def training_lines(found: dict[str, Any]) -> Iterator[str]:
    """A line for each system and batch size."""
    for name, rows in found.items():
        if "peak" in rows:
            yield f"training, {name}: peak {rows['peak']:.0f} MB, {rows['peak_with_checkpointing']:.0f} with gradient checkpointing"
            continue
        for system, row in rows.items():
            slower = (
                ""
                if system == "minisbert"
                else " (minisbert is {median:.2f} [{low:.2f}–{high:.2f}] × as fast)".format(**row["slower"])
            )
            yield (
                f"training, {name}, {system}: {row['tokens_per_second']:,.0f} tokens per second, a step {row['seconds']:.3f} s, "
                f"peak {row['peak']:.0f} MB{slower}"
            )
