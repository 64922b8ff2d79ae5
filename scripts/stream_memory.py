"""Checks that the memory of `encode_stream` does not depend on the number of texts.

    python scripts/stream_memory.py [--texts 1000000] [--against 10000] [--model FOLDER_OR_NAME]

Encodes two generated corpora of short sentences, each in a process of its own, and compares the peaks of resident memory. Exits
with 1 if they differ by more than 5 %. The default is a small random model, so that a million sentences take minutes.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from random_checkpoint import save_random, sentences

ALLOWED = 0.05


def measure(model: str, number: int) -> None:
    """The work of one process: encode, and print the rows, the seconds and the peak in kilobytes."""
    import minisbert

    encoder = minisbert.load(model, device="cpu")
    start = time.perf_counter()
    rows = sum(len(some) for some in encoder.encode_stream(sentences(number)))
    print(rows, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> int:
    """Runs both and prints the figures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--against", type=int, default=10_000)
    parser.add_argument("--model")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.model, options.measure)
        return 0
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if model is None:
            save_random(Path(folder) / "model")
            model = str(Path(folder) / "model")
        for number in options.against, options.texts:
            command = [sys.executable, __file__, "--model", model, "--measure", str(number)]
            rows, seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            if int(rows) != number:
                raise SystemExit(f"{rows} rows for {number} texts")
            peaks.append(int(peak))
            print(f"{number:>9,} texts: peak {int(peak) / 1024:.1f} MiB, {float(seconds):.1f} s")
    ratio = peaks[1] / peaks[0]
    print(f"ratio of the peaks: {ratio:.3f} (allowed: {1 + ALLOWED})")
    return int(ratio > 1 + ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
