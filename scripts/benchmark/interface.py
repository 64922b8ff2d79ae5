"""What all systems have in common, and how a workload is divided into batches for them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Setting:
    """What all systems of a run have in common: the model, the folder of its exports, the number of threads, the clock."""

    folder: Path
    exports: Path
    threads: int
    clock: str


@dataclass(frozen=True)
class Way:
    """How a workload is divided into batches.

    Attributes:
        tokens: the most tokens of one batch, padding included.
        padded: a batch has sentences of nearly equal lengths, padded and masked; else of equal lengths.
        apart: each thread computes batches of its own; else all threads compute one batch together.
    """

    tokens: int = 0
    padded: bool = False
    apart: bool = False

    def __str__(self) -> str:
        lengths = "nearly equal" if self.padded else "equal"
        return f"{lengths} lengths, {self.tokens} tokens, {'one batch a thread' if self.apart else 'all threads'}"


WAYS = [Way(tokens, padded, apart) for apart in (False, True) for padded in (False, True) for tokens in (1000, 4000)]


def batches(lengths: Sequence[int], way: Way) -> list[list[int]]:
    """Indices of sentences, batch by batch, longest first.

    >>> batches([3, 2, 3, 3], Way(tokens=6))
    [[0, 2], [3], [1]]
    >>> batches([3, 2, 3, 3], Way(tokens=6, padded=True))
    [[0, 2], [3, 1]]
    """
    indices = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    found = []
    for _, group in groupby(indices, key=lambda index: way.padded or lengths[index]):
        rest = list(group)
        while rest:
            count = max(1, way.tokens // lengths[rest[0]])
            found.append(rest[:count])
            rest = rest[count:]
    return found


class System:
    """One way to turn texts into vectors. Each lives in a process of its own."""

    def __init__(self, setting: Setting) -> None:
        self.folder, self.exports, self.threads = setting.folder, setting.exports, setting.threads
        self.clock = CLOCKS[setting.clock]

    def limit(self, tokens: int | None) -> None:
        """Sets the most tokens of a text; None: the model's own limit."""
        raise NotImplementedError

    def ways(self) -> list[Way]:
        """The ways to try before the system is timed."""
        return [Way()]

    def encode(self, texts: list[str], way: Way, *, single: bool = False, part: int = 1) -> Any:
        """[texts] → [texts, dimension], or None from a system that has no vectors.

        Args:
            texts: what to encode.
            way: how to divide it into batches, for systems that leave the choice.
            single: pass the one text itself, not a list, to systems that tell the two apart.
            part: compute only every so manieth batch, to compare ways; the other rows stay empty.
        """
        raise NotImplementedError
