"""What each kind of input gives: the table in minisbert/inference/README.md, row by row, and the checks of `inputs.py`."""

from __future__ import annotations

import re
import types
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from checkpoints import save_tiny
from messages import naming
from sentence_transformers import SentenceTransformer

import minisbert
from minisbert import MinisbertWarning, SentenceEncoder

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "minisbert/inference/README.md").read_text("utf-8")
TABLE = PAGE.partition("## What odd input gives\n")[2].partition("\n#")[0]
ROWS = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in TABLE.splitlines() if line.startswith("|")][2:]

TEXTS = ["a man is eating food.", "the cat sat on the mat.", "a man"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    """A model of a few kilobytes, width 32, at most 32 tokens."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return minisbert.load(folder, device="cpu")


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> SentenceEncoder:
    return minisbert.load(minilm_folder, device="cpu")


@pytest.fixture(scope="module")
def reference(minilm_folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(minilm_folder), device="cpu")


def like_the_reference(minilm: SentenceEncoder, reference: SentenceTransformer, texts: list[str]) -> None:
    theirs = torch.stack([reference.encode(text, convert_to_tensor=True) for text in texts])
    torch.testing.assert_close(minilm.encode(texts, on_truncate="ignore"), theirs, rtol=0, atol=1e-6)


def refused(encoder: SentenceEncoder, sentences: Any, error: type[Exception], *parts: object) -> None:
    with pytest.raises(error, match=naming(*parts)):
        encoder.encode(sentences)


# One function a row of the table, under the row's first cell.


def a_text(encoder: SentenceEncoder, *_: Any) -> None:
    assert encoder.encode("a man").shape == (32,)


def collections_in_an_order(encoder: SentenceEncoder, *_: Any) -> None:
    expected = encoder.encode(TEXTS)
    assert expected.shape == (3, 32)
    collections: list[Any] = [
        tuple(TEXTS),
        deque(TEXTS),
        (text for text in TEXTS),
        iter(TEXTS),
        map(str, TEXTS),
        dict.fromkeys(TEXTS).keys(),
        dict(enumerate(TEXTS)).values(),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        list(np.array(TEXTS)),
        pd.Series(TEXTS),
        pd.Series(TEXTS, index=[2, 0, 1]),  # its order counts, not its labels
        pd.Series(TEXTS, dtype="string"),
        pd.DataFrame({"text": TEXTS})["text"],
        pd.Index(TEXTS),
    ]
    for sentences in collections:
        kind = type(sentences)
        assert torch.equal(encoder.encode(sentences), expected), kind
    assert torch.equal(encoder.encode(pd.Series(TEXTS * 2)[3:]), expected)


def an_empty_collection(encoder: SentenceEncoder, *_: Any) -> None:
    for sentences in [], (), iter([]), np.array([], dtype=str), pd.Series([], dtype=str):
        vectors = encoder.encode(sentences)
        assert (vectors.shape, vectors.dtype) == ((0, 32), torch.float32)
    assert encoder.encode([], output_value="token_embeddings") == []
    assert list(encoder.encode_stream([])) == []
    assert encoder.count_tokens([]) == []


def empty_and_blank(encoder: SentenceEncoder, minilm: SentenceEncoder, reference: SentenceTransformer) -> None:
    vectors = encoder.encode(["", " ", "\n\t ", "\u00a0\u3000", "\u200b"])
    assert vectors.isfinite().all()
    assert all(torch.equal(row, vectors[0]) for row in vectors)
    assert encoder.count_tokens(["", "  "]) == [2, 2]
    like_the_reference(minilm, reference, ["", " \n"])


def control_characters(encoder: SentenceEncoder, minilm: SentenceEncoder, reference: SentenceTransformer) -> None:
    assert torch.equal(encoder.encode("a m\0an\x07"), encoder.encode("a man"))
    assert torch.equal(encoder.encode("\0"), encoder.encode(""))
    like_the_reference(minilm, reference, ["a m\0an\x07", "\0"])


def scripts_and_signs(encoder: SentenceEncoder, minilm: SentenceEncoder, reference: SentenceTransformer) -> None:
    family = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}"
    like_the_reference(
        minilm, reference, ["\N{GRINNING FACE}", f"we {family}!", "שלום עולם", "مرحبا \u202eabc", "e\u0301t\u0327", "你好"]
    )
    assert torch.equal(minilm.encode("cafe\u0301"), minilm.encode("caf\u00e9"))


def a_megabyte(encoder: SentenceEncoder, minilm: SentenceEncoder, reference: SentenceTransformer) -> None:
    with pytest.warns(MinisbertWarning, match=naming("256 tokens", "250002 tokens")):
        vector = minilm.encode("man " * 250_000)
    assert torch.equal(vector, minilm.encode("man " * 254))
    like_the_reference(minilm, reference, ["man " * 250_000])


def an_endless_word(encoder: SentenceEncoder, minilm: SentenceEncoder, reference: SentenceTransformer) -> None:
    assert torch.equal(minilm.encode("x" * 100_000), minilm.encode("[UNK]"))
    assert torch.equal(minilm.encode(f"a {'é' * 100_000} man"), minilm.encode("a [UNK] man"))
    like_the_reference(minilm, reference, ["x" * 100_000])


def lone_surrogate(encoder: SentenceEncoder, *_: Any) -> None:
    refused(encoder, "a \ud83d man", ValueError, "sentences:", r"'\ud83d'", 2, "Unicode")
    refused(encoder, ["a", "\udcff"], ValueError, "sentences[1]:", r"'\udcff'", 0, "Unicode")


def missing_texts(encoder: SentenceEncoder, *_: Any) -> None:
    refused(encoder, None, TypeError, "sentences:", "NoneType", "str")
    refused(encoder, ["a", "b", None, None], TypeError, "sentences[2]:", "NoneType", "str", "''")
    refused(encoder, pd.Series(["a", float("nan")], dtype=object), TypeError, "sentences[1]:", "float", "str", "''")
    refused(encoder, pd.Series(["a", None], dtype="string"), TypeError, "sentences[1]:", "NAType", "str", "''")


def numbers(encoder: SentenceEncoder, *_: Any) -> None:
    refused(encoder, 3, TypeError, "sentences:", "int", "str")
    refused(encoder, ["a", 3], TypeError, "sentences[1]:", "int", "str", "str(number)")
    refused(encoder, torch.ones(2), TypeError, "sentences[0]:", "Tensor", "str")
    refused(encoder, np.ones(2), TypeError, "sentences[0]:", "float64", "str")


def undecoded(encoder: SentenceEncoder, *_: Any) -> None:
    for sentences in b"a", bytearray(b"a"), memoryview(b"a"):
        refused(encoder, sentences, TypeError, "sentences:", type(sentences).__name__, "str", "data.decode('utf-8')")
    refused(encoder, ["a", b"b"], TypeError, "sentences[1]:", "bytes", "str", "data.decode('utf-8')")
    refused(encoder, np.array([b"a"]), TypeError, "sentences[0]:", "bytes_", "str", "data.decode('utf-8')")


def nested(encoder: SentenceEncoder, *_: Any) -> None:
    refused(encoder, [["a"]], TypeError, "sentences[0]:", "list", "str", "flat list")
    refused(encoder, ["a", ("a", "b", "c")], TypeError, "sentences[1]:", "tuple", "str", "flat list")
    refused(encoder, np.array([["a", "b"]]), ValueError, "sentences:", "ndarray", "2 axes", "one axis")
    refused(encoder, np.array("a"), ValueError, "sentences:", "ndarray", "0 axes", "one axis")
    for table, kind in (
        (pd.DataFrame({"a": ["b"]}), "DataFrame"),
        (pl.DataFrame({"a": ["b"]}), "DataFrame"),
        (pa.table({"a": ["b"]}), "Table"),
    ):
        refused(encoder, table, ValueError, "sentences:", kind, "2 axes", "one axis", "column")


def pairs(encoder: SentenceEncoder, *_: Any) -> None:
    refused(encoder, [("a", "b"), ("c", "d")], TypeError, "sentences[0]:", "tuple", "str", "pair")
    refused(encoder, ["a", ["b", "c"]], TypeError, "sentences[1]:", "list", "str", "pair")


def sets_and_dicts(encoder: SentenceEncoder, *_: Any) -> None:
    for sentences in {"a", "b"}, frozenset("a"), {"text": "a"}, types.MappingProxyType({}):
        refused(encoder, sentences, TypeError, "sentences:", type(sentences).__name__, "ordered", "list")


CHECKS: dict[str, Callable[[SentenceEncoder, SentenceEncoder, SentenceTransformer], None]] = {
    "a text": a_text,
    "a list, tuple, generator or other iterator, numpy array of strings, pandas Series": collections_in_an_order,
    "a collection of no texts": an_empty_collection,
    "an empty or blank text": empty_and_blank,
    "NUL and other control characters": control_characters,
    "emoji, right-to-left and combining characters, any script": scripts_and_signs,
    "a megabyte of text": a_megabyte,
    "a word of 100,000 letters": an_endless_word,
    "a lone surrogate": lone_surrogate,
    "`None`, or a missing text (NaN, NA) in a collection": missing_texts,
    "numbers": numbers,
    "bytes": undecoded,
    "a list in a list, a table": nested,
    "pairs of texts": pairs,
    "a set, a dict": sets_and_dicts,
}


def test_every_row_of_the_table_has_its_check() -> None:
    assert [row[0] for row in ROWS] == list(CHECKS)


@pytest.mark.parametrize("row", CHECKS)
def test_a_row_of_the_table_is_true(
    row: str, encoder: SentenceEncoder, minilm: SentenceEncoder, reference: SentenceTransformer
) -> None:
    CHECKS[row](encoder, minilm, reference)


def test_a_refusal_in_the_table_is_the_one_that_is_raised() -> None:
    """The second cell names an error class where the checks above expect one."""
    said = {first: re.findall(r"`(\w+Error)`", second) for first, second in ROWS}
    refusals = [lone_surrogate, missing_texts, numbers, undecoded, nested, pairs, sets_and_dicts]
    assert [row for row, errors in said.items() if errors] == [row for row, check in CHECKS.items() if check in refusals]
    assert said["a lone surrogate"] == ["ValueError"]


def test_a_collection_is_read_once_and_not_changed(encoder: SentenceEncoder) -> None:
    texts = list(TEXTS)
    encoder.encode(texts)
    assert texts == TEXTS
    generator = (text for text in TEXTS)
    encoder.encode(generator)
    assert next(generator, None) is None


def test_an_error_of_the_caller_s_generator_is_passed_on(encoder: SentenceEncoder) -> None:
    def texts() -> Iterator[str]:
        yield "a man"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        encoder.encode(texts())
    assert encoder.encode("a man").shape == (32,)


def test_neither_numpy_nor_pandas_is_imported_for_them() -> None:
    import subprocess
    import sys

    code = "import sys, minisbert.inference.inputs as a; a.read_texts(['a']); assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        (3, ("sentences:", "int")),
        (None, ("sentences:", "NoneType")),
        (["a", None], ("sentences[1]:", "NoneType")),
        (["a \ud83d man"], ("sentences[0]:", r"'\ud83d'", 2)),
        ({"a"}, ("sentences:", "set")),
    ],
    ids=str,
)
def test_counting_and_streams_check_their_texts_too(encoder: SentenceEncoder, wrong: Any, parts: tuple[Any, ...]) -> None:
    for work in encoder.count_tokens, lambda texts: list(encoder.encode_stream(texts)):
        with pytest.raises(ValueError if "'" in parts[1] else TypeError, match=naming(*parts)):
            work(wrong)


@pytest.mark.parametrize("column", [pa.array(TEXTS), pa.chunked_array([TEXTS[:1], TEXTS[1:]]), pl.Series(TEXTS)])
def test_a_column_of_arrow_is_a_list_of_texts(encoder: SentenceEncoder, column: Any) -> None:
    assert torch.equal(encoder.encode(column), encoder.encode(TEXTS))
    assert torch.equal(torch.cat(list(encoder.encode_stream(column))), encoder.encode(TEXTS))
