"""`minisbert search`, and `--json` of `similarity`: what they print, with and without vectors made before, and what they refuse."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import save_tiny, write_json
from messages import naming
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer, util

import minisbert
from minisbert.cli import main

LINES = [
    "the cat sat on the mat.",
    "a man is eating food.",
    "",
    "the dog  is running\tred",
    "a man is eating food.",
    "someone eats a meal",
]
QUERY = "the man eats"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join(LINES) + "\n")
    return path


def hits(model: str, top_k: int) -> list[dict[str, object]]:
    reference = SentenceTransformer(model, device="cpu")
    (found,) = util.semantic_search(reference.encode(QUERY), reference.encode(LINES), top_k=99)
    found = [hit for hit in found if LINES[hit["corpus_id"]]][:top_k]  # an empty line is no answer
    found.sort(key=lambda hit: (-round(hit["score"], 5), hit["corpus_id"]))  # two of the lines are equal
    return [{"number": hit["corpus_id"] + 1, "cosine": hit["score"], "text": LINES[hit["corpus_id"]]} for hit in found]


def approximately(found: list[dict[str, object]]) -> list[dict[str, object]]:
    return [row | {"cosine": pytest.approx(row["cosine"], abs=1e-5)} for row in found]


def test_it_prints_the_closest_sentences_best_first(model: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", QUERY, "--in", str(file), "--model", model]) == 0
    said = capsys.readouterr()
    expected = hits(model, top_k=5)
    rows = [line.split("  ", 2) for line in said.out.splitlines()]
    assert [(float(cosine), int(line), text) for cosine, line, text in rows] == [
        (pytest.approx(row["cosine"], abs=1e-5), row["number"], " ".join(row["text"].split())) for row in expected
    ]
    assert said.err == ""


def test_json_holds_the_same_and_the_texts_as_they_are(model: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", QUERY, "--in", str(file), "--model", model, "--top-k", "99", "--json"]) == 0
    expected = {"query": QUERY, "hits": approximately(hits(model, top_k=6))}
    assert json.loads(capsys.readouterr().out) == expected


def test_a_column_of_a_table_is_searched(model: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text("".join(json.dumps({"id": 7, "text": line}) + "\n" for line in LINES))
    command = ["search", QUERY, "--model", model, "--json"]
    assert main([*command, "--in", str(file)]) == 0
    expected = capsys.readouterr().out
    assert main([*command, "--in", str(table), "--column", "text"]) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_vectors_made_before_give_the_same_answer(
    model: str, file: Path, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = tmp_path / f"vectors.{kind}"
    assert main(["encode", str(file), "--out", str(vectors), "--model", model]) == 0
    command = ["search", QUERY, "--in", str(file), "--model", model, "--json"]
    assert main(command) == 0
    computed = capsys.readouterr().out
    assert main([*command, "--vectors", str(vectors)]) == 0
    assert capsys.readouterr().out == computed


def test_sentences_come_from_a_pipe_too(
    model: str, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["search", QUERY, "--model", model]
    assert main([*command, "--in", str(file)]) == 0
    expected = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert main(command) == 0
    assert capsys.readouterr().out == expected


def test_similarity_as_json_is_the_full_matrix(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    for sentences in LINES[:2], LINES[:4]:
        assert main(["similarity", *sentences, "--model", model, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        expected = minisbert.similarity(*[minisbert.encode(sentences, model)] * 2)
        assert said["sentences"] == sentences
        assert torch.tensor(said["cosines"]).allclose(expected, rtol=0, atol=1e-6)


def test_what_does_not_fit_is_said_in_one_line(model: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, vectors in (
        ("short", np.ones((5, 32))),
        ("flat", np.ones(6)),
        ("wide", np.ones((6, 33))),
        ("nan", np.full((6, 32), np.nan)),
    ):
        np.save(tmp_path / f"{name}.npy", vectors.astype(np.float32))
    np.save(tmp_path / "objects.npy", np.array([None] * 6), allow_pickle=True)
    save_file({"vectors": torch.ones(6, 32)}, tmp_path / "other.safetensors")
    for name in "broken.npy", "broken.safetensors", "empty.txt":
        (tmp_path / name).write_text("not this" if "broken" in name else "")
    (tmp_path / "latin.txt").write_bytes("é\n".encode("latin-1"))
    search = ["search", QUERY, "--model", model]
    for arguments, *parts in [
        (["--in", str(tmp_path / "empty.txt")], "--in", "empty.txt"),
        (["--in", str(tmp_path / "latin.txt")], "latin.txt", "line 1", "UTF-8"),
        (["--in", str(tmp_path / "none.txt")], "none.txt", "No such file"),
        (["--in", str(file), "--top-k", "0"], "--top-k", 0, 1),
        *(
            (["--in", str(file), "--vectors", str(tmp_path / vectors)], *parts)
            for vectors, *parts in [
                ("short.npy", "--vectors", "short.npy", [5, 32], 6, "minisbert encode"),
                ("flat.npy", "--vectors", "flat.npy", [6], 6),
                ("wide.npy", "--vectors", "wide.npy", 33, 32, "--model"),
                ("nan.npy", "row 0", "nan"),
                ("objects.npy", "--vectors", "objects.npy", ".npy", "Array can't be memory-mapped"),
                ("broken.npy", "--vectors", "broken.npy", ".npy"),
                ("broken.safetensors", "--vectors", "broken.safetensors", ".safetensors"),
                ("other.safetensors", "--vectors", "other.safetensors", "vectors", "'embeddings'"),
                ("vectors.txt", "--vectors", "vectors.txt'", ".safetensors", ".npy"),
                ("none.npy", "none.npy", "No such file"),
                ("none.safetensors", "none.safetensors", "No such file"),
            ]
        ),
    ]:
        assert main([*search, *arguments]) == 2, arguments
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("minisbert: error: ")
        assert naming(*parts).search(said.err)
        assert said.err.count("\n") == 1


def test_vectors_in_numpy_s_form_need_numpy(
    model: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "vectors.npy", np.ones((6, 32), dtype=np.float32))
    monkeypatch.setitem(sys.modules, "numpy", None)  # to import it is an ImportError, as where it is not installed
    assert main(["search", QUERY, "--model", model, "--in", str(file), "--vectors", str(tmp_path / "vectors.npy")]) == 2
    assert naming("--vectors", ".npy", "pip install numpy").search(capsys.readouterr().err)


def test_queries_and_documents_get_the_prompts_that_the_checkpoint_has_for_them(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny(tmp_path / "model")
    write_json(tmp_path / "model/config_sentence_transformers.json", {"prompts": {"query": "the cat ", "document": "red "}})
    model = str(tmp_path / "model")
    assert main(["search", QUERY, "--in", str(file), "--model", model, "--json"]) == 0
    reference = SentenceTransformer(model, device="cpu")
    (found,) = util.semantic_search(reference.encode_query(QUERY), reference.encode_document(LINES), top_k=1)
    computed = capsys.readouterr().out
    hit = json.loads(computed)["hits"][0]
    assert (hit["number"], hit["cosine"]) == (found[0]["corpus_id"] + 1, pytest.approx(found[0]["score"], abs=1e-5))
    assert hit["cosine"] != pytest.approx(hits(model, top_k=1)[0]["cosine"], abs=1e-5)
    vectors = tmp_path / "vectors.safetensors"
    assert main(["encode", str(file), "--out", str(vectors), "--model", model]) == 0
    assert torch.equal(load_file(vectors)["embeddings"], minisbert.load(model).encode_document(LINES))
    capsys.readouterr()
    search = ["search", QUERY, "--in", str(file), "--vectors", str(vectors), "--json", "--model"]
    assert main([*search, model]) == 0
    assert capsys.readouterr().out == computed
    with safe_open(vectors, "pt") as opened:
        notes = opened.metadata()
    assert (notes["model"], notes["prompt"], notes["max_seq_length"], notes["normalize"]) == (model, "red ", "32", "false")

    prompts = {"query": "the cat ", "document": "a "}
    write_json(tmp_path / "model/config_sentence_transformers.json", {"prompts": prompts})
    assert main([*search, model]) == 2
    assert naming("vectors.safetensors", "prompt", "'red '", "'a '").search(capsys.readouterr().err)
    save_tiny(tmp_path / "other", seed=1)
    assert main([*search, str(tmp_path / "other")]) == 2
    assert naming("vectors.safetensors", repr(model), repr(str(tmp_path / "other"))).search(capsys.readouterr().err)
