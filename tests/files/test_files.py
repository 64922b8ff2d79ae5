"""Texts from files and vectors to files, as streams; and `minisbert encode`, which joins them."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from messages import naming
from safetensors.torch import load_file

import minisbert
from minisbert.cli import main
from minisbert.files import HEADER_BYTES, VectorFile, open_texts


def read(path: Path, data: str | bytes, kind: str | None = None, column: str | None = None) -> list[str]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with open_texts(str(path), kind, column) as texts:
        return list(texts)


# Texts


@pytest.mark.parametrize(
    ("name", "data", "column", "texts"),
    [
        ("x.txt", "a\nb\r\n\nc", None, ["a", "b", "", "c"]),
        ("x.txt", "\ufeffa\n", None, ["a"]),
        ("x.txt", "\ufeff", None, []),
        ("x.txt", "", None, []),
        ("x.txt", "a\x0bb\u2028c\x85d\n", None, ["a\x0bb\u2028c\x85d"]),  # a line ends at a line feed, and nowhere else
        ("README", "# a\n", None, ["# a"]),
        ("x.jsonl", '"a"\n"b\\nc"\n', None, ["a", "b\nc"]),
        ("x.jsonl", '{"id": 1, "text": "a"}\n{"text": "\\u00e9"}', "text", ["a", "é"]),
        ("x.csv", 'id,text\n1,a\n2,"b, ""c""\nd"\n3,\n', "text", ["a", 'b, "c"\nd', ""]),
        ("x.csv", "\ufefftext,id\r\na,1\r\n", "text", ["a"]),
        ("x.csv", "\ntext,id\na,1\n\nb,2\n\n", "text", ["a", "b"]),
        ("x.tsv", "id\ttext\n1\ta\n\n", "text", ["a"]),
        ("x.jsonl", '\n"a"\n \n"b"\n\n', None, ["a", "b"]),
        ("x.txt", "a\rb\r\rc\r", None, ["a", "b", "", "c"]),  # there is no LF at all
        ("x.csv", "text,id\ra,1\r", "text", ["a"]),
        ("x.tsv", 'id\ttext\n1\t"a\n2\tb "c"\n', "text", ['"a', 'b "c"']),
        ("x.csv", "text\n" + "x" * 300_000 + "\n", "text", ["x" * 300_000]),
    ],
)
def test_a_file_is_read_by_its_name(tmp_path: Path, name: str, data: str, column: str | None, texts: list[str]) -> None:
    limit = csv.field_size_limit()
    assert read(tmp_path / name, data, column=column) == texts
    assert csv.field_size_limit() == limit


def test_the_format_can_be_given(tmp_path: Path) -> None:
    assert read(tmp_path / "x.txt", "a,b\nc,d\n", "csv", "b") == ["d"]
    assert read(tmp_path / "x.csv", "a,b\n", "txt") == ["a,b"]
    assert read(tmp_path / "x.json", "[1]\n", "txt") == ["[1]"]


@pytest.mark.parametrize(
    ("name", "data", "column", "parts"),
    [
        ("x.txt", b"a\n\xff\n", None, ("x.txt", "line 2", "UTF-8", "invalid start byte")),
        ("x.txt", b"a\n", "text", ("--column", "'text'", "x.txt", "--format")),
        ("x.json", b"[]", None, ("x.json", "txt, jsonl, csv, tsv", ".jsonl")),
        ("x.jsonl", b'"a"\n,\n', None, ("x.jsonl", "line 2", "JSON", "Expecting value")),
        ("x.jsonl", b'{"a": "b", "c": 1}', None, ("x.jsonl", "line 1", "object", "'a', 'c'", "--column")),
        ("x.jsonl", b'{"a": "b"}', "text", ("x.jsonl", "line 1", "'a'", "'text'")),
        ("x.jsonl", b'"a"', "text", ("x.jsonl", "line 1", "str", "object", "'text'")),
        ("x.jsonl", b'"\\ud83d"', None, ("x.jsonl", "line 1", "'\\ud83d'", 0)),
        ("x.jsonl", b"[" * 100_000, None, ("x.jsonl", "line 1", "JSON")),
        ("x.csv", b"a,b\n", None, ("--column", "x.csv")),
        ("x.csv", b"", "text", ("x.csv", "empty")),
        ("x.csv", b"a,b\nc,d\n", "text", ("x.csv", "'text'", "'a', 'b'")),
        ("x.csv", b"id;text\n1;c\n", "text", ("x.csv", "'text'", "'id;text'", "--delimiter ';'")),
        ("x.txt.gz", b"a\n", None, ("x.txt.gz", ".gz", "Not a gzipped file")),
        ("x.csv", b"a,a\nc,d\n", "a", ("x.csv", "'a'", 2, "'a', 'a'")),
        ("x.csv", b"a,b\nc\n", "a", ("x.csv", "line 2", 1, 2)),
        ("x.csv", b'a,b\n"c"d,e\n', "a", ("x.csv", "line 2", "','", "expected after")),
        ("x.csv", b'a,b\n"c,e\n', "a", ("x.csv", "line 2", "','", "unexpected end of data")),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line(
    tmp_path: Path, name: str, data: bytes, column: str | None, parts: tuple[Any, ...]
) -> None:
    with pytest.raises(ValueError, match=naming(*parts)):
        read(tmp_path / name, data, column=column)


def test_a_json_value_of_another_type_is_named_by_its_line(tmp_path: Path) -> None:
    for data, column, parts in (b'{"text": null}', "text", ("'text'", "NoneType", "str")), (b'["a", "b"]', None, ("list", "str")):
        with pytest.raises(TypeError, match=naming("x.jsonl", "line 1", *parts)):
            read(tmp_path / "x.jsonl", data, column=column)


def test_a_delimiter_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('id;text\n1;"a;b"\n')
    with open_texts(str(path), None, "text", ";") as texts:
        assert list(texts) == ["a;b"]
    for kind, delimiter, *parts in ("txt", ";", "x.csv", "txt", "--format"), ("csv", ";;", "one character"):
        wrong = naming("--delimiter", repr(delimiter), *parts)
        with pytest.raises(ValueError, match=wrong), open_texts(str(path), kind, "text" if kind == "csv" else None, delimiter):
            pass


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_a_compressed_file_is_read_by_its_name(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    data = pack(b"text,id\na,1\n") + pack(b"b,2\n" * 50_000)  # two members, as pigz and pzstd write them
    path = tmp_path / f"x.csv{suffix}"
    assert read(path, data, column="text") == ["a"] + ["b"] * 50_000
    with pytest.raises(ValueError, match=naming(f"x.csv{suffix}", suffix)):
        read(path, data[:-3], column="text")


def test_texts_are_read_as_they_are_asked_for() -> None:
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "wb", buffering=0) as pipe, open_texts(f"/dev/fd/{ours}") as texts:
        pipe.write(b"a\nb\n")
        assert [next(texts), next(texts)] == ["a", "b"]  # the pipe is still open
    os.close(ours)


# Vectors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [[], [0], [3], [256, 512, 1]])
def test_a_file_of_vectors_is_what_others_read(tmp_path: Path, sizes: list[int], dtype: torch.dtype) -> None:
    batches = [torch.randn(size, 7, dtype=dtype, generator=torch.Generator().manual_seed(size)) for size in sizes]
    expected = torch.cat([torch.empty(0, 7, dtype=dtype if sizes else torch.float32), *batches])
    for kind in ".npy", ".safetensors":
        path = tmp_path / f"vectors{kind}"
        with VectorFile(path, kind, 7) as file:
            for batch in batches:
                file.write(batch)
            file.finish()
        if kind == ".npy":
            found = torch.from_numpy(np.load(path, allow_pickle=False))
            mapped = np.load(path, mmap_mode="r")
            assert mapped.shape == tuple(expected.shape)
        else:
            found = load_file(path)["embeddings"]
        assert torch.equal(found, expected)
        assert found.dtype == expected.dtype
        assert path.stat().st_size == HEADER_BYTES + expected.nbytes


def test_the_header_is_long_enough_for_the_largest_file(tmp_path: Path) -> None:
    for kind in ".npy", ".safetensors":
        with VectorFile(tmp_path / "x", kind, 1 << 20) as file:
            file.rows = 10**13
            assert len(file.header()) == HEADER_BYTES


def test_rows_that_are_not_in_one_piece_are_written_in_order(tmp_path: Path) -> None:
    rows = torch.arange(12.0).view(4, 3).T
    with VectorFile(tmp_path / "x", ".npy", 4) as file:
        file.write(rows)
        file.finish()
    assert np.array_equal(np.load(tmp_path / "x"), rows.numpy())


# The command


@contextlib.contextmanager
def running(tiny_folder: Path, out: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command with a pipe for its input."""
    command = [sys.executable, "-m", "minisbert", "encode", "-", "--out", str(out), "--model", str(tiny_folder), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def waited_for(condition, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_it_writes_before_it_has_read_all(tmp_path: Path, tiny_folder: Path) -> None:
    out = tmp_path / "vectors.safetensors"
    lines = [" ".join(random.Random(n).choices(["a", "man", "cat", "mat"], k=1 + n % 20)) for n in range(700)]

    def written() -> int:
        return sum(path.stat().st_size for path in tmp_path.glob(".minisbert-*"))

    with running(tiny_folder, out) as process:
        process.stdin.write("".join(f"{line}\n" for line in lines[:300]).encode())
        process.stdin.flush()
        assert waited_for(
            lambda: HEADER_BYTES + 1024 >= written() - 256 * 32 * 4 > HEADER_BYTES
        )  # notes and the first window, while the pipe is open
        assert not out.exists()
        process.stdin.write("".join(f"{line}\n" for line in lines[300:]).encode())
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.decode()) == (0, f"minisbert: wrote 700 vectors of 32 dimensions to {out}\n")
    assert torch.equal(load_file(out)["embeddings"], minisbert.load(tiny_folder).encode(lines))
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.safetensors"]


def test_an_error_half_way_leaves_nothing_and_names_the_line(tmp_path: Path, tiny_folder: Path) -> None:
    out = tmp_path / "vectors.npy"
    with running(tiny_folder, out) as process:
        _, stderr = process.communicate(b"a man\n" * 500 + b"\xff\n", timeout=60)
    assert process.returncode == 2
    assert stderr.decode() == ("minisbert: error: stdin, line 501: not UTF-8 (invalid start byte). Convert the file to UTF-8.\n")
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_write_one_whole_file(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "a.txt").write_text("a man\n" * 600)
    out = tmp_path / "vectors.npy"
    arguments = ["encode", str(tmp_path / "a.txt"), "--model", str(tiny_folder), "--out", str(out)]
    threads = [threading.Thread(target=main, args=(arguments,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.load(out).shape == (600, 32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "vectors.npy"]


def test_tables_and_json_lines_give_what_plain_lines_give(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["a man", "", "the cat, sat", "red 'blue'"]
    files = {
        "x.txt": "".join(f"{text}\n" for text in texts),
        "x.jsonl": "".join(json.dumps({"t": text, "n": 1}) + "\n" for text in texts),
        "x.tsv": "n\tt\n" + "".join(f"1\t{text}\n" for text in texts),
        "x.csv": "n,t\n" + "".join(f'1,"{text}"\n' for text in texts),
    }
    for name, data in files.items():
        (tmp_path / name).write_text(data)
        column = [] if name == "x.txt" else ["--column", "t"]
        assert main(["encode", str(tmp_path / name), *column, "--model", str(tiny_folder), "--out", f"{tmp_path / name}.npy"]) == 0
        assert np.array_equal(np.load(f"{tmp_path / name}.npy"), minisbert.load(tiny_folder).encode(texts).numpy()), name


@pytest.mark.filterwarnings("default")
def test_the_summary_as_json_tells_what_was_cut(tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("a man\n" * 300 + "a " * 50 + "\n" + "a " * 30 + "\n" + "cat " * 40 + "\n")
    out = tmp_path / "vectors.safetensors"
    assert main(["encode", str(tmp_path / "a.txt"), "--model", str(tiny_folder), "--out", str(out), "--json"]) == 0
    printed, said = capsys.readouterr()
    assert json.loads(printed) == {
        "out": str(out),
        "model": str(tiny_folder),
        "vectors": 303,
        "dimension": 32,
        "tokens": 4 + 4 + 3 * 32,  # equal texts once a window
        "cut": 2,
        "longest": 52,
        "limit": 32,
    }
    warning = (
        "minisbert: warning: 2 of 303 texts are longer than 32 tokens and were cut: the longest has 52 tokens, the first is number "
        "301 (index 300) with 52. Split long texts, or pass --on-truncate ignore if this is meant."
    )
    assert said.splitlines() == [warning, f"minisbert: wrote 303 vectors of 32 dimensions to {out}"]
