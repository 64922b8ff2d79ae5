"""Times systems against each other: each in a process of its own, in turn. README.md says why."""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.interface import Setting, System, Way
from benchmark.systems import SYSTEMS
from benchmark.workloads import Workload

if TYPE_CHECKING:
    import numpy as np

PAUSE = 0.6
"""Seconds before each turn. The threads of Intel's OpenMP, which ctranslate2 uses, spin longest: 0.2 s after their last work."""

AGREEMENT = {"float32": ("largest difference", 1e-4), "int8": ("largest 1 - cosine", 0.1)}
"""For each precision, how its vectors are compared with those of the first system, and the largest value that is accepted."""


@dataclass
class Result:
    """What one system did on one workload.

    Attributes:
        rounds: seconds of each call, round by round.
        others: how many cores everything else on the machine kept busy meanwhile, round by round.
        way: how the workload was divided into batches.
        tried: the seconds of all ways that were tried.
        difference: from the first system's vectors, as AGREEMENT measures it; None without vectors.
    """

    rounds: list[list[float]] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    way: str = ""
    tried: dict[str, float] = field(default_factory=dict)
    difference: float | None = None

    def medians(self) -> list[float]:
        """The median call of each round, in seconds."""
        return [statistics.median(calls) for calls in self.rounds]

    def percentile(self, percent: float) -> float:
        """The smallest number of seconds in which so many percent of all calls were done, whatever their round."""
        calls = sorted(seconds for calls in self.rounds for seconds in calls)
        return calls[math.ceil(percent * len(calls) / 100) - 1]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times faster we are, round by round: median, lowest, highest.

    >>> ratios([1.0, 1.0, 2.0], [2.0, 3.0, 2.0])
    {'median': 2.0, 'low': 1.0, 'high': 3.0}
    """
    each = [their / our for our, their in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(each), "low": min(each), "high": max(each)}


def difference(vectors: np.ndarray, expected: np.ndarray, whose: str, precision: str = "float32") -> float:
    """How far two systems' vectors are apart, as AGREEMENT measures it. Above its bound, the run ends here."""
    import numpy as np

    measure, bound = AGREEMENT[precision]
    if vectors.shape != expected.shape:
        found = math.inf
    elif precision == "float32":
        found = float(np.abs(vectors - expected).max())
    else:
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
        found = float((1 - (vectors * expected).sum(1) / lengths).max())
    if not found <= bound:  # also if it is nan
        raise SystemExit(
            f"benchmark: the vectors of {whose} do not agree with those of the first system: found a {measure} of {found:.1e}, in "
            f"shapes {list(vectors.shape)} and {list(expected.shape)}, expected at most {bound:.0e}. Nothing is timed."
        )
    return found


# --------------------------------------------------------------------------------------------------- in the process of a system


def serve(connection: Connection, name: str, setting: Setting, workloads: dict[str, Workload]) -> None:
    """The life of a system's process: load it, then answer one command after another until the pipe closes."""
    try:
        os.environ["HF_HUB_OFFLINE"] = "1"
        system = SYSTEMS[name].make(setting)
        connection.send(("done", os.getpid()))
        ways: dict[str, Way] = {}
        while True:
            try:
                command, workload_name, known = connection.recv()
            except EOFError:
                return
            workload = workloads[workload_name]
            system.limit(workload.limit)
            answer: Any
            if command == "prepare":
                ways[workload_name], answer = prepare(system, workload, known)
            else:
                answer = turn(system, workload, ways[workload_name])
            connection.send(("done", answer))
    except Exception:  # the parent reports it, whatever it is
        connection.send(("failed", traceback.format_exc()))


