"""Each recipe of scripts/recipes on a few real rows: it runs, and prints a table with the same in sentence-transformers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import minisbert

RECIPES = Path(__file__).parent.parent.parent / "scripts/recipes"

TABLES: dict[str, list[str]] = {
    "nli": ["before", "minisbert", "sentence-transformers"],
    "stsb": ["before", "minisbert", "sentence-transformers"],
    "retrieval": ["before", "minisbert", "sentence-transformers"],
    "distill": ["teacher, 6 layers", "3 layers, before", "minisbert", "sentence-transformers"],
}


@pytest.mark.parametrize("name", TABLES)
def test_a_recipe_trains_and_prints_its_table(
    name: str,
    sts_folder: Path,
    minilm_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "path", [str(RECIPES), *sys.path])
    recipe = importlib.import_module(name)
    words = ["--data", str(sts_folder), "--model", str(minilm_folder), "--epochs", "1", "--compare", "--out", str(tmp_path / "out")]
    words += ["--rows", "40" if name == "retrieval" else "16", "--batch-size", "8"]  # some of which say the same
    if name == "nli":
        words += ["--nli", str(sts_folder.parent / "nli/sick-train.tsv")]
    assert recipe.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line[:28].strip() for line in lines[-len(TABLES[name]) :]]
    assert rows == TABLES[name]
    assert all(0 < float(cell) <= 100 for line in lines[-len(rows) :] for cell in line[28:].split()[:-1])
    assert len(minisbert.load(tmp_path / "out", device="cpu").bert.layers) == (3 if name == "distill" else 6)
    assert len(Path(recipe.__file__).read_text("utf-8").splitlines()) < 150
