"""`encode_stream`: any iterable in, batches of rows out, in order, with the bits of `encode` and a bounded number of texts held."""

from __future__ import annotations

import itertools
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import load_script
from messages import naming

import minisbert
from minisbert import MinisbertWarning, SentenceEncoder
from minisbert.inference.stream import FIRST_WINDOW, WINDOW, windows

ROOT = Path(__file__).parents[2]
WORDS = ("a", "man", "is", "sat", "food", ".", "the", "cat", "mat", "on")
TEXTS = [" ".join(random.Random(n).choices(WORDS, k=n % 28)) for n in range(1000)]
OVER = "a " * 40  # 42 tokens, of which 32 are allowed


@pytest.fixture
def tiny(tiny_folder: Path) -> SentenceEncoder:
    return minisbert.load(tiny_folder, device="cpu")


# Windows


def test_windows_grow_to_their_size_and_hold_every_text_once() -> None:
    found = list(windows(map(str, range(2000)), most=600))
    assert [len(window) for window in found] == [256, 512, 600, 600, 32]
    assert [text for window in found for text in window] == [str(n) for n in range(2000)]
    assert [len(window) for window in windows("abcde", most=2)] == [2, 2, 1]
    assert list(windows([], most=5)) == []
    assert FIRST_WINDOW < WINDOW


def test_a_window_of_long_texts_is_closed_early() -> None:
    assert [len(window) for window in windows(["x" * 10] * 7, most=100, characters=25)] == [3, 3, 1]
    assert [len(window) for window in windows(["x" * 1000] * 2, most=100, characters=25)] == [1, 1]


# The stream


@pytest.mark.parametrize("window", [1, 7, 300, 5000])
def test_a_stream_gives_the_rows_of_encode(tiny: SentenceEncoder, window: int) -> None:
    batches = list(tiny.encode_stream(iter(TEXTS), window=window, batch_tokens=100))
    assert torch.equal(torch.cat(batches), tiny.encode(TEXTS))
    assert max(len(rows) for rows in batches) <= window
    assert all(rows.dtype == torch.float32 and rows.device.type == "cpu" and not rows.is_inference() for rows in batches)


def test_it_reads_no_more_than_it_needs_and_takes_endless_iterables(tiny: SentenceEncoder) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        for text in itertools.cycle(TEXTS):
            read += 1
            yield text

    stream = tiny.encode_stream(endless(), window=10)
    assert read == 0
    first = next(stream)
    assert read == 10
    second = next(stream)
    assert (read, stream.texts) == (20, 20)
    stream.close()
    assert torch.equal(torch.cat([first, second]), tiny.encode(TEXTS[:20]))
    with pytest.raises(StopIteration):
        next(stream)
    assert read == 20


def test_the_options_are_those_of_encode(tiny: SentenceEncoder) -> None:
    for options in (
        {"normalize_embeddings": True},
        {"truncate_dim": 5},
        {"prompt": "the cat: "},
        {"batch_size": 3, "normalize_embeddings": True, "truncate_dim": 8},
    ):
        rows = torch.cat(list(tiny.encode_stream(TEXTS[:40], window=15, on_truncate="ignore", **options)))
        assert torch.equal(rows, tiny.encode(TEXTS[:40], on_truncate="ignore", **options)), options
    arrays = list(tiny.encode_stream(TEXTS[:40], window=15, convert_to_numpy=True))
    assert all(isinstance(rows, np.ndarray) for rows in arrays)
    assert np.array_equal(np.concatenate(arrays), tiny.encode(TEXTS[:40]).numpy())


