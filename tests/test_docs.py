"""The docstrings of the public face are complete, and the API reference is built from them without a warning."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import minisbert
import minisbert.corpus
import minisbert.train
import minisbert.util

ROOT = Path(__file__).parent.parent
FOLDERS: tuple[ModuleType, ...] = (minisbert.corpus, minisbert.train)


def own_names(module: ModuleType) -> list[str]:
    """What a module without `__all__` defines for others."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]


def public() -> Iterator[tuple[str, object]]:
    """Every name that a user imports, and the public methods and properties of its classes: `encode`, `util.cos_sim`."""
    exported = {name: getattr(minisbert, name) for name in minisbert.__all__}
    exported |= {f"util.{name}": getattr(minisbert.util, name) for name in own_names(minisbert.util)}
    for folder in FOLDERS:
        exported |= {f"{folder.__name__.removeprefix('minisbert.')}.{name}": getattr(folder, name) for name in folder.__all__}
    for name, value in exported.items():
        yield name, value
        if inspect.isclass(value):
            for inner, member in vars(value).items():
                if not inner.startswith("_") and (callable(member) or isinstance(member, (property, classmethod, staticmethod))):
                    yield f"{name}.{inner}", member


PUBLIC = dict(public())
# But for the methods of losses and the like, whose class says what they do.
FUNCTIONS = {
    name: inspect.unwrap(value)
    for name, value in PUBLIC.items()
    if inspect.isfunction(inspect.unwrap(value)) and not re.match(r"(corpus|train)\.\w+\.", name)
}


def test_the_public_face_is_found() -> None:
    some = {"encode", "load", "mean_pooling", "trace", "SentenceEncoder.encode", "Bert.forward", "SentenceEncoder.save"}
    assert some | {"util.cos_sim", "util.paraphrase_mining_embeddings", "train.fit", "corpus.encode_corpus"} <= set(FUNCTIONS)


@pytest.mark.parametrize("name", [name for name, value in PUBLIC.items() if not isinstance(value, str)])
def test_everything_public_says_what_it_is(name: str) -> None:
    value = PUBLIC[name]
    doc = inspect.getdoc(value.fget if isinstance(value, property) else value)
    assert doc, name
    assert re.match(r"\S.*[.:]\S*( |\n|$)", doc + "\n", re.DOTALL), "begins with a sentence"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_names_every_argument_and_what_is_returned_and_raised(name: str) -> None:
    function: Callable[..., object] = FUNCTIONS[name]
    doc = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    sections = dict(re.findall(r"^(Args|Returns|Yields|Raises):\n((?:    .*\n|\n)+)", doc + "\n", re.MULTILINE))
    if not sections and re.search(r": \[.*\]\.(\n|$)", doc):  # a formula in one sentence, which ends with the shape of the result
        assert set(re.findall(r"`(\w+)`", doc)) == set(signature.parameters)
        return
    for parameter in signature.parameters.keys() - {"self"}:
        assert re.search(rf"^    {parameter}: \S", sections.get("Args", ""), re.MULTILINE), f"{parameter} is not explained"
    documented = set(re.findall(r"^    (\w+): ", sections.get("Args", ""), re.MULTILINE))
    assert documented <= set(signature.parameters), "explains arguments that there are not"
    if signature.return_annotation != "None":
        assert sections.get("Returns") or sections.get("Yields"), "does not say what is returned"
    if re.search(r"^ +raise [A-Z]", inspect.getsource(function), re.MULTILINE):
        assert sections.get("Raises"), "does not say what is raised"


def test_the_api_reference_is_built_without_a_warning(tmp_path: Path) -> None:
    command = re.search(
        r"^    \.venv/bin/python (-m pdoc .*?)(?:   .*)?$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE
    )[1]
    arguments = [argument if argument != "build/api" else str(tmp_path) for argument in command.split()]
    done = subprocess.run([sys.executable, "-W", "error", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower()
    pages = {path.stem: path.read_text("utf-8") for path in (tmp_path / "minisbert.html", *(tmp_path / "minisbert").glob("*.html"))}
    for name in FUNCTIONS:
        module, _, inner = name.partition(".")
        page, anchor = (module, inner) if module in pages and name not in minisbert.__all__ else ("minisbert", name)
        assert f'id="{anchor}"' in pages[page], name
