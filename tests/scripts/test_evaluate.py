"""`scripts/evaluate_sts.py`: its statistics against scipy's, its tables against the published ones, and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import scipy.stats
import torch
from conftest import load_script
from messages import naming

import minisbert

ROOT = Path(__file__).parents[2]
HEADER = "score\tsentence1\tsentence2\n"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("evaluate_sts")


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> str:
    return str(tiny_folder)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [
        "4.0\tthe cat sat\tthe cat is sat\n",
        '1.5\ta "man"\tthe red dog\n',
        "1.5\ta man\tsome meal\n",
        "3\tthe cat sat\tthe cat\n",
    ]
    (folder / "sts12-one.tsv").write_text(HEADER + "".join(rows[:3]))
    (folder / "STS12.two.tsv").write_bytes(b"\xef\xbb\xbf" + (HEADER + "".join(rows[3:])).replace("\n", "\r\n").encode())
    (folder / "sick-r.tsv").write_text(HEADER + "".join(rows).removesuffix("\n"))
    return folder


@pytest.fixture
def all_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("all_threads")
def test_the_real_model_gets_the_published_figures(
    script: ModuleType, sts_folder: Path, minilm_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--model", "all-MiniLM-L6-v2", "--data", str(sts_folder), "--tasks", "sts13", "stsb-test"]
    assert script.main([*command, "--json", "--check"]) == 0
    report = json.loads(capsys.readouterr().out)
    # As many pairs as take a test's time; the README's command computes all tasks.
    for task, pairs, published in (("sts13", 1500, 80.60), ("stsb-test", 1379, 82.03)):
        row = report["results"]["minisbert"][task]
        assert row["pairs"] == pairs
        assert row["spearman_cosine"] == pytest.approx(published, rel=0, abs=0.02)
        assert row["spearman_dot"] == pytest.approx(row["spearman_cosine"], abs=0.01)  # its vectors have length 1
        assert report["published"]["figures"][task] == published
    assert report["failed"] == []


def test_each_text_is_encoded_once_and_all_files_of_a_task_are_pooled(script: ModuleType, model: str, data: Path) -> None:
    encoder = minisbert.load(model)
    calls: list[list[str]] = []

    def encode(texts: list[str]) -> torch.Tensor:
        calls.append(texts)
        return encoder.encode(texts)

    tasks = {task: script.read_task(data, task) for task in ("sts12", "sick-r")}
    results = script.evaluate(encode, tasks)
    assert [sorted(call) for call in calls] == [
        sorted(["the cat sat", "the cat is sat", 'a "man"', "the red dog", "a man", "some meal", "the cat"])
    ]
    assert results["sts12"] == pytest.approx(results["sick-r"], abs=1e-10)  # the order of the pairs does not matter
    human, a, b = tasks["sick-r"]
    vectors_a, vectors_b = encoder.encode(a).double(), encoder.encode(b).double()
    by_hand = {
        "cosine": torch.cosine_similarity(vectors_a, vectors_b),
        "euclidean": -(vectors_a - vectors_b).square().sum(dim=1).sqrt(),
        "manhattan": -(vectors_a - vectors_b).abs().sum(dim=1),
        "dot": (vectors_a * vectors_b).sum(dim=1),
    }
    for name, closeness in by_hand.items():
        row = results["sick-r"]
        assert row[f"spearman_{name}"] == pytest.approx(100 * scipy.stats.spearmanr(closeness, human).statistic, abs=1e-9)
        assert row[f"pearson_{name}"] == pytest.approx(100 * scipy.stats.pearsonr(closeness, human).statistic, abs=1e-4)


def test_sentence_transformers_stands_beside_it(
    script: ModuleType, model: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--model", model, "--data", str(data), "--compare", "sentence-transformers"]
    assert script.main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["results"]) == {"minisbert", "sentence-transformers"}
    assert report["largest_difference"] < 1e-3
    assert script.main(command) == 0
    said = capsys.readouterr().out
    assert said.count("sick-r") == 2
    assert "The largest difference to sentence-transformers: 0.00" in said


def test_a_figure_that_is_missed_is_a_failure_of_the_check(
    script: ModuleType, model: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(script.PUBLISHED, Path(model).name, script.Published("a test", {"sts12": 12.34}, ("sts12",)))
    command = ["--model", model, "--data", str(data)]
    assert script.main(command) == 0
    said = capsys.readouterr().out
    assert "12.34" in said
    assert "Missed by more than 0.02: sts12" in said
    assert script.main([*command, "--check"]) == 1
    assert script.main([*command, "--check", "--tasks", "sick-r"]) == 0


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("score,sentence1,sentence2\n", ("stsb-test.tsv", "'sentence1'", "'score,sentence1,sentence2'")),
        ("", ("stsb-test.tsv", "empty")),
        (HEADER + "1\ta\n", ("stsb-test.tsv", "line 2", 2, 3)),
        (HEADER + "1\ta\tb\nbad\ta\tb\n", ("stsb-test.tsv", "line 3", "'bad'")),
        (HEADER + "nan\ta\tb\n", ("stsb-test.tsv", "line 2", "'nan'", "finite")),
        (HEADER, ("stsb-test.tsv", "no rows")),
        (None, ("stsb-test", "stsb-test.tsv")),
    ],
)
def test_a_file_of_another_form_is_named(
    script: ModuleType,
    model: str,
    tmp_path: Path,
    content: str | None,
    parts: tuple[object, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / "stsb-test.tsv").write_text(content)
    assert script.main(["--model", model, "--data", str(tmp_path), "--tasks", "stsb-test"]) == 2
    assert naming(*parts).search(capsys.readouterr().err)


def test_a_folder_or_a_model_that_is_not_there_is_named(
    script: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--model", "no/such", "--data", str(data)]) == 2
    assert "no/such" in capsys.readouterr().err
    assert script.main(["--model", "no/such", "--data", str(tmp_path / "none")]) == 2
    assert naming("--data", tmp_path / "none").search(capsys.readouterr().err)
