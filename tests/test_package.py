"""The package as it is published: what is in the wheel and the sdist, what it needs, and that it runs with nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
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


def test_exactly_four_packages_are_needed_at_run_time() -> None:
    bounds = dict(re.fullmatch(r"(\w+)>=([\d.]+)", line).groups() for line in project()["dependencies"])
    assert set(bounds) == RUN_TIME
    assert project()["requires-python"] == ">=3.10"


def test_the_wheel_and_the_sdist_hold_what_they_should(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = list(zipfile.Path(wheel).root.namelist())
    assert {"minisbert/__init__.py", "minisbert/bert.py", "minisbert/py.typed"} <= set(names)
    assert {f"minisbert/tracing/page.{kind}" for kind in ("html", "css", "js")} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"minisbert", f"minisbert-{version()}.dist-info"}
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"minisbert/bert.py", "tests/test_package.py", "README.md", "LICENSE", "pyproject.toml"} <= inside


def version() -> str:
    from minisbert import __version__

    return __version__
