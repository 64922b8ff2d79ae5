"""Real kills: SIGKILL at 20 moments of a run, each followed by a resume, and every file is as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from corpora import files_of, sentences, write_jsonl, write_parquet

Run = Callable[..., dict[str, Any]]


def environment() -> dict[str, str]:
    """As many threads as this process has: one, where the workers of a parallel run share the cores."""
    return os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Gives orders to tests/corpus/forked.py."""
    program = Path(__file__).with_name("forked.py")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, program], env=environment(), text=True, **pipes) as process:

        def order(arguments: dict[str, Any], **when: float) -> dict[str, Any]:
            process.stdin.write(json.dumps({"arguments": arguments, **when}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield order
        process.stdin.close()


@pytest.mark.parametrize("kind", ["event", "after"])
def test_ten_kills_each_at_a_moment_of_its_own_change_no_byte(kind: str, run: Run, tiny: Path, tmp_path: Path) -> None:
    texts: list[str | None] = sentences(1200)
    texts[300] = texts[1000] = None
    (tmp_path / "in").mkdir()
    write_parquet(tmp_path / "in/a.parquet", texts[:500], row_group_size=170)
    write_jsonl(tmp_path / "in/b.jsonl.gz", texts[500:], 500)
    settings = {"inputs": str(tmp_path / "in"), "model": str(tiny), "id_column": "id", "columns": ["number"]}
    settings |= {"rows_per_shard": 160, "on_error": "skip"}
    whole = run({**settings, "out": str(tmp_path / "whole")})
    assert whole["status"] == 0
    expected = files_of(tmp_path / "whole")
    assert len(expected) == 8 + len({"manifest.json", "errors.jsonl", "lock"})
    rng = random.Random(16)
    if kind == "event":
        moments = sorted(rng.sample(range(1, whole["events"] + 1), 10))
    else:
        moments = sorted(rng.uniform(0, whole["seconds"]) for _ in range(10))
    killed = 0
    for moment in moments:
        out = tmp_path / f"{kind}-{moment}"
        killed += run({**settings, "out": str(out)}, **{kind: moment})["status"] == -signal.SIGKILL
        assert run({**settings, "out": str(out)})["status"] == 0
        assert files_of(out) == expected, moment
    assert killed == 10 if kind == "event" else killed >= 5  # a run may be over before its time


def test_a_run_that_is_killed_again_and_again_comes_to_its_end(run: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(sentences(700)) + "\n", "utf-8")
    settings = {"inputs": str(tmp_path / "a.txt"), "model": str(tiny), "rows_per_shard": 140}
    assert run({**settings, "out": str(tmp_path / "whole")})["status"] == 0
    out = str(tmp_path / "out")
    # A resume does what comes first again, so that a kill at the same event would come at the same place each time.
    killed = [run({**settings, "out": out}, event=event)["status"] for event in (9, 14, 19, 24, 29)]
    assert killed.count(-signal.SIGKILL) >= 3
    assert run({**settings, "out": out})["status"] == 0
    assert files_of(Path(out)) == files_of(tmp_path / "whole")


def test_an_interrupt_leaves_nothing_half_done_and_loses_nothing(run: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(sentences(8000)) + "\n", "utf-8")
    settings = {"inputs": str(tmp_path / "a.txt"), "model": str(tiny), "rows_per_shard": 800}
    out = tmp_path / "out"
    words = ["corpus", settings["inputs"], "--model", tiny, "--rows-per-shard", 800, "--out", out]
    command = [sys.executable, "-m", "minisbert", *map(str, words)]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
        while len(list(out.glob("*.parquet"))) < 2:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    there = len(list(out.glob("*.parquet")))
    assert 2 <= there < 10
    assert not list((out / "_minisbert/writing").iterdir())
    assert len((out / "_minisbert/journal.jsonl").read_text().splitlines()) in (there - 1, there)
    assert run({**settings, "out": str(out)})["status"] == 0
    assert run({**settings, "out": str(tmp_path / "whole")})["status"] == 0
    assert files_of(out) == files_of(tmp_path / "whole")
