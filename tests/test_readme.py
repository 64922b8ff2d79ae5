"""Every block of code in README.md and in the pages beside the code is run: a page's Python in one go, its commands in a shell."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoints import save_tiny
from conftest import PAIR

import minisbert
from minisbert.cli import main

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^(?:<!-- (?P<mark>\w+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {
    str(path.relative_to(ROOT)): BLOCK.findall(path.read_text("utf-8"))
    for path in (ROOT / "README.md", *sorted((ROOT / "minisbert").rglob("*.md")))
}
MARKED = {("try", "bash"), ("tests", "bash"), ("hub", "python")}


def blocks(mark: str, language: str, page: str = "README.md") -> list[str]:
    return [code for found, kind, code in PAGES[page] if (found, kind) == (mark, language)]


def with_blocks(language: str) -> list[str]:
    return [page for page in PAGES if blocks("", language, page)]


def test_no_block_is_left_out() -> None:
    assert {(mark, language) for mark, language, _ in PAGES["README.md"]} == MARKED | {("", "bash"), ("", "python")}
    others = {(mark, language) for page in PAGES.keys() - {"README.md"} for mark, language, _ in PAGES[page]}
    assert others == {("", "bash"), ("", "python")}
    assert len(with_blocks("python")) >= 6
    assert len(with_blocks("bash")) >= 4


@pytest.mark.parametrize("page", with_blocks("python"))
def test_the_python_blocks_of_a_page_run_one_after_the_other(
    page: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # one of them saves a model
    names: dict[str, object] = {}
    for code in blocks("", "python", page):
        exec(compile(code, page, "exec"), names)  # noqa: S102
        for promised, shape in re.findall(r"^(\w+) = .*# \[([\d, ]+)\]", code, re.MULTILINE):
            assert list(names[promised].shape) == [int(size) for size in shape.split(",")], promised
    said = re.findall(r"^print\(.*?\)  # (.*)$", "".join(blocks("", "python", page)), re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == said


def test_the_model_card_way_gives_what_encode_gives() -> None:
    names: dict[str, object] = {}
    for code in blocks("", "python", "minisbert/inference/README.md")[:2]:  # the second is that way
        exec(compile(code, "README.md", "exec"), names)  # noqa: S102
    normalized = minisbert_normalize(names["sentence_embeddings"])
    assert (normalized - minisbert.encode(list(PAIR), model="all-MiniLM-L6-v2")).abs().max() < 1e-6


def minisbert_normalize(vectors):
    return vectors / vectors.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("page", with_blocks("bash"))
def test_the_commands_of_a_page_run(
    page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`minisbert` is called here, because each process would import torch again; the first command below runs one."""
    monkeypatch.chdir(tmp_path)
    for code in blocks("", "bash", page):
        for line in code.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            if program == "minisbert":
                assert main(arguments) == 0, line
            else:
                assert program == "printf"
                subprocess.run(["bash", "-euc", line], check=True)
        assert ("0.688833" in capsys.readouterr().out) == ("similarity" in code or "trace" in code)
        for written in re.findall(r"--out (\S+)", code):
            assert (tmp_path / written).exists(), written


def test_the_home_checkpoint_is_fetched_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hub_server import serve

    save_tiny(tmp_path / "model", hidden_size=768)
    with serve({minisbert.DEFAULT_MODEL: tmp_path / "model"}) as hub:
        (code,) = blocks("hub", "python")
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setattr(minisbert, "_kept", {})  # no model is kept from or for another test
        names: dict[str, Any] = {"minisbert": minisbert}
        exec(compile(code, "README.md", "exec"), names)  # noqa: S102
        assert names["vectors"].shape == (2, 768)
    assert any("model.safetensors" in str(request) for request in hub.requests)


@pytest.mark.slow
def test_the_first_command_works_in_a_fresh_clone(tmp_path: Path) -> None:
    clone = copy_of_the_repository(tmp_path / "clone")
    (code,) = blocks("try", "bash")
    # The interpreter of this environment, without the environment: what a user has who has only Python and pip.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON"))}
    environment["PATH"] = f"{Path(sys._base_executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment["PIP_COMPILE"] = "0"  # Python compiles what is imported; pip would compile all of it, which takes longer
    result = subprocess.run(["bash", "-euc", code], cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "0.688833\n"), result.stderr
    assert "warning" not in result.stderr.replace("WARNING: Location", "").lower()
    listing = "import importlib.metadata as m, minisbert; print(minisbert.__file__, *{row.name for row in m.distributions()})"
    command = [clone / ".venv/bin/python", "-c", listing]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    file, *names = said.split()
    installed = {name.lower().replace("-", "_") for name in names}
    assert installed > {"minisbert", "torch", "safetensors", "huggingface_hub", "tokenizers"}
    assert not installed & {"transformers", "sentence_transformers", "numpy", "scipy", "scikit_learn", "pandas"}
    assert "site-packages" in file


def test_the_test_command_is_the_one_that_ci_runs() -> None:
    (code,) = blocks("tests", "bash")
    assert len(code.splitlines()) == 1
    script = (ROOT / ".ci/run").read_text("utf-8")
    extract = next(line for line in script.splitlines() if line.startswith("tests=$("))
    found = subprocess.run(["bash", "-euc", f'{extract}\nprintf %s "$tests"'], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == code.strip()


def copy_of_the_repository(target: Path) -> Path:
    """The files of this checkout, without what git ignores."""
    ignored = (".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "build", "dist", "*.egg-info")
    return Path(shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*ignored)))


def test_the_readme_is_short_and_counts_the_lines_of_the_model() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 160
    (said,) = re.findall(r"The model is (\d+) lines", text)
    assert int(said) == round(len((ROOT / "minisbert/bert.py").read_text("utf-8").splitlines()), -1)


def test_the_reading_order_is_the_same_everywhere_and_every_file_is_listed() -> None:
    order = ["bert.py", "pooling.py", "inference/batching.py", "tokenizer.py", "encoder.py"]
    for page, heading, link in (
        ("README.md", "## Read the code", r"\(minisbert/([\w/]+\.py)\)"),
        ("CONTRIBUTING.md", "## What lies where", r"\(minisbert/([\w/]+\.py)\)"),
        ("minisbert/README.md", "## Read it in this order", r"^\| \[[\w/.]+\]\(([\w/]+\.py)\)"),
    ):
        section = (ROOT / page).read_text("utf-8").partition(heading)[2].partition("\n## ")[0]
        assert re.findall(link, section, re.MULTILINE) == order, page
    named = set(re.findall(r"\((\w+(?:\.py)?)[/)]", (ROOT / "minisbert/README.md").read_text("utf-8")))
    there = {path.name for path in (ROOT / "minisbert").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert named == there - {"__init__.py", "__main__.py"}


def test_every_link_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "minisbert").rglob("*.md"), *(ROOT / "scripts").rglob("*.md")]
    assert len(pages) > 25
    for page in pages:
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert link.startswith("http") or target.exists(), f"{page}: {link}"
            if anchor and not link.startswith("http"):
                headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
                assert anchor in [heading.lower().replace(" ", "-") for heading in headings], f"{page}: {link}"
