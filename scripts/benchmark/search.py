"""The figure `search`: how fast the nearest vectors are found, and with how much memory, beside other exact searches."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import util
from typing import TYPE_CHECKING, Any

from benchmark.measure import PAUSE, ratios

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 384
TOP_K = 10
SECONDS = 1.0
"""How long a short call is repeated in one turn."""

AGREED = 0.999
"""The least share of the rows found that must be those that minisbert found. Rounding may swap scores that are nearly equal."""


@dataclass(frozen=True)
class Size:
    """A search: so many queries in so many vectors; without queries, paraphrases are mined among them."""

    rows: int
    queries: int = 0

    @classmethod
    def parse(cls, text: str) -> Size:
        """From the command line.

        >>> Size.parse("200000x1"), Size.parse("20000")
        (Size(rows=200000, queries=1), Size(rows=20000, queries=0))
        """
        rows, _, queries = text.partition("x")
        return cls(int(rows), int(queries or 0))

    def __str__(self) -> str:
        what = f"{self.queries:,} {'query' if self.queries == 1 else 'queries'} in" if self.queries else "paraphrases among"
        return f"{what} {self.rows:,} × {WIDTH}"


SIZES = (Size(200_000, 200), Size(200_000, 1), Size(20_000))


def vectors_of(rows: int, seed: int) -> Tensor:
    """Random vectors of length 1, [rows, WIDTH], made with little memory beside them."""
    import torch

    random = torch.Generator().manual_seed(seed)
    made = torch.empty(rows, WIDTH)
    for part in made.split(4096):
        part.normal_(generator=random)
        part.div_(torch.linalg.vector_norm(part, dim=1, keepdim=True))
    return made


Rows = list[list[int]]
Search = Callable[["Tensor"], Rows]


def ours(corpus: Tensor, score_function: str = "cosine") -> Search:
    """`minisbert.semantic_search`."""
    from minisbert import semantic_search

    def search(queries: Tensor) -> Rows:
        found = semantic_search(queries, corpus, top_k=TOP_K, score_function=score_function)
        return [[hit["corpus_id"] for hit in hits] for hits in found]

    return search


def ours_dot(corpus: Tensor) -> Search:
    """The same without lengths, as for vectors that are known to be normalized."""
    return ours(corpus, "dot")


def theirs(corpus: Tensor) -> Search:
    """`sentence_transformers.util.semantic_search`."""
    from sentence_transformers.util import semantic_search

    return lambda queries: [[hit["corpus_id"] for hit in hits] for hits in semantic_search(queries, corpus, top_k=TOP_K)]


def plain(corpus: Tensor) -> Search:
    """A product and `topk`, for 100 queries at a time: no checks, ties in any order."""
    return lambda queries: [ids for part in queries.split(100) for ids in (part @ corpus.T).topk(TOP_K, dim=1).indices.tolist()]


def faiss(corpus: Tensor) -> Search:
    """`IndexFlatIP` of faiss, which copies the vectors."""
    import faiss as library
    import torch

    library.omp_set_num_threads(torch.get_num_threads())
    index = library.IndexFlatIP(WIDTH)
    index.add(corpus.numpy())
    return lambda queries: index.search(queries.numpy(), TOP_K)[1].tolist()


SEARCHES: dict[str, Callable[[Tensor], Search]] = {
    "minisbert": ours,
    "minisbert, dot": ours_dot,
    "sentence-transformers": theirs,
    "product and topk": plain,
    "faiss": faiss,
}


def pairs_of_ours(vectors: Tensor) -> Rows:
    """The pairs that `paraphrase_mining_embeddings` finds, as numbers in a single row."""
    from minisbert.util import paraphrase_mining_embeddings

    return [[int(first * len(vectors) + second) for _, first, second in paraphrase_mining_embeddings(vectors)]]


def pairs_of_theirs(vectors: Tensor) -> Rows:
    """Those of sentence-transformers' function of the same name."""
    from sentence_transformers.util import paraphrase_mining_embeddings

    return [[first * len(vectors) + second for _, first, second in paraphrase_mining_embeddings(vectors)]]


MINERS: dict[str, Callable[[Tensor], Rows]] = {"minisbert": pairs_of_ours, "sentence-transformers": pairs_of_theirs}


def searched(name: str, size: Size, threads: int, clock: str) -> dict[str, Any]:
    """In a process of its own: the median seconds of a call, bytes above the vectors, and what was found."""
    import torch

    from benchmark.figures import peak_bytes
    from benchmark.interface import CLOCKS

    torch.set_num_threads(threads)
    now = CLOCKS[clock]
    corpus, queries = vectors_of(size.rows, 0), vectors_of(size.queries, 1)
    some = corpus[:5000]
    if size.queries:
        SEARCHES[name](some)(queries[:16])  # what a library does at its first call
        before, start = peak_bytes(), now()
        search = SEARCHES[name](corpus)
        ready = now() - start
    else:
        MINERS[name](some[:100])
        before, ready = peak_bytes(), 0.0
        search, queries = MINERS[name], corpus
    time.sleep(PAUSE)  # until the thread pools of the calls above are asleep
    seconds: list[float] = []
    while not seconds or (sum(seconds) < SECONDS and len(seconds) < 20):
        start = now()
        found = search(queries)
        seconds.append(now() - start)
    return {"seconds": statistics.median(seconds), "ready": ready, "bytes": peak_bytes() - before, "found": found}


def measure_search(request: Any) -> dict[str, Any]:
    """For each size and system, seconds of a call and MB above the vectors, and how many times as fast minisbert is; in turn."""
    found: dict[str, Any] = {}
    for size in request.searches:
        every = SEARCHES if size.queries else MINERS
        known = {"sentence-transformers": "sentence-transformers" in request.systems, "faiss": bool(util.find_spec("faiss"))}
        names = [name for name in every if known.get(name, True)]
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for turn in range(request.search_rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    setting = request.setting
                    runs[name].append(pool.apply(searched, (name, size, setting.threads, setting.clock)))
        found[str(size)] = summed(runs)
    return found


def summed(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """A row for each system; an error if one of them found something else."""
    seconds = {name: [run["seconds"] for run in each] for name, each in runs.items()}
    expected = runs["minisbert"][0]["found"]
    for name, each in runs.items():
        share = agreement(expected, each[0]["found"])
        if share < AGREED:
            raise ValueError(f"{name}: found {share:.4f} of the rows that minisbert found, expected {AGREED} at least.")
    return {
        name: {
            "seconds": statistics.median(seconds[name]),
            "ready": statistics.median(run["ready"] for run in each),
            "megabytes": statistics.median(run["bytes"] for run in each) / 1e6,
            "faster": ratios(seconds["minisbert"], seconds[name]),
        }
        for name, each in runs.items()
    }


def agreement(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> float:
    """The share of our rows that they found too, query by query.

    >>> agreement([[1, 2], [3, 4]], [[2, 1], [3, 5]])
    0.75
    """
    return sum(len({*a} & {*b}) for a, b in zip(ours, theirs, strict=True)) / sum(map(len, ours))


def search_lines(found: dict[str, Any]) -> Iterator[str]:
    """A line for each size and system."""
    for size, rows in found.items():
        for name, row in rows.items():
            ready = f" after {row['ready']:.2f} s of copying" if row["ready"] > 0.01 else ""
            faster = (
                ""
                if name == "minisbert"
                else ", minisbert is {median:.2f} [{low:.2f}–{high:.2f}] × as fast".format(**row["faster"])
            )
            yield f"search, {size}, {name}: {row['seconds']:.3f} s{ready}, {row['megabytes']:.0f} MB above the vectors{faster}"
