"""The engine for many machines: each shard is a row of a Ray dataset, which a pool of actors maps to the shard's manifest entry.

An actor holds one encoder, reads its shard's rows from the inputs, and writes the shard into the output folder, so that neither
texts nor vectors go through Ray. Ray schedules the shards, limits how many wait, starts actors again that died, and gives their
shards to others. A shard that is written twice has the same bytes both times.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from minisbert.corpus.folder import CorpusError, differences
from minisbert.corpus.plan import Shard
from minisbert.corpus.rows import Reader
from minisbert.corpus.shards import Job, model_facts, write_shard
from minisbert.errors import MinisbertError, imported
from minisbert.files.lines import long_fields

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

MOST_THREADS = 4
"""The default number of cores for an actor. More cores share one copy of the weights; fewer wait less for one another."""

ERRORS: dict[str, type[Exception]] = {
    "ValueError": ValueError,
    "TypeError": TypeError,
    "OSError": OSError,
    "CorpusError": CorpusError,
}


@dataclass(frozen=True)
class RayOptions:
    """The pool of actors.

    Attributes:
        workers: how many.
        threads: cores for each.
        gpus: for each.
        own: whether this run started Ray, and ends it.
    """

    workers: int
    threads: int
    gpus: int
    own: bool


def start(address: str | None, workers: int | None, threads: int | None) -> RayOptions:
    """Connects to Ray, or starts it, and sizes the pool so that actors × threads = cores.

    Raises:
        MissingExtraError: if Ray is not installed.
        ConnectionError: if there is no cluster at that address.
        ValueError: if the pool does not fit the cluster.
    """
    ray = imported("ray", "ray[data]")
    own = not ray.is_initialized()
    if own:
        more = {"include_dashboard": False} if address is None else {"address": address}
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **more)
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(some["CPU"]) for some in resources if some.get("CPU", 0) >= 1]
    gpus = int(sum(some.get("GPU", 0) for some in resources))
    if not cores:
        raise ValueError("address: found a Ray cluster without CPUs, expected at least one.")
    if threads is None:
        share = max(1, sum(cores) // gpus) if gpus else MOST_THREADS
        threads = min(share, *cores)
    fitting = sum(some // threads for some in cores)
    if gpus:
        fitting = min(fitting, gpus)
    if not fitting or (workers or 0) > fitting:
        raise ValueError(
            f"workers: {workers or 1} of {threads} cores do not fit the cluster, which has machines with {cores} cores "
            f"and {gpus} GPUs. Ask for fewer workers or threads."
        )
    return RayOptions(workers or fitting, threads, int(gpus > 0), own)


def run(
    job: Job, todo: Sequence[Shard], load: Callable[[], SentenceEncoder], model: dict[str, Any], options: RayOptions
) -> Iterator[dict[str, Any]]:
    """Has shards made by the pool, and yields the entry of each when it is done, in any order; for the arguments see `ShardWorker`.

    Raises:
        ValueError, OSError, MinisbertError: what the first failing shard raised, as in the local engine.
    """
    ray, data = (imported(name, "ray[data]") for name in ("ray", "ray.data"))
    try:
        if not todo:
            return
        with _quiet(data):
            shards = data.from_items([{"shard": json.dumps(number)} for number in range(len(todo))], override_num_blocks=len(todo))
            entries = shards.map_batches(
                ShardWorker,
                fn_constructor_args=(job, tuple(todo), load, model, options.threads),
                compute=data.ActorPoolStrategy(size=min(options.workers, len(todo))),
                batch_size=1,
                num_cpus=options.threads,
                num_gpus=options.gpus or None,
            )
            for batch in entries.iter_batches(batch_size=1, prefetch_batches=0):
                entry = json.loads(str(batch["entry"][0]))
                if "error" in entry:
                    raise ERRORS.get(entry["error"], MinisbertError)(entry["message"])
                _see_it(job, entry)
                del entry["host"]
                yield entry
    finally:
        if options.own:
            ray.shutdown()


def _see_it(job: Job, entry: dict[str, Any]) -> None:
    """The folder must be the same one on all machines."""
    path = job.final / entry["file"]
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        raise CorpusError(
            f"out: {entry['host']} wrote {entry['file']}, which is not in {str(job.final)!r} here. "
            "Name a folder that all machines of the cluster see under the same path."
        )


@contextlib.contextmanager
def _quiet(data: Any) -> Iterator[None]:
    """Ray Data's bars and messages are left out: this run has its own."""
    context = data.DataContext.get_current()
    logger = logging.getLogger("ray.data")
    before, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before
        logger.setLevel(level)


class ShardWorker:
    """What an actor runs: indices of shards → their entries, as json.

    Args:
        job: what every shard needs to know.
        todo: the shards.
        load: gives the encoder, in each actor.
        model: what the encoder must be, see `shards.model_facts`.
        threads: cores to compute on.
    """

    def __init__(
        self, job: Job, todo: tuple[Shard, ...], load: Callable[[], SentenceEncoder], model: dict[str, Any], threads: int
    ) -> None:
        torch.set_num_threads(threads)
        self.job = job
        self.todo = todo
        self.load = load
        self.model = model
        self.encoder: SentenceEncoder | None = None
        self.reader = Reader(job.sources, job.layout)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """The entry of one shard, or its error: Ray retries what dies, not what is wrong with the input."""
        try:
            entry = self.make(self.todo[int(batch["shard"][0])])
        except (MinisbertError, ValueError, TypeError, OSError) as error:
            kind = next((name for name, known in ERRORS.items() if isinstance(error, known)), "MinisbertError")
            text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
            entry = {"error": kind, "message": text}
        return {"entry": [json.dumps(entry)]}

    def make(self, shard: Shard) -> dict[str, Any]:
        """Reads, encodes and writes a shard."""
        if not self.job.writing.is_dir():
            raise CorpusError(
                f"out: {socket.gethostname()} does not see the folder {str(self.job.writing)!r}. "
                "Name a folder that all machines of the cluster see under the same path."
            )
        if self.encoder is None:
            self.encoder = self.load()
            differ = differences({**self.model, "name": ""}, {**model_facts(self.encoder), "name": ""})
            if differ:
                raise CorpusError(f"model: {socket.gethostname()} has another {self.model['name']}: {'; '.join(differ[:4])}.")
        began = time.time()
        with long_fields():
            entry = write_shard(self.job, shard, self.encoder, self.reader)
        return entry | {"began": began, "host": socket.gethostname()}
