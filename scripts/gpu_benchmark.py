"""How fast minisbert is on a CUDA device, beside sentence-transformers with PyTorch's fused attention and FlashAttention.

    python scripts/gpu_benchmark.py --data DIR                                   all-MiniLM-L6-v2 and a model of bert-base's size
    python scripts/gpu_benchmark.py --data DIR --systems minisbert minisbert-bfloat16 --sweep     batches of 4 k to 64 k tokens

DIR holds the STS files: stsb-test.tsv, sts12.tsv and so on. Texts, from their different sentences:
    short   all of them, 14 tokens on average
    mixed   paragraphs of 57 tokens on average, of very different lengths
    long    texts of 256 to 512 tokens, with the limit set to 512
Systems take turns in one process, since one program at a time uses the device; each call ends with vectors in the memory of the
processor. sentence-transformers is given its default batch size of 32 and two larger ones, and the fastest counts. Vectors are
compared with those of minisbert in float32 before anything is timed.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmark import workloads
from benchmark.exports import checkpoint, write_base
from benchmark.workloads import Source

import minisbert
from minisbert.train import read_examples

Encode = Callable[[list[str]], Any]
SIZES = (32, 256, 1024)
HALF = {"float32": 1e-4, "bfloat16": 2e-2}


class Ours:
    """The `encode` of minisbert."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.encoder = minisbert.load(folder, device="cuda", dtype=getattr(torch, dtype))

    def ways(self, limit: int) -> dict[str, Encode]:
        """One: minisbert chooses its batches."""
        self.encoder.max_seq_length = limit
        return {"": self.encoder.encode}


class Theirs:
    """The `encode` of sentence-transformers."""

    def __init__(self, folder: Path, dtype: str, attention: str = "sdpa") -> None:
        from sentence_transformers import SentenceTransformer

        kwargs = {"dtype": getattr(torch, dtype), "attn_implementation": attention}
        self.model = SentenceTransformer(str(folder), device="cuda", model_kwargs=kwargs)

    def ways(self, limit: int) -> dict[str, Encode]:
        """One for each batch size."""
        self.model.max_seq_length = limit
        return {f"batches of {size}": partial(self.model.encode, batch_size=size, show_progress_bar=False) for size in SIZES}


SYSTEMS: dict[str, tuple[str, Callable[..., Any], dict[str, Any]]] = {
    "minisbert": ("float32", Ours, {}),
    "sentence-transformers": ("float32", Theirs, {}),
    "minisbert-bfloat16": ("bfloat16", Ours, {}),
    "sentence-transformers-bfloat16": ("bfloat16", Theirs, {}),
    "sentence-transformers-bfloat16-flash": ("bfloat16", Theirs, {"attention": "flash_attention_2"}),
}
PEERS = {"minisbert": "float32", "minisbert-bfloat16": "bfloat16"}


def texts_of(data: Path, share: float, count_tokens: Callable[[str], int]) -> dict[str, tuple[list[str], int]]:
    """The workloads, each with its limit."""
    sentences: dict[str, None] = {}
    for file in sorted(data.glob("*.tsv")):
        for pair in zip(*read_examples(file, ("sentence1", "sentence2")).columns, strict=True):
            sentences.update(dict.fromkeys(pair))
    found = list(sentences)
    random.Random(0).shuffle(found)  # noqa: S311
    source = Source(found, 10 * share, count_tokens, random.Random(0))  # noqa: S311
    return {
        "short": (found[: max(100, round(len(found) * share))], 256),
        "mixed": (workloads.mixed(source).texts, 256),
        "long": (workloads.long(source).texts, 512),
    }


def timed(encode: Encode, texts: list[str]) -> float:
    """Seconds of one call; its result is in the processor's memory, so the device has finished."""
    start = time.perf_counter()
    encode(texts)
    return time.perf_counter() - start


