"""Mixed load for some minutes: threads, forks, odd texts, huge texts, errors. No call may fail, differ by a bit, hang, or leak.

    python scripts/soak.py [--minutes 10] [--threads 3] [--model FOLDER_OR_NAME]

Each thread encodes random texts and compares the vectors with those that were computed before. The main thread forks repeatedly;
each child encodes and compares too. A child that takes a minute counts as hung. The resident size is sampled once a second. Exits
with 1 on any error, or if the median size of the last fifth is more than 5 % above that of the second fifth (the first fifth warms
up).
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import pickle
import random
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from random_checkpoint import WORDS, save_random

import minisbert

ALLOWED = 0.05
CHILD_SECONDS = 60
ODD = ["", " ", "\0", "\N{GRINNING FACE}", "שלום עולם", "e\u0301", "x" * 5000, "\u202eabc", "\t\n", "[MASK] [SEP]", "..."]


class Load:
    """One encoder, the texts with their expected vectors, and the jobs."""

    def __init__(self, model: str) -> None:
        rng = random.Random(0)  # noqa: S311
        self.encoder = minisbert.load(model, device="cpu")
        self.texts = [*ODD, *(" ".join(rng.choices(WORDS, k=1 + n % 90)) for n in range(400))]
        self.huge = " ".join(rng.choices(WORDS, k=200_000))
        self.right = self.encoder.encode(self.texts, on_truncate="ignore")
        self.right_huge = self.encoder.encode(self.huge, on_truncate="ignore")
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self.stop = threading.Event()

    def some(self, rng: random.Random) -> list[int]:
        """Indices of some texts, some of them more than once."""
        return rng.choices(range(len(self.texts)), k=rng.choice([1, 2, 7, 50, 300]))

    def equal(self, vectors: torch.Tensor, right: torch.Tensor) -> None:
        """Raises unless all bits are equal."""
        if not torch.equal(vectors, right):
            raise AssertionError(f"{int((vectors != right).any(dim=-1).sum())} rows differ")

    def encode(self, rng: random.Random) -> None:
        """A list, with any batch size."""
        some = self.some(rng)
        options: dict[str, Any] = rng.choice([{}, {"batch_size": 1 + rng.randrange(40)}, {"batch_tokens": 50}])
        self.equal(self.encoder.encode([self.texts[i] for i in some], on_truncate="ignore", **options), self.right[some])

    def stream(self, rng: random.Random) -> None:
        """A generator, sometimes closed before its end."""
        some = self.some(rng)
        stream = self.encoder.encode_stream((self.texts[i] for i in some), window=1 + rng.randrange(100), on_truncate="ignore")
        if rng.random() < 0.2:
            rows = next(stream)
            stream.close()
            self.equal(rows, self.right[some[: len(rows)]])
        else:
            self.equal(torch.cat(list(stream)), self.right[some])

    def huge_text(self, _: random.Random) -> None:
        """One text of a megabyte."""
        self.equal(self.encoder.encode(self.huge, on_truncate="ignore"), self.right_huge)

    def tokens(self, rng: random.Random) -> None:
        """Token vectors; there must be one for each token."""
        texts = [self.texts[i] for i in self.some(rng)]
        counts = self.encoder.count_tokens(texts)
        vectors = self.encoder.encode(texts, output_value="token_embeddings", on_truncate="ignore")
        if [len(of_text) for of_text in vectors] != [min(count, self.encoder.max_seq_length) for count in counts]:
            raise AssertionError("the number of token vectors differs from the number of tokens")

    def wrong(self, _: random.Random) -> None:
        """Wrong arguments, which must be refused."""
        for texts in ["a", None], ["a \ud83d"], {"a"}:
            try:
                self.encoder.encode(texts)
            except (TypeError, ValueError):
                continue
            raise AssertionError(f"{texts!r} was not refused")

    def another(self, rng: random.Random) -> None:
        """Another encoder, from a pickle, used once."""
        some = self.some(rng)
        other = pickle.loads(pickle.dumps(self.encoder))  # noqa: S301 (our own)
        self.equal(other.encode([self.texts[i] for i in some], on_truncate="ignore"), self.right[some])

    def run(self, name: str, job: Callable[[random.Random], None], rng: random.Random) -> bool:
        """Runs one job, and counts it or notes its error."""
        try:
            job(rng)
        except BaseException:  # any error counts
            self.errors.append(f"{name}: {traceback.format_exc()}")
            return False
        self.done[name] += 1
        return True

    def work(self, seed: int) -> None:
        """The loop of a thread, until it is told to stop."""
        rng = random.Random(seed)  # noqa: S311
        jobs = [self.encode] * 6 + [self.stream] * 4 + [self.tokens, self.wrong, self.huge_text, self.another]
        while not self.stop.is_set():
            job = rng.choice(jobs)
            self.run(job.__name__, job, rng)

    def fork(self, rng: random.Random) -> None:
        """A child that encodes while its parent's threads do."""
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(CHILD_SECONDS - 10, exit=True)
            self.errors = []
            well = self.run("fork", self.encode, rng) and self.run("fork", self.stream, rng)
            sys.stderr.write("".join(self.errors))
            sys.stderr.flush()
            os._exit(0 if well else 1)
        deadline = time.monotonic() + CHILD_SECONDS
        while time.monotonic() < deadline:
            finished, status = os.waitpid(child, os.WNOHANG)
            if finished:
                if status:
                    raise AssertionError(f"a child ended with status {status}")
                return
            time.sleep(0.02)
        os.kill(child, 9)
        os.waitpid(child, 0)
        raise AssertionError(f"a child hung for {CHILD_SECONDS} s")


def resident_mib() -> float:
    """The resident size of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    """Runs the load and prints the figures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.model is None:
            save_random(Path(folder) / "model")
        load = Load(options.model or str(Path(folder) / "model"))
        threads = [threading.Thread(target=load.work, args=(seed,)) for seed in range(options.threads)]
        for thread in threads:
            thread.start()
        sizes: list[float] = []
        rng = random.Random(99)  # noqa: S311
        end = time.monotonic() + 60 * options.minutes
        while time.monotonic() < end and len(load.errors) < 10:
            time.sleep(1)
            sizes.append(resident_mib())
            if len(sizes) % 3 == 0:
                load.run("fork", load.fork, rng)
        load.stop.set()
        for thread in threads:
            thread.join()
    fifth = max(1, len(sizes) // 5)
    early, late = statistics.median(sizes[fifth : 2 * fifth] or sizes), statistics.median(sizes[-fifth:])
    print(", ".join(f"{name} {number:,}" for name, number in sorted(load.done.items())))
    print(f"resident: {early:.1f} MiB in the second fifth, {late:.1f} in the last, {max(sizes):.1f} at most")
    print(f"{len(load.errors)} errors")
    for error in load.errors[:10]:
        print(error, file=sys.stderr)
    return int(bool(load.errors) or late > early * (1 + ALLOWED))


if __name__ == "__main__":
    sys.exit(main())