@pytest.mark.parametrize(
    ("texts", "options", "error", "parts"),
    [
        ("a man", {}, TypeError, ("sentences", "str", "iterable", "encode()")),
        ({"a"}, {}, TypeError, ("sentences", "set", "ordered")),
        (["a"], {"window": 0}, ValueError, ("window", 0, 1)),
        (["a"], {"window": None}, TypeError, ("window", "NoneType", "int")),
        (["a"], {"batch_size": 0}, ValueError, ("batch_size", 0, 1)),
        (["a"], {"on_truncate": "cut"}, ValueError, ("on_truncate", "'cut'", "'warn'", "'error'", "'ignore'")),
    ],
)
def test_what_is_wrong_is_said_at_once_and_not_at_the_first_row(
    tiny: SentenceEncoder, texts: Any, options: dict[str, Any], error: type[Exception], parts: tuple[Any, ...]
) -> None:
    with pytest.raises(error, match=naming(*parts)):
        tiny.encode_stream(texts, **options)


def test_a_wrong_text_is_named_when_its_turn_comes(tiny: SentenceEncoder) -> None:
    stream = tiny.encode_stream(["a", "b", "c", None], window=2)
    assert torch.equal(next(stream), tiny.encode(["a", "b"]))
    with pytest.raises(TypeError, match=naming("sentences[3]:", "NoneType", "str")):
        next(stream)


def test_an_error_of_the_source_is_passed_on(tiny: SentenceEncoder) -> None:
    def source() -> Iterator[str]:
        yield from TEXTS[:10]
        raise OSError("the connection is gone")

    stream = tiny.encode_stream(source(), window=10)
    assert torch.equal(next(stream), tiny.encode(TEXTS[:10]))
    with pytest.raises(OSError, match="the connection is gone"):
        next(stream)


# Cut texts


def test_cut_texts_are_reported_once_at_the_end(tiny: SentenceEncoder) -> None:
    texts = ["a man"] * 5 + [OVER] + ["a cat"] * 5 + [f"{OVER} a a", OVER]
    stream = tiny.encode_stream(texts, window=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = [next(stream), next(stream), next(stream)]
    with pytest.warns(MinisbertWarning) as caught:
        rest = list(stream)
    assert [warning.filename for warning in caught] == [__file__]
    assert naming("3 of 13", "32 tokens", "44 tokens", "index 5", 42, "on_truncate='ignore'").search(str(caught[0].message))
    assert (stream.texts, stream.cut, stream.longest) == (13, 3, 44)
    assert torch.equal(torch.cat(first + rest), tiny.encode(texts, on_truncate="ignore"))


def test_a_stream_that_is_closed_early_reports_what_was_cut_so_far(tiny: SentenceEncoder) -> None:
    stream = tiny.encode_stream([OVER, "a", "a", OVER], window=2)
    next(stream)
    with pytest.warns(MinisbertWarning, match=naming("1 of 2", "32 tokens", "42 tokens")):
        stream.close()


def test_cut_texts_can_be_an_error_or_be_ignored(tiny: SentenceEncoder) -> None:
    stream = tiny.encode_stream(["a", "a", "a", OVER], window=2, on_truncate="error")
    next(stream)
    with pytest.raises(ValueError, match=naming("1 of 4", "32 tokens", "42 tokens")):
        next(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sum(map(len, tiny.encode_stream([OVER] * 3, on_truncate="ignore"))) == 3


# Progress and memory


def test_the_bar_counts_sentences_and_tokens(tiny: SentenceEncoder, capfd: pytest.CaptureFixture[str]) -> None:
    stream = tiny.encode_stream(TEXTS[:100], window=40, show_progress_bar=True)
    list(stream)
    shown = capfd.readouterr().err
    assert "100%" in shown
    assert " 100/100 [" in shown
    assert f"{stream.tokens:,} tokens]" in shown
    list(tiny.encode_stream(iter(TEXTS[:100]), window=40, show_progress_bar=True))  # the number of texts is not known
    assert "100sentence [" in capfd.readouterr().err


def test_the_script_that_compares_the_memory_of_two_corpora_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With far fewer texts than by default; the larger number still fills a window of full size."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = load_script("stream_memory")
    monkeypatch.setattr(sys, "argv", ["stream_memory.py", "--against", "8500", "--texts", "17000"])
    assert script.main() == 0, capsys.readouterr().out
    assert "ratio of the peaks: " in capsys.readouterr().out