def load(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Those of the systems that are installed here."""
    found = {}
    for name in names:
        dtype, make, options = SYSTEMS[name]
        try:
            found[name] = make(folder, dtype, **options)
        except (ImportError, ValueError) as error:
            print(f"    {name}: not here ({str(error).splitlines()[0][:120]})", flush=True)
    return found


def compare(systems: dict[str, Any], texts: list[str], limit: int, rounds: int) -> dict[str, tuple[float, str, int]]:
    """For each system: the median seconds, the fastest batch size, and the peak of the device's memory."""
    expected = None
    calls: dict[str, tuple[str, Encode]] = {}
    peaks = {}
    for name, system in systems.items():
        ways = system.ways(limit)
        for encode in ways.values():
            vectors = torch.as_tensor(encode(texts[:300])).float()
            expected = vectors if expected is None else expected
            off, bound = float((1 - torch.cosine_similarity(vectors, expected)).max()), HALF[SYSTEMS[name][0]]
            if not off <= bound:
                raise SystemExit(f"gpu_benchmark: vectors of {name} are off: 1 - cosine is {off:.1e}, expected {bound:.0e}.")
        seconds = {}
        for way, encode in ways.items():
            timed(encode, texts[: len(texts) // 4])  # warms up
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            seconds[way] = timed(encode, texts)
            peaks[name, way] = torch.cuda.max_memory_allocated() - before
        best = min(seconds, key=lambda way: seconds[way])
        calls[name] = best, ways[best]
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        order = list(calls)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            found[name].append(timed(calls[name][1], texts))
    return {name: (statistics.median(each), calls[name][0], peaks[name, calls[name][0]]) for name, each in found.items()}


def sweep(folder: Path, texts: list[str], limit: int) -> None:
    """Texts a second with batches of this many tokens."""
    for dtype in "float32", "bfloat16":
        encoder = minisbert.load(folder, device="cuda", dtype=getattr(torch, dtype))
        encoder.max_seq_length = limit
        line = []
        for tokens in 4_096, 8_192, 16_384, 32_768, 65_536:
            encode = partial(encoder.encode, batch_tokens=tokens)
            encode(texts)
            torch.cuda.reset_peak_memory_stats()
            seconds = min(timed(encode, texts) for _ in range(3))
            line.append(f"{tokens}: {len(texts) / seconds:,.0f} ({torch.cuda.max_memory_allocated() / 1e6:,.0f} MB)")
        print(f"    sweep, {dtype}: {', '.join(line)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--models", nargs="+", choices=("all-MiniLM-L6-v2", "bert-base"), default=("all-MiniLM-L6-v2", "bert-base"))
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS), metavar="SYSTEM")
    parser.add_argument("--share", type=float, default=1.0, help="the fraction of each workload (default: 1)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sweep", action="store_true", help="batches of 4 k to 64 k tokens, too")
    chosen = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("found no CUDA device, expected one. For a processor: python scripts/benchmark")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}", flush=True)
    real = checkpoint("all-MiniLM-L6-v2")
    counting = minisbert.load(real, device="cpu").tokenizer
    counting.max_length = 512
    texts = texts_of(chosen.data, chosen.share, lambda text: len(counting([text]).ids[0]))
    with tempfile.TemporaryDirectory() as made:
        folders = {"all-MiniLM-L6-v2": real, "bert-base": Path(made)}
        if "bert-base" in chosen.models:
            write_base(Path(made), real)
        for model in chosen.models:
            systems = load(folders[model], chosen.systems)
            for name, (some, limit) in texts.items():
                tokens = sum(len(ids) for ids in counting(some).ids)
                print(f"{model}, {name}: {len(some):,} texts, {tokens:,} tokens", flush=True)
                rows = compare(systems, some, limit, chosen.rounds)
                for system, (seconds, way, peak) in rows.items():
                    peer = next((row for row in PEERS if row in rows and PEERS[row] == SYSTEMS[system][0]), None)
                    ratio = f", {rows[peer][0] / seconds:.2f} × {peer}" if peer else ""
                    speed = f"{len(some) / seconds:,.0f} texts/s, {tokens / seconds:,.0f} tokens/s"
                    print(f"    {system}: {speed}, {peak / 1e6:,.0f} MB beside the weights{way and ', ' + way}{ratio}", flush=True)
                if chosen.sweep:
                    sweep(folders[model], some, limit)


if __name__ == "__main__":
    main()
