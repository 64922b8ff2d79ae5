"""Where an encoder finds itself: without a console, called through others, pickled again and again, on what device."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_tiny
from messages import naming

import minisbert
from minisbert import MinisbertWarning, SentenceEncoder, integrations
from minisbert.checkpoint import load as loading
from minisbert.corpus.progress import Progress as CorpusProgress

LONG = "a man is eating food . " * 20


@pytest.fixture
def tiny(tiny_folder: Path) -> SentenceEncoder:
    return minisbert.load(tiny_folder, device="cpu")


class WriteOnly:
    def write(self, text: str) -> int:
        raise AssertionError(f"a bar was written: {text!r}")


def closed() -> Any:
    file = open("/dev/null", "w", encoding="utf-8")  # noqa: PTH123, SIM115
    file.close()
    return file


@pytest.mark.parametrize("stderr", [lambda: None, closed, WriteOnly], ids=["none", "closed", "write only"])
@pytest.mark.parametrize("shown", [True, None])
def test_without_a_console_there_is_no_bar_and_no_error(
    tiny: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, stderr: Callable[[], Any], shown: bool | None
) -> None:
    texts = ["a man", "a cat", "the cat"]
    expected = tiny.encode(texts)
    monkeypatch.setattr(sys, "stderr", stderr())
    assert torch.equal(tiny.encode(texts, batch_size=1, show_progress_bar=shown), expected)
    assert torch.equal(torch.cat(list(tiny.encode_stream(texts, show_progress_bar=shown))), expected)
    assert minisbert.community_detection(expected, min_community_size=9, show_progress_bar=True) == []
    assert len(minisbert.community_detection(expected, -1, 3, show_progress_bar=True)) == 1


@pytest.mark.parametrize("shown", [None, True])
@pytest.mark.parametrize("stderr", [lambda: None, closed, WriteOnly], ids=["none", "closed", "write only"])
def test_a_corpus_needs_no_console_either(monkeypatch: pytest.MonkeyPatch, stderr: Callable[[], Any], shown: bool | None) -> None:
    monkeypatch.setattr(sys, "stderr", stderr())
    with CorpusProgress(shown, rows=2, done=0) as progress:
        progress.every = -1.0  # every step is due
        progress.advance(2, 10)
    assert not progress.shown


WAYS: dict[str, Callable[[SentenceEncoder], Any]] = {
    "encode": lambda encoder: encoder.encode(LONG),
    "minisbert.encode": lambda encoder: minisbert.encode([LONG], encoder),
    "encode_query": lambda encoder: encoder.encode_query(LONG),
    "encode_document": lambda encoder: encoder.encode_document([LONG]),
    "encode_stream": lambda encoder: list(encoder.encode_stream([LONG])),
    "paraphrase_mining": lambda encoder: minisbert.paraphrase_mining(encoder, [LONG, "a cat"]),
    "trace": lambda encoder: minisbert.trace(LONG, model=encoder),
    "langchain": lambda encoder: integrations.for_langchain(encoder).embed_documents([LONG]),
    "two prompts": lambda encoder: encoder.encode_query("a", prompt="a", prompt_name="query"),
    "inference mode": torch.inference_mode()(lambda encoder: encoder.encode(LONG)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_warning_points_at_the_callers_line(tiny: SentenceEncoder, way: str) -> None:
    with pytest.warns(MinisbertWarning) as caught:
        WAYS[way](tiny)
    line = WAYS[way].__code__.co_firstlineno if way != "inference mode" else WAYS[way].__wrapped__.__code__.co_firstlineno
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, line)]


def test_half_precision_on_a_cpu_warns_once_at_the_line_that_loads(tiny_folder: Path) -> None:
    with pytest.warns(MinisbertWarning, match=naming("torch.bfloat16", "CPU")) as caught:
        encoder = minisbert.load(tiny_folder, device="cpu", dtype=torch.bfloat16)
    assert [warning.filename for warning in caught] == [__file__]
    assert len(encoder.load_warnings) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(["a man", "a cat"])
        assert minisbert.load(tiny_folder, device="cpu", dtype=torch.float64).load_warnings == ()


def test_a_process_keeps_what_it_has_unpickled(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pool.map(encoder.encode, chunks)` pickles the encoder for every chunk."""
    loads = []
    load_checkpoint = loading.load_checkpoint
    monkeypatch.setattr(loading, "load_checkpoint", lambda *args, **options: loads.append(1) or load_checkpoint(*args, **options))
    encoder = minisbert.load(tiny_folder, device="cpu")
    loads.clear()
    for limit in 8, 16, 8:
        encoder.max_seq_length = limit
        encode = pickle.loads(pickle.dumps(encoder.encode))  # noqa: S301
        assert torch.equal(encode(LONG, on_truncate="ignore"), encoder.encode(LONG, on_truncate="ignore"))
        del encode
    assert len(loads) == 1, "with settings of its own each time"

    first, second = (pickle.loads(pickle.dumps(encoder)) for _ in range(2))  # noqa: S301
    assert first.bert is not second.bert, "two that are in use at once share nothing"
    first.bert.embeddings.word.weight[7, 3] += 1
    del first, second
    again = pickle.loads(pickle.dumps(encoder))  # noqa: S301
    assert torch.equal(again.bert.embeddings.word.weight, encoder.bert.embeddings.word.weight), "a changed one is not given out"

    for seed in range(3):
        save_tiny(tmp_path / str(seed), seed)
        pickle.loads(pickle.dumps(minisbert.load(tmp_path / str(seed), device="cpu")))  # noqa: S301
    assert len(loading._kept) == loading.MOST_KEPT


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")], ids=["cuda", "mps", "cpu"]
)
def test_the_default_device_is_that_of_sentence_transformers(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    from sentence_transformers.util import get_device_name

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert loading.find_device(None).type == get_device_name().split(":")[0] == expected


@pytest.mark.parametrize("second", [None, "a cat"])
def test_the_page_of_a_vector_of_zeros(tiny: SentenceEncoder, second: str | None) -> None:
    norm = tiny.bert.layers[-1].feed_forward_norm
    norm.weight.zero_()
    norm.bias.zero_()
    assert "<h1" in minisbert.trace("a man", second, model=tiny, corpus=["a cat", "food"]).html()
