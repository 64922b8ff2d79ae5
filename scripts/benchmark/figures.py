"""What is measured of whole processes, rather than of calls: one row of `FIGURES` for each figure."""

from __future__ import annotations

import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.interface import CLOCKS, Setting
from benchmark.measure import ratios
from benchmark.search import SIZES, Size, measure_search, search_lines
from benchmark.training import measure_training, training_lines
from benchmark.workloads import sentences_of

STARTS = {
    "import torch": "import torch",
    "minisbert": "import minisbert; minisbert.load({folder!r}).encode('A man is eating food.')",
    "sentence-transformers": "import sentence_transformers as s; s.SentenceTransformer({folder!r}).encode('A man is eating food.')",
}
"""What a fresh interpreter runs."""


@dataclass(frozen=True)
class Request:
    """What the figures are asked for.

    Attributes:
        setting: the model, the threads, the clock.
        texts: those of the workload *short*.
        systems: the chosen rows of SYSTEMS.
        starts: how often each system is started.
        largest: the largest corpus, in sentences.
        data: a folder with stsb-train.tsv; None: made-up texts.
        searches: how many vectors and queries.
        search_rounds: how often each search is measured, in a process of its own.
    """

    setting: Setting
    texts: list[str]
    systems: Sequence[str] = tuple(STARTS)
    starts: int = 7
    largest: int = 10_000
    data: Path | None = None
    searches: Sequence[Size] = SIZES
    search_rounds: int = 3


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a new process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_bytes() -> int:
    """The most memory that this process has held. On Linux `ru_maxrss` would include what the parent held when it forked."""
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text("utf-8"))[1])  # type: ignore[index]
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def torch_peak() -> int:
    """The peak of a process that has only imported torch."""
    import torch

    torch.ones(1)
    return peak_bytes()


def encode_peak(setting: Setting, threads: int, texts: list[str]) -> tuple[int, float]:
    """The peak of a process that encodes these texts, and the seconds that it took."""
    import torch

    import minisbert

    clock = CLOCKS[setting.clock]
    torch.set_num_threads(threads)
    encoder = minisbert.load(setting.folder)
    encoder.encode(texts[:100])
    start = clock()
    encoder.encode(texts, on_truncate="ignore")
    return peak_bytes(), clock() - start


def measure_start(request: Request) -> dict[str, Any]:
    """Seconds from a fresh interpreter to the first vector, and their ratio to those of `import torch`; in turn."""
    codes = {name: code for name, code in STARTS.items() if name == "import torch" or name in request.systems}
    seconds: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(request.starts):
        for name, code in codes.items():
            before, start = os.times(), time.perf_counter()
            command = [sys.executable, "-c", code.format(folder=str(request.setting.folder))]
            subprocess.run(command, check=True, capture_output=True)
            wall, after = time.perf_counter() - start, os.times()
            cpu = after.children_user + after.children_system - before.children_user - before.children_system
            seconds[name].append(cpu if request.setting.clock == "cpu" else wall)
    bare = seconds["import torch"]
    return {name: {"seconds": statistics.median(each), "over_torch": ratios(bare, each)} for name, each in seconds.items()}


def start_lines(found: dict[str, Any]) -> Iterator[str]:
    """A line for each system."""
    for name, row in found.items():
        over = row["over_torch"]
        yield f"start, {name}: {row['seconds']:.2f} s, {over['median']:.2f} [{over['low']:.2f}–{over['high']:.2f}] × import torch"


def measure_memory(request: Request) -> dict[str, float]:
    """Peaks in MB: of torch alone, of the weights, and what encoding the workload *short* holds on top of both."""
    setting = request.setting
    bare, weights = fresh(torch_peak), sum(path.stat().st_size for path in setting.folder.glob("*.safetensors"))
    whole, _ = fresh(encode_peak, setting, setting.threads, request.texts)
    return {"torch": bare / 1e6, "weights": weights / 1e6, "peak": whole / 1e6, "on_top": (whole - bare - weights) / 1e6}


def memory_lines(found: dict[str, float]) -> Iterator[str]:
    """The sum."""
    yield "memory: peak {peak:.0f} MB = torch {torch:.0f} + weights {weights:.0f} + {on_top:.0f} MB".format(**found)


def measure_sizes(request: Request) -> dict[int, dict[str, float]]:
    """Seconds for each thousand sentences, and the peak in MB, for 1,000 made-up sentences, ten times as many, and so on."""
    found = {}
    size = 1000
    while size <= request.largest:
        texts = [f"{index} {text}" for index, text in enumerate(sentences_of(None, size)[0])]
        peak, seconds = fresh(encode_peak, request.setting, request.setting.threads, texts)
        found[size] = {"seconds_per_thousand": seconds / size * 1000, "peak": peak / 1e6}
        size *= 10
    return found


def size_lines(found: dict[int, dict[str, float]]) -> Iterator[str]:
    """A line for each size."""
    for size, row in found.items():
        yield f"{size} sentences: {row['seconds_per_thousand']:.2f} s for each thousand, peak {row['peak']:.0f} MB"


def measure_threads(request: Request) -> dict[int, float]:
    """Sentences per second on 1, 2, 4 … threads."""
    most = request.setting.threads
    counts = sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})
    wall = replace(request.setting, clock="wall")
    return {count: len(request.texts) / fresh(encode_peak, wall, count, request.texts)[1] for count in counts}


def thread_lines(found: dict[int, float]) -> Iterator[str]:
    """A line for each number of threads."""
    for count, speed in found.items():
        yield f"{count} threads: {speed:.0f} sentences per second"


@dataclass(frozen=True)
class Figure:
    """How to measure it, and how to say it in lines of text."""

    measure: Callable[[Request], Any]
    lines: Callable[[Any], Iterator[str]]


FIGURES = {
    "start": Figure(measure_start, start_lines),
    "memory": Figure(measure_memory, memory_lines),
    "sizes": Figure(measure_sizes, size_lines),
    "threads": Figure(measure_threads, thread_lines),
    "training": Figure(measure_training, training_lines),
    "search": Figure(measure_search, search_lines),
}
