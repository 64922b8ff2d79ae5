"""Ray Data: a cluster of two nodes on this machine makes the files of the local engine, whatever is killed meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from corpora import files_of, sentences, write_jsonl, write_parquet
from messages import naming

import minisbert
from minisbert.corpus import encode_corpus
from minisbert.integrations import RayEncoder

ROWS, PER_SHARD = 8000, 500


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two nodes with one core each, to which this process is connected."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    texts: list[str | None] = sentences(ROWS)
    texts[4321] = None
    write_parquet(folder / "a.parquet", texts[:5000], row_group_size=1700)
    write_jsonl(folder / "b.jsonl.gz", texts[5000:], 5000)
    return folder


@pytest.fixture(scope="module")
def settings(corpus: Path, tiny: Path) -> dict[str, Any]:
    return {"inputs": corpus, "model": tiny, "id_column": "id", "rows_per_shard": PER_SHARD, "on_error": "skip"}


@pytest.fixture(scope="module")
def expected(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an uninterrupted local run on as many cores."""
    out = tmp_path_factory.mktemp("expected") / "local"
    with two_threads():
        encode_corpus(out=out, **settings)
    return files_of(out)


@contextmanager
def two_threads() -> Iterator[None]:
    """What the manifest says of the local engine is then what it says of two Ray actors of one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def writers(out: Path) -> Iterator[int]:
    """The processes that have a shard open for writing."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(file.readlink()).startswith(f"{out}/_minisbert/writing/shard") for file in (process / "fd").iterdir()):
                yield int(process.name)
        except OSError:  # it is gone already
            continue


def kill_writers(out: Path, times: int, done: Callable[[], bool]) -> list[int]:
    """Kills this many processes in the middle of a shard, each after two more shards have been made."""
    killed: list[int] = []
    while len(killed) < times and not done():
        if len(list(out.glob("*.parquet"))) >= 2 * len(killed) + 1:
            for process in writers(out):
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                break
        time.sleep(0.005)
    return killed


def test_two_nodes_make_the_files_of_the_local_engine(
    address: str, settings: dict[str, Any], expected: dict[str, bytes], tmp_path: Path
) -> None:
    import ray

    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    summary = encode_corpus(out=tmp_path / "ray", engine="ray", address=address, **settings)
    assert (summary.engine, summary.rows, summary.failed) == ("ray", ROWS, 1)
    assert 0 < summary.startup_seconds < summary.seconds
    assert files_of(tmp_path / "ray") == expected


def test_a_worker_that_is_killed_in_the_middle_of_a_shard_changes_nothing(
    address: str, settings: dict[str, Any], expected: dict[str, bytes], tmp_path: Path
) -> None:
    out, killed, over = tmp_path / "ray", [], threading.Event()
    killer = threading.Thread(target=lambda: killed.extend(kill_writers(out, 2, over.is_set)))
    killer.start()
    try:
        encode_corpus(out=out, engine="ray", address=address, **settings)
    finally:
        over.set()
        killer.join()
    assert len(killed) == 2
    assert files_of(out) == expected


def test_a_driver_that_is_killed_is_resumed_on_ray_or_here(
    address: str, settings: dict[str, Any], expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "ray"
    words = ["corpus", settings["inputs"], "--model", settings["model"], "--id-column", "id", "--rows-per-shard", PER_SHARD]
    words += ["--on-error", "skip", "--out", out, "--engine", "ray", "--address", address]
    with subprocess.Popen([sys.executable, "-m", "minisbert", *map(str, words)], stderr=subprocess.PIPE, text=True) as driver:
        journal = out / "_minisbert/journal.jsonl"  # the driver writes it, some time after the actors have written their shards
        while len(list(out.glob("*.parquet"))) < 3 or not (journal.exists() and "\n" in journal.read_text("utf-8")):
            assert driver.poll() is None, driver.stderr.read()
            time.sleep(0.005)
        driver.kill()
    there = len(list(out.glob("*.parquet")))
    assert 3 <= there < ROWS // PER_SHARD
    shutil.copytree(out, tmp_path / "copy", copy_function=copy_if_there)
    for engine, folder in ("local", out), ("ray", tmp_path / "copy"):
        with two_threads():
            summary = encode_corpus(out=folder, engine=engine, address=address if engine == "ray" else None, **settings)
        assert summary.new_shards < ROWS // PER_SHARD
        assert files_of(folder) == expected


def copy_if_there(source: str, target: str) -> None:
    """An actor may go on for a moment, and move what it has written."""
    with suppress(FileNotFoundError):
        shutil.copy2(source, target)


def test_what_is_wrong_with_a_row_or_the_pool_is_said_as_locally(address: str, settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=naming("a.parquet, row 4321", "null", "text")):
        encode_corpus(out=tmp_path / "ray", engine="ray", address=address, **{**settings, "on_error": "raise"})
    with pytest.raises(ValueError, match=naming("workers", "3 of 1 cores", [1, 1])):
        encode_corpus(out=tmp_path / "other", engine="ray", address=address, workers=3, **settings)


def test_a_pipeline_of_ones_own_maps_batches_with_the_callable_class(address: str, tiny: Path) -> None:
    import numpy as np
    import ray.data

    texts = sentences(100)
    dataset = ray.data.from_items([{"n": n, "text": text} for n, text in enumerate(texts)])
    pool = ray.data.ActorPoolStrategy(size=1)
    made = dataset.map_batches(RayEncoder, fn_constructor_args=(tiny,), compute=pool, batch_size=32, num_cpus=1)
    rows = sorted(made.take_all(), key=lambda row: row["n"])
    assert np.array_equal([row["vector"] for row in rows], minisbert.load(tiny).encode(texts, convert_to_numpy=True))
