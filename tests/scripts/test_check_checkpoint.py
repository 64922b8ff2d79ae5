"""scripts/check_checkpoint.py: it says "same" of what is, "different" of what is not, and why where it cannot tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_tiny
from conftest import load_script
from messages import naming

import minisbert

SCRIPT = Path(__file__).parents[2] / "scripts/check_checkpoint.py"


@pytest.fixture(scope="module")
def check() -> Any:
    return load_script("check_checkpoint")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_sound_checkpoint_is_the_same(check: Any, tiny_folder: Path, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(tiny_folder), "--dtype", dtype, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["verdict"] == "same"
    assert [row["name"] for row in result["rows"]] == ["limit", "ids", "embeddings", "layer 1", "layer 2", "vectors"]
    assert 0 < result["largest"] < (1e-12 if dtype == "float64" else 1e-5)


@pytest.mark.parametrize("family", ["roberta", "mpnet", "distilbert"])
def test_a_sound_checkpoint_of_another_family_is_the_same(
    check: Any, family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny(tmp_path, model_type=family)
    assert check.main([str(tmp_path), "--json"]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["largest"] < 1e-12


def test_it_is_a_program() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: check_checkpoint.py")


def test_a_table_and_a_verdict_are_printed(check: Any, minilm_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(minilm_folder), "--dtype", "float32"]) == 0  # the default, float64, takes twice as long
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12  # a head, the limit, the ids, the embeddings, six layers, the vectors, the verdict
    assert lines[-1].startswith("same: the largest difference is ")


def eps(patch: pytest.MonkeyPatch, encoder: minisbert.SentenceEncoder) -> None:
    patch.setattr(encoder.bert.layers[1].attention_norm, "eps", 1e-5)


def limit(patch: pytest.MonkeyPatch, encoder: minisbert.SentenceEncoder) -> None:
    encoder.max_seq_length = 20


def side(patch: pytest.MonkeyPatch, encoder: minisbert.SentenceEncoder) -> None:
    patch.setattr(encoder.tokenizer, "truncation_side", "left")


def pooling(patch: pytest.MonkeyPatch, encoder: minisbert.SentenceEncoder) -> None:
    patch.setattr(encoder.pooling, "modes", ("max",))


@pytest.mark.parametrize(("fault", "place"), [(eps, "layer 2"), (limit, "limit"), (side, "ids"), (pooling, "vectors")])
def test_a_fault_is_found_and_placed(
    check: Any, tiny_folder: Path, fault: Any, place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = minisbert.load(tiny_folder, dtype=torch.float64)
    fault(monkeypatch, encoder)
    monkeypatch.setattr(minisbert, "load", lambda *_, **__: encoder)
    assert check.main([str(tiny_folder)]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"first at: {place}")


def test_what_cannot_be_checked_is_said(check: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(tmp_path)]) == 2
    assert naming("MissingFileError", "config.json").search(capsys.readouterr().err)
    assert check.main([str(tmp_path), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["verdict"] == "cannot be checked"
