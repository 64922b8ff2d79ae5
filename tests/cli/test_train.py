"""`minisbert train`, from a file to a model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import save_tiny
from messages import naming
from train.made import rows
from train.test_loop import step_on_disk

import minisbert
from minisbert.cli import main


@pytest.fixture
def files(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "tiny")
    table = "".join(f"{5 * score}\t{a}\t{b}\n" for a, b, score in rows(60))
    (tmp_path / "pairs.tsv").write_text("score\tsentence1\tsentence2\n" + table, encoding="utf-8")
    return tmp_path


def command(files: Path, *more: str) -> list[str]:
    data = [
        "--data",
        str(files / "pairs.tsv"),
        "--columns",
        "sentence1",
        "sentence2",
        "score",
        "--loss",
        "cosine",
        "--max-score",
        "5",
    ]
    return ["train", *data, "--model", str(files / "tiny"), "--device", "cpu", "--out", str(files / "out"), *more]


def test_a_file_makes_a_model(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = "--evaluate", str(files / "pairs.tsv"), "--plot", str(files / "run.svg"), "--matryoshka", "32", "8", "--json"
    assert main(command(files, *more)) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["rows"], done["steps"], done["best"]["step"]) == (60, 4, 4)
    assert (files / "run.svg").read_text("utf-8").startswith("<svg")
    before, after = (minisbert.load(files / name, device="cpu").encode("a man") for name in ("tiny", "out"))
    assert not torch.equal(before, after)


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--max-score", "1"], ("label", -1, 1)),
        (
            ["--loss", "negatives", "--columns", "sentence1", "sentence2", "--evaluate", "pairs.tsv"],
            ("--evaluate", "--loss negatives"),
        ),
        (["--columns", "sentence1", "score"], ("1 columns", 2)),
        (["--loss", "softmax"], ("label", "integer")),
        (["--epochs", "0"], ("epochs", 0)),
        (["--data", "nowhere.tsv"], ("nowhere.tsv",)),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str], parts: tuple[object, ...]
) -> None:
    monkeypatch.chdir(files)
    assert main(command(files, *more)) == 2
    errors = capsys.readouterr().err
    assert naming(*parts).search(errors)
    assert errors.count("\n") == 1
    assert not (files / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process")
def test_ctrl_c_saves_and_says_how_to_go_on(files: Path) -> None:
    words = [sys.executable, "-m", "minisbert", *command(files, "--epochs", "2000", "--save-every", "1")]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not step_on_disk(files / "out"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "stopped after step" in errors
    assert "The same command goes on from there." in errors
    assert step_on_disk(files / "out") == int(errors.split("stopped after step ")[1].split()[0])
