"""The main job with nothing but the four packages and pytest, so that it can be run on any versions of them.

`scripts/check_versions.py` runs this, and the other files that need no reference, on the lowest and the newest versions.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import PAIR, project
from hub_server import serve

import minisbert
from minisbert.cli import main

ROOT = Path(__file__).parent.parent
NAME = "somebody/the-real-all-MiniLM-L6-v2"


def cosine(vectors: torch.Tensor) -> str:
    return f"{torch.nn.functional.cosine_similarity(vectors[0], vectors[1], dim=0):.6f}"


def test_the_real_checkpoint_from_its_package(minilm_folder: Path) -> None:
    assert cosine(minisbert.encode(list(PAIR), model="all-MiniLM-L6-v2")) == "0.688833"
    assert cosine(minisbert.load(minilm_folder, dtype=torch.float64).encode(list(PAIR))) == "0.688833"


@pytest.mark.parametrize("kind", ["safetensors and tokenizer.json", "bin and vocab.txt"])
def test_the_real_checkpoint_from_a_hub_and_again_from_the_cache(
    minilm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = Path(shutil.copytree(minilm_folder, tmp_path / "model"))
    if kind == "bin and vocab.txt":
        from safetensors.torch import load_file

        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        (folder / "tokenizer.json").unlink()
    with serve({NAME: folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        first = minisbert.load(NAME)
    assert (first.origin, bool(hub.requests)) == ("the hub", True)
    second = minisbert.load(NAME)
    assert second.origin == "the hub's cache"
    vectors = first.encode(list(PAIR))
    assert torch.equal(second.encode(list(PAIR)), vectors)
    assert cosine(vectors) == "0.688833"


def test_the_vectors_are_written_and_read_again(tmp_path: Path) -> None:
    given, out = str(tmp_path / "in.txt"), str(tmp_path / "out.safetensors")
    (tmp_path / "in.txt").write_text("\n".join(PAIR) + "\n", "utf-8")
    assert main(["encode", given, "--model", "all-MiniLM-L6-v2", "--out", out]) == 0
    from safetensors.torch import load_file

    (vectors,) = load_file(out).values()
    assert cosine(vectors) == "0.688833"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("check_versions")


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("print('..'); print('== 2 passed in 1.00s ==')", "2 passed in 1.00s"),
        ("import sys; sys.exit('no such option')", "no such option"),
        ("import sys; sys.exit(1)", "no output"),
        (
            "import os; print('..', flush=True); os.kill(os.getpid(), 9)",
            "ended by SIGKILL before pytest finished",
        ),
    ],
)
def test_the_script_tells_how_the_tests_ended(script: ModuleType, code: str, ending: str) -> None:
    assert script.ending(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)) == ending


def test_the_script_reads_the_lowest_versions_from_pyproject(script: ModuleType) -> None:
    lowest = script.lowest()
    assert [f"{name}>={version}" for name, version in lowest.items()] == [line.split(" ")[0] for line in project()["dependencies"]]
    for test in script.TESTS:
        source = (ROOT / test).read_text("utf-8") if test.startswith("tests/") else ""
        assert not re.search(r"^(from|import) (transformers|sentence_transformers|numpy)", source, re.MULTILINE), test