def turn(system: System, workload: Workload, way: Way, part: int = 1) -> list[float]:
    """The seconds of each call; with `part`, of every so manieth call, or, of a single call, every so manieth batch."""
    seconds = []
    step = part if len(workload.calls) > 1 else 1
    for call in workload.calls[::step]:
        start = system.clock()
        system.encode(call, way, single=workload.single, part=part // step)
        seconds.append(system.clock() - start)
    return seconds


def prepare(system: System, workload: Workload, known: Way | None) -> tuple[Way, tuple[Way, Any, dict[str, float]]]:
    """Warms up, finds the fastest way to divide this workload into batches unless it is known, and computes the vectors."""
    import numpy as np

    tried = {}
    part = 4 if len(workload.texts) > 200 else 1
    ways = list(dict.fromkeys(way if system.threads > 1 else replace(way, apart=False) for way in system.ways()))
    if known is None and len(ways) == 1:
        known = ways[0]
    if known is None:
        for way in ways:
            turn(system, workload, way, part)  # warms up
            tried[way] = statistics.median(turn(system, workload, way, part))
        known = min(tried, key=lambda way: tried[way])
    vectors = [system.encode(call, known, single=workload.single) for call in workload.calls]
    joined = None if vectors[0] is None else np.concatenate([np.atleast_2d(np.asarray(one)) for one in vectors])
    return known, (known, joined, {str(way): seconds for way, seconds in tried.items()})


# -------------------------------------------------------------------------------------------------------- in the parent process


class Process:
    """A system's process, as the parent sees it."""

    def __init__(self, name: str, setting: Setting, workloads: dict[str, Workload]) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, setting, workloads), daemon=True)
        self.process.start()
        theirs.close()

    def answer(self) -> Any:
        """The next answer. An error in that process ends the run here."""
        try:
            state, value = self.connection.recv()
        except EOFError:
            raise SystemExit(f"benchmark: the process of {self.name} ended without an answer (out of memory?).") from None
        if state == "failed":
            raise SystemExit(f"benchmark: {self.name} failed:\n{value}")
        return value

    def ask(self, command: str, workload: str, known: Way | None = None) -> Any:
        """Sends a command and waits for the answer."""
        self.connection.send((command, workload, known))
        return self.answer()

    def others_seconds(self) -> float:
        """Processor time that everything else on this machine took so far, waiting systems included; nan if not known."""
        whole, own = Path("/proc/stat"), Path(f"/proc/{self.process.pid}/stat")
        if not whole.is_file():
            return math.nan
        user, nice, system = map(int, whole.read_text("utf-8").split()[1:4])
        fields = own.read_text("utf-8").rpartition(")")[2].split()  # the command's name, before it, may contain spaces
        return (user + nice + system - int(fields[11]) - int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Ends the process."""
        self.connection.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def compare(
    names: Sequence[str],
    workloads: dict[str, Workload],
    setting: Setting,
    rounds: int,
    *,
    tuned: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda _: None,
    until: float = math.inf,
) -> dict[str, dict[str, Result]]:
    """Checks the vectors of all systems, then times them in rounds.

    Args:
        names: rows of SYSTEMS; the vectors of the first one are the expected ones.
        workloads: what to encode.
        setting: for all systems.
        rounds: how many turns each system has on each workload.
        tuned: the fastest ways of batching of an earlier run, to which those of this run are added.
        say: takes progress messages.
        until: begin no round, except the first, after that time of `time.monotonic`.

    Returns:
        results[workload][system].
    """
    tuned = {} if tuned is None else tuned
    processes: dict[str, Process] = {}
    results: dict[str, dict[str, Result]] = {workload: {name: Result() for name in names} for workload in workloads}
    try:
        for name in names:  # one after the other, because loading keeps all cores busy
            say(f"loading {name}")
            processes[name] = Process(name, setting, workloads)
            processes[name].answer()
        for workload in workloads:
            expected = None
            for name in names:
                say(f"{workload}: vectors of {name}")
                known = tuned.get(f"{workload}/{name}")
                way, vectors, tried = processes[name].ask("prepare", workload, known and Way(**known))
                result = results[workload][name]
                result.way, result.tried = "" if way == Way() else str(way), tried
                tuned[f"{workload}/{name}"] = vars(way)
                if vectors is None:
                    continue
                if expected is None:
                    expected = vectors
                result.difference = difference(vectors, expected, f"{name} on {workload}", SYSTEMS[name].precision)
        for index, workload in product(range(rounds), workloads):
            if index and time.monotonic() > until:
                break
            shift = index % len(names)
            for name in [*names[shift:], *names[:shift]]:
                say(f"round {index + 1} of {rounds}, {workload}, {name}")
                time.sleep(PAUSE)
                process, result = processes[name], results[workload][name]
                before, start = process.others_seconds(), time.perf_counter()
                result.rounds.append(process.ask("turn", workload))
                result.others.append((process.others_seconds() - before) / (time.perf_counter() - start))
    finally:
        for process in processes.values():
            process.close()
    return results
