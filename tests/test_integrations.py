"""Other programs with our encoder in place of sentence-transformers'; scripts/try_integrations.py tries the larger ones."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import load_script
from messages import naming
from sentence_transformers import SentenceTransformer

import minisbert
from minisbert import MissingExtraError, errors, integrations

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("try_integrations")


@pytest.fixture(scope="module")
def data(sts_sentences: list[str], minilm_folder: Path) -> tuple[Any, ...]:
    """Real sentences, and the two encoders of the real model."""
    theirs = SentenceTransformer(str(minilm_folder), device="cpu")
    return sts_sentences[:700], [], minisbert.load(minilm_folder, device="cpu"), theirs


@pytest.mark.parametrize("name", ["keybert", "langchain-core", "scikit-learn", "pandas", "usearch", "datasets"])
def test_the_results_are_those_with_sentence_transformers(script: ModuleType, data: tuple[Any, ...], name: str) -> None:
    run, _ = script.PROGRAMS[name]
    assert run(data)


def test_a_body_for_setfit_is_an_encoder_of_arrays(script: ModuleType, data: tuple[Any, ...]) -> None:
    body = script.adapter("ForSetFit")(data[2])
    texts = data[0][:5]
    assert abs(body.encode(texts, normalize_embeddings=True) - data[3].encode(texts, normalize_embeddings=True)).max() < 1e-6
    assert body.encode(texts, convert_to_tensor=True).shape == (5, 384)
    assert body.device == data[2].device


def test_what_ray_and_spark_call_takes_and_gives_arrays(minilm_folder: Path, sts_sentences: list[str]) -> None:
    texts = np.array(sts_sentences[:20], dtype=object)
    expected = minisbert.load(minilm_folder).encode(texts[:], normalize_embeddings=True, convert_to_numpy=True)
    call = integrations.RayEncoder(minilm_folder, vector_column="v", normalize_embeddings=True)
    batch = {"id": np.arange(20), "text": texts}
    found = call(batch)
    assert list(found) == ["id", "text", "v"]
    assert list(batch) == ["id", "text"]
    assert np.array_equal(found["v"], expected)
    make = pickle.loads(pickle.dumps(integrations.for_spark(minilm_folder, threads=None, normalize_embeddings=True)))  # noqa: S301
    assert np.array_equal(make()(texts), expected)
    with pytest.raises(KeyError, match=naming("'body'", "'text'")):
        call({"body": texts})
    with pytest.raises(ValueError, match=naming("vector_column", "'text'")):
        integrations.RayEncoder(minilm_folder, vector_column="text")


@pytest.mark.parametrize(
    ("adapt", "package"), [(integrations.for_keybert, "keybert"), (integrations.for_langchain, "langchain-core")]
)
def test_a_program_that_is_not_there_is_named(adapt: Callable[[Any], Any], package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=naming(package, "No module named", f"pip install {package}")):
        adapt(None)


def test_the_page_has_an_adapter_for_each_program_without_one_here(script: ModuleType) -> None:
    page = script.PAGE.read_text("utf-8")
    rows = dict(re.findall(r"^\| ([\w-]+) \| [\d.]+ \| (.*?) \|", page, re.MULTILINE))
    described = {name: "below" if cell.startswith("[below]") else cell for name, cell in rows.items()}
    assert described == {name: adapter for name, (_, adapter) in script.PROGRAMS.items()} | {"ray": "`RayEncoder`"}
    assert {cell.strip("`") for cell in described.values() if cell.startswith("`")} <= set(dir(integrations))
    assert page.count("```python\n") == list(described.values()).count("below")
