"""The real all-MiniLM-L6-v2 in every form of weight file and tokenizer, against sentence-transformers on the very same folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import PAIR
from containers import relay
from sentence_transformers import SentenceTransformer

import minisbert
from parity.compare import close
from parity.test_minilm import UNICODE

TEXTS = [*PAIR, *UNICODE]


def without(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


FORMS: dict[str, Callable[[Path], None]] = {
    "only a .bin (zip)": partial(relay, form="zip"),
    "only a .bin (stream)": partial(relay, form="stream"),
    "vocab.txt alone": lambda folder: without(folder, "tokenizer.json", "special_tokens_map.json"),
    "tokenizer.json alone": lambda folder: without(folder, "vocab.txt", "special_tokens_map.json"),
    "safetensors in parts": partial(relay, form="safetensors", parts=3),
    ".bin in parts": partial(relay, form="zip", parts=3),
    "float16": partial(relay, form="safetensors", dtype=torch.float16),
    "bfloat16": partial(relay, form="safetensors", dtype=torch.bfloat16),
    "float16 .bin in parts, vocab.txt alone": lambda folder: (
        relay(folder, "zip", parts=2, dtype=torch.float16),
        without(folder, "tokenizer.json"),
    )[1],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_real_model_gives_the_vectors_of_sentence_transformers(
    minilm_folder: Path, tmp_path: Path, form: str
) -> None:
    folder = Path(shutil.copytree(minilm_folder, tmp_path / "model"))
    FORMS[form](folder)
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    some = TEXTS[:8]  # a vector follows from the ids, and those are compared for all texts
    theirs = model.encode(some, convert_to_tensor=True, show_progress_bar=False)
    encoder = minisbert.load(folder)
    assert encoder.tokenizer(TEXTS).ids == model.tokenizer(TEXTS, truncation=True, max_length=256)["input_ids"]
    close(form, encoder.encode(some, on_truncate="ignore"), theirs, 1e-6)
