"""The local engine: every kind of input gives the vectors of `encode`, and a folder takes nothing but its own corpus."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpora import files_of, sentences, write_jsonl, write_parquet
from messages import naming
from programs import Programs
from s3_server import s3_server

import minisbert
from minisbert.cli import main
from minisbert.corpus import CorpusError, encode_corpus, verify_corpus

TEXTS = [*sentences(500), "", "ein Mädchen 🙂", "the cat " * 90, '"quoted", with a comma', *sentences(96, seed=1)]


def expected(model: Path, texts: list[str] = TEXTS, **options: Any) -> np.ndarray:
    return minisbert.load(model).encode(texts, convert_to_numpy=True, on_truncate="ignore", **options)


def table(out: Path) -> pa.Table:
    return pq.read_table(out)


def vectors(out: Path) -> np.ndarray:
    return np.stack(table(out).column("vector").to_pylist())


def encode(inputs: Any, out: Path, model: Path, **options: Any) -> Any:
    return encode_corpus(inputs, out, **{"model": model, "rows_per_shard": 130, "on_truncate": "ignore", **options})


def write_csv(path: Path, texts: list[str], separator: str = ",") -> None:
    quoted = [text if separator == "\t" else '"' + text.replace('"', '""') + '"' for text in texts]
    rows = [separator.join((f"p{n}", text, str(n))) for n, text in enumerate(quoted)]
    path.write_text("\n".join([separator.join(("id", "text", "number")), *rows]) + "\n", "utf-8")


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """The same rows in every format."""
    folder = tmp_path / "in"
    folder.mkdir()
    paths = {name: folder / f"x.{name}" for name in ("parquet", "jsonl", "jsonl.gz", "jsonl.zst", "csv", "tsv", "txt")}
    write_parquet(paths["parquet"], TEXTS, row_group_size=170)
    write_jsonl(paths["jsonl"], TEXTS)
    write_jsonl(paths["jsonl.gz"], TEXTS)
    paths["jsonl.zst"].write_bytes(zstandard.compress(paths["jsonl"].read_bytes()))
    write_csv(paths["csv"], TEXTS)
    write_csv(paths["tsv"], TEXTS, "\t")
    paths["txt"].write_text("\ufeff" + "\r\n".join(TEXTS), "utf-8")
    return paths


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "jsonl.gz", "jsonl.zst", "csv", "tsv", "txt"])
def test_each_format_gives_the_bits_of_encode_with_its_ids_and_columns(
    kind: str, inputs: dict[str, Path], tiny: Path, tmp_path: Path
) -> None:
    named = {} if kind == "txt" else {"id_column": "id", "columns": ["number"]}
    summary = encode(inputs[kind], tmp_path / "out", tiny, **named)
    assert (summary.rows, summary.shards, summary.new_rows, summary.failed) == (600, 5, 600, 0)
    assert (summary.cut, summary.longest) == (1, 182)
    assert np.array_equal(vectors(tmp_path / "out"), expected(tiny))
    found = table(tmp_path / "out")
    if kind == "txt":
        assert found.column("file").to_pylist() == [str(inputs["txt"])] * 600
        assert found.column("row").to_pylist() == list(range(600))
    else:
        assert found.column("id").to_pylist() == [f"p{n}" for n in range(600)]
        assert [int(number) for number in found.column("number").to_pylist()] == list(range(600))
    assert found.schema.field("vector").type == pa.list_(pa.float32(), 32)


def test_shards_go_on_from_file_to_file_of_a_glob_and_a_csv_row_may_have_many_lines(tiny: Path, tmp_path: Path) -> None:
    texts = ["a man\nis\n\neating" if n % 7 == 0 else text for n, text in enumerate(sentences(300))]
    for number, size in enumerate((1, 119, 60, 120)):
        start = (0, 1, 120, 180)[number]
        write_csv(tmp_path / f"{number}.csv", texts[start : start + size])
    (tmp_path / "empty.csv").write_text("id,text,number\n")
    summary = encode(f"{tmp_path}/*.csv", tmp_path / "out", tiny, rows_per_shard=40)
    assert summary.shards == 8
    assert np.array_equal(vectors(tmp_path / "out"), expected(tiny, texts))
    names = [f"{tmp_path}/{number}.csv" for number, size in enumerate((1, 119, 60, 120)) for _ in range(size)]
    assert table(tmp_path / "out").column("file").to_pylist() == names


def test_files_are_read_through_fsspec_too(inputs: dict[str, Path], tiny: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for kind in ("parquet", "jsonl"):
        memory.pipe(f"/corpus/{kind}/x.{kind}", inputs[kind].read_bytes())
        encode(f"memory://corpus/{kind}/*.{kind}", tmp_path / kind, tiny, id_column="id")
        assert np.array_equal(vectors(tmp_path / kind), expected(tiny))
    uri = inputs["txt"].as_uri()
    encode([uri], tmp_path / "txt", tiny)
    assert table(tmp_path / "txt").column("file")[0].as_py() == uri
    with pytest.raises(ValueError, match=naming("nowhere://corpus/x.txt", "pyarrow", "fsspec")):
        encode("nowhere://corpus/x.txt", tmp_path / "none", tiny)


def test_files_are_read_from_s3_with_the_options_of_the_uri(
    inputs: dict[str, Path], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(name, value)
    (inputs["txt"].parent / "folder").mkdir()
    for name in "a.txt", "b.txt", "_skipped.txt":
        (inputs["txt"].parent / "folder" / name).write_text("the cat\n")
    with s3_server({"bucket": inputs["txt"].parent}) as port:
        options = f"?region=us-east-1&scheme=http&endpoint_override=127.0.0.1:{port}"
        for name in ("x.parquet", "x.jsonl.gz", "?.csv"):
            encode(f"s3://bucket/{name}{options}", tmp_path / name, tiny, id_column="id")
            assert np.array_equal(vectors(tmp_path / name), expected(tiny))
        encode(f"s3://bucket/folder{options}", tmp_path / "folder", tiny)
        assert table(tmp_path / "folder").column("file").to_pylist() == [f"s3://bucket/folder/{x}.txt{options}" for x in "ab"]
        with pytest.raises(ValueError, match=naming("inputs", "'s3://bucket/none")):
            encode(f"s3://bucket/none{options}", tmp_path / "none", tiny)


def test_prompt_and_normalization_are_those_of_encode(inputs: dict[str, Path], tiny: Path, tmp_path: Path) -> None:
    encode(inputs["txt"], tmp_path / "out", tiny, prompt="a man is ", normalize_embeddings=True)
    assert np.array_equal(vectors(tmp_path / "out"), expected(tiny, prompt="a man is ", normalize_embeddings=True))


def test_vectors_are_stored_as_the_formulas_say(inputs: dict[str, Path], tiny: Path, tmp_path: Path) -> None:
    exact = expected(tiny)
    for dtype in ("float16", "int8", "binary"):
        encode(inputs["parquet"], tmp_path / dtype, tiny, dtype=dtype)
        assert verify_corpus(tmp_path / dtype).exact == 256
    assert np.array_equal(vectors(tmp_path / "float16"), exact.astype(np.float16))
    scale = np.array(table(tmp_path / "int8").column("scale"))
    assert np.allclose(scale, np.abs(exact).max(1) / 127, rtol=1e-6)
    assert np.abs(vectors(tmp_path / "int8") * scale[:, None] - exact).max() <= scale.max() * 0.51
    assert np.array_equal(vectors(tmp_path / "binary"), np.packbits(exact > 0, axis=1))


# what other programs read


def test_pandas_duckdb_polars_and_datasets_read_the_folder_without_knowing_us(
    inputs: dict[str, Path], tiny: Path, tmp_path: Path
) -> None:
    import datasets
    import duckdb
    import pandas
    import polars

    encode(inputs["parquet"], tmp_path / "out", tiny, id_column="id")
    exact, ids = expected(tiny), [f"p{n}" for n in range(600)]
    frame = pandas.read_parquet(tmp_path / "out")
    assert list(frame["id"]) == ids
    assert np.array_equal(np.stack(frame["vector"]), exact)
    shards = f"{tmp_path}/out/*.parquet"
    closest = duckdb.sql(f"select id from '{shards}' order by list_inner_product(vector, vector) desc, id limit 1").fetchall()  # noqa: S608
    assert closest == [(ids[int((exact.astype(np.float64) ** 2).sum(1).argmax())],)]
    frame = polars.read_parquet(shards)
    assert frame["vector"].dtype == polars.Array(polars.Float32, 32)
    assert np.array_equal(frame["vector"].to_numpy(), exact)
    loaded = datasets.load_dataset("parquet", data_files=shards, split="train", cache_dir=str(tmp_path / "cache")).with_format(
        "numpy"
    )
    assert np.array_equal(loaded["vector"][:], exact)


# failing rows


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "x", "text": null}', ("null", "text")),
        (b'{"id": "x", "text": 7}', ("int", "text")),
        (b'{"id": "x", "text": "a \\ud800"}', ("surrogate", 2, "Unicode")),
        (b'{"id": "x"}', ("'text'", "'id'")),
        (b'{"id": 7, "text": "a"}', ("'id'", "int", "string")),
        (b'{"id": "x", "text": "\xff"}', ("UTF-8", "invalid start byte")),
        (b"{", ("JSON",)),
        (b"[1]", ("list", "object", "'text'")),
    ],
)
def test_a_failing_row_stops_the_run_or_gets_a_null_vector(
    line: bytes, reason: tuple[object, ...], tiny: Path, tmp_path: Path
) -> None:
    file = tmp_path / "x.jsonl"
    write_jsonl(file, sentences(200))
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([*lines[:150], line, *lines[150:]]) + b"\n")
    with pytest.raises(ValueError, match=naming("x.jsonl, row 150", *reason, "on_error='skip'")):
        encode(file, tmp_path / "out", tiny, id_column="id")
    assert (tmp_path / "out/shard-000000.parquet").is_file(), "what was done is kept"
    summary = encode(file, tmp_path / "skip", tiny, id_column="id", on_error="skip")
    assert (summary.rows, summary.failed) == (201, 1)
    (error,) = map(json.loads, (tmp_path / "skip/_minisbert/errors.jsonl").read_text().splitlines())
    assert (error["file"], error["row"], error["shard"]) == (str(file), 150, 1)
    assert naming(*reason).search(error["reason"])
    found = table(tmp_path / "skip").column("vector").to_pylist()
    assert [index for index, vector in enumerate(found) if vector is None] == [150]
    assert np.array_equal(np.stack(found[:150] + found[151:]), expected(tiny, sentences(200)))
    assert verify_corpus(tmp_path / "skip", sample=201).sample == 201


def test_rows_of_parquet_csv_and_txt_fail_alone_too(tiny: Path, tmp_path: Path) -> None:
    broken = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 1, 3], np.int32)), pa.py_buffer(b"a\xff\xfe"))
    pq.write_table(pa.table({"text": pa.concat_arrays([broken, pa.array([None, "the cat"])])}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_bytes(b"text,n\na,1\nb\n\xff,2\nc,3\n")
    (tmp_path / "c.txt").write_bytes(b"a\n\xff\n")
    summary = encode(tmp_path / "*.*", tmp_path / "out", tiny, on_error="skip")
    assert (summary.rows, summary.failed) == (10, 5)
    rows = [json.loads(line) for line in (tmp_path / "out/_minisbert/errors.jsonl").read_text().splitlines()]
    assert [(Path(row["file"]).name, row["row"]) for row in rows] == [
        *(("a.parquet", 1), ("a.parquet", 2), ("b.csv", 1), ("b.csv", 2), ("c.txt", 1)),
    ]


def test_every_row_may_fail(tiny: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", [None] * 200)
    assert encode(tmp_path / "x.parquet", tmp_path / "out", tiny, dtype="int8", on_error="skip").failed == 200
    assert table(tmp_path / "out").column("vector").null_count == table(tmp_path / "out").column("scale").null_count == 200


# resuming


def test_what_is_there_is_kept_and_what_is_damaged_is_made_again(inputs: dict[str, Path], tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    encode(inputs["jsonl"], out, tiny, on_error="skip")
    before = files_of(out)
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert encode(inputs["jsonl"], out, tiny, on_error="skip").new_rows == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")} == times
    data = bytearray(before["shard-000002.parquet"])
    data[5000] ^= 1
    (out / "shard-000002.parquet").write_bytes(data)
    (out / "shard-000004.parquet").unlink()
    with pytest.raises(CorpusError, match=naming("shard-000002.parquet", "sha256")):
        verify_corpus(out)
    with pytest.warns(minisbert.MinisbertWarning) as caught:
        assert encode(inputs["jsonl"], out, tiny, on_error="skip").new_shards == 2
    assert [str(warning.message).partition(":")[0] for warning in caught] == ["shard-000002.parquet", "shard-000004.parquet"]
    assert files_of(out) == before


def test_another_corpus_is_refused_with_what_differs(inputs: dict[str, Path], tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    encode(inputs["parquet"], out, tiny, id_column="id")
    before = files_of(out)
    shutil.copytree(tiny, tmp_path / "other")
    config = json.loads((tmp_path / "other/sentence_bert_config.json").read_text())
    (tmp_path / "other/sentence_bert_config.json").write_text(json.dumps(config | {"max_seq_length": 20}))
    for options, *parts in (
        ({"dtype": "int8"}, "settings.dtype", '"float32" there', '"int8" here'),
        ({"normalize_embeddings": True}, "settings.normalize_embeddings", "false there", "true here"),
        ({"columns": ["number"]}, "settings.columns", "0 entries there", "1 here"),
        ({"model": tmp_path / "other"}, "model.settings.max_seq_length", "32 there", "20 here"),
        ({"inputs": inputs["jsonl"]}, "inputs[0].path", 'parquet" there', 'jsonl" here'),
    ):
        with pytest.raises(CorpusError, match=naming("out", repr(str(out)), *parts)):
            encode(**{"inputs": inputs["parquet"], "out": out, "model": tiny, "id_column": "id", **options})
    write_parquet(inputs["parquet"], [*TEXTS[:-1], "another"])
    with pytest.raises(CorpusError, match=naming("out", repr(str(out)), "inputs[0].sha256")):
        encode(inputs["parquet"], out, tiny, id_column="id")
    with pytest.raises(CorpusError, match=naming("inputs[0].sha256")):
        verify_corpus(out)
    assert files_of(out) == before


def test_a_folder_with_other_things_and_a_second_run_are_refused(inputs: dict[str, Path], tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=naming("out", tmp_path / "in", "'x.csv'", "_minisbert/manifest.json")):
        encode(inputs["parquet"], tmp_path / "in", tiny)
    holding = (
        "import sys\nfrom minisbert.corpus.folder import Folder\nwith Folder(sys.argv[1]).locked():\n print(flush=True)\n input()"
    )
    command = [sys.executable, "-c", holding, tmp_path / "out"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(CorpusError, match=naming("out", process.pid, tmp_path / "out")):
            encode(inputs["parquet"], tmp_path / "out", tiny)
        process.kill()
    assert encode(inputs["parquet"], tmp_path / "out", tiny).rows == 600, "a kill unlocks"


def test_wrong_inputs_are_named_before_anything_is_made(inputs: dict[str, Path], tiny: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "numbers.parquet", ["a"])
    pq.write_table(pa.table({"id": [1], "text": ["a"]}), tmp_path / "ids.parquet")
    (tmp_path / "broken.parquet").write_bytes(inputs["parquet"].read_bytes()[:-20])
    (tmp_path / "empty.jsonl").write_text("")
    for options, *parts in (
        ({"inputs": tmp_path / "none.parquet"}, "inputs", "none.parquet"),
        ({"inputs": f"{tmp_path}/*.nothing"}, "inputs", "*.nothing"),
        ({"inputs": [inputs["csv"], tmp_path / "in/*.csv"]}, "inputs", inputs["csv"]),
        ({"inputs": tiny / "config.json"}, "config.json", ".parquet", ".txt"),
        ({"text_column": "body"}, inputs["parquet"], "'body'", "'id', 'text', 'number'"),
        ({"text_column": "number"}, inputs["parquet"], "'number'", "int64", "string"),
        ({"inputs": [inputs["parquet"], tmp_path / "ids.parquet"], "id_column": "id"}, "ids.parquet", "'id'", "int64", "string"),
        ({"inputs": tmp_path / "broken.parquet"}, "broken.parquet", "Parquet"),
        ({"inputs": inputs["txt"], "id_column": "id"}, inputs["txt"], "txt", "'id'"),
        ({"columns": ["id"], "id_column": "id"}, "columns", "'id', 'id'"),
        ({"out": "s3://bucket/vectors"}, "out", "'s3://bucket/vectors'", "folder"),
        ({"threads": 2}, "threads", 2, None, "engine='local'"),
        ({"dtype": "float64"}, "dtype", "'float64'", "'float32', 'float16', 'int8' or 'binary'"),
    ):
        with pytest.raises(ValueError, match=naming(*parts)):
            encode(**{"inputs": inputs["parquet"], "out": tmp_path / "out", "model": tiny, **options})
        assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=naming("inputs", 1, "rows")):
        encode(tmp_path / "empty.jsonl", tmp_path / "out", tiny)
    with pytest.raises(ValueError, match=naming("32 tokens", 182)):
        encode(inputs["parquet"], tmp_path / "out", tiny, on_truncate="error")
    with pytest.warns(minisbert.MinisbertWarning, match=naming("1 of 600", "32 tokens")):
        encode(inputs["parquet"], tmp_path / "out", tiny, on_truncate="warn")


def test_files_that_break_or_vanish_in_the_middle_and_a_full_disk_are_errors_that_can_be_resumed(
    tiny: Path, tmp_path: Path, programs: Programs
) -> None:
    write_parquet(tmp_path / "a.parquet", sentences(200))
    write_jsonl(tmp_path / "b.jsonl.gz", sentences(200))
    whole = (tmp_path / "b.jsonl.gz").read_bytes()
    arguments = ([tmp_path / "a.parquet", tmp_path / "b.jsonl.gz"], tmp_path / "out", tiny)
    (tmp_path / "b.jsonl.gz").write_bytes(whole[:-300])
    with pytest.raises((ValueError, OSError), match=naming("b.jsonl.gz")):
        encode(*arguments)
    (tmp_path / "b.jsonl.gz").write_bytes(whole)
    # The limit of a file's size stands for the end of a disk: either fails in write().
    words = ["corpus", *arguments[0], "--out", tmp_path / "out", "--model", tiny, "--rows-per-shard", "130"]
    code = (
        "import resource, signal, sys\nfrom minisbert.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))\n"
        f"sys.exit(main({[*map(str, words), '--on-truncate', 'ignore']!r}))"
    )
    result = programs.run(code)
    assert result.returncode == 2
    assert naming("shard-000000.parquet", "File too large").search(result.stderr)
    assert not list((tmp_path / "out/_minisbert/writing").iterdir())
    assert encode(*arguments).rows == 400


# the command


def test_the_command_encodes_resumes_and_verifies(
    inputs: dict[str, Path], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [inputs["parquet"], "--id-column", "id", "--columns", "number", "--rows-per-shard", 200, "--model", tiny]
    words = ["corpus", *map(str, words), "--out", str(tmp_path / "out"), "--on-truncate", "ignore"]
    assert main([*words, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["rows"] == 600
    assert "600 vectors of 32 dimensions in 3 shards" in printed.err
    assert main(words) == 0
    assert "(600 were there)" in capsys.readouterr().err
    assert main(["corpus", "--verify", str(tmp_path / "out"), "--json"]) == 0
    printed = capsys.readouterr()
    done = {"out": str(tmp_path / "out"), "shards": 3, "rows": 600, "sample": 256, "exact": 256, "largest_difference": 0.0}
    assert json.loads(printed.out) == done
    for wrong in (["corpus"], ["corpus", "x.txt"], ["corpus", "x.txt", "--verify", "y"]):
        assert main(wrong) == 2
        assert capsys.readouterr().err.startswith("minisbert: error: corpus: ")


def test_verify_allows_rounding_only_where_another_kind_of_processor_was_at_work(
    inputs: dict[str, Path], tiny: Path, tmp_path: Path, programs: Programs
) -> None:
    encode(inputs["parquet"], tmp_path / "out", tiny, id_column="id")
    encode(inputs["parquet"], tmp_path / "moved", tiny, id_column="id")
    code = f"from minisbert.cli import main\nraise SystemExit(main({['corpus', '--verify', str(tmp_path / 'out'), '--json']!r}))"
    lesser = programs.run(code, ATEN_CPU_CAPABILITY="default")
    assert lesser.returncode == 0, lesser.stderr
    found = json.loads(lesser.stdout)
    assert (found["sample"], found["exact"]) == (256, 0)
    assert found["largest_difference"] <= 1e-6 * max(1, np.abs(vectors(tmp_path / "out")).max())
    file = tmp_path / "moved/shard-000001.parquet"
    rows = pq.read_table(file)
    moved = np.stack(rows.column("vector").to_pylist()) + np.float32(1e-3)
    column = pa.array(list(moved), rows.schema.field("vector").type)
    pq.write_table(rows.set_column(1, rows.schema.field("vector"), column), file)
    manifest = json.loads((tmp_path / "moved/_minisbert/manifest.json").read_text())
    import hashlib

    manifest["shards"][1] |= {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (tmp_path / "moved/_minisbert/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CorpusError, match=naming("shard-000001.parquet", "row", "1.00e-03", "equal bits")):
        verify_corpus(tmp_path / "moved")


def test_a_corpus_of_an_int8_model_says_so_and_is_verified_with_one(inputs: dict[str, Path], tiny: Path, tmp_path: Path) -> None:
    words = ["corpus", str(inputs["parquet"]), "--out", str(tmp_path / "out"), "--model", str(tiny), "--on-truncate", "ignore"]
    assert main([*words, "--quantize", "int8"]) == 0
    manifest = json.loads((tmp_path / "out/_minisbert/manifest.json").read_text())
    assert manifest["model"]["quantize"] == "int8"
    assert verify_corpus(tmp_path / "out").exact == 256
    with pytest.raises(CorpusError, match=naming("out", "model.quantize", '"int8" there', "null here")):
        encode_corpus(inputs["parquet"], tmp_path / "out", model=tiny, on_truncate="ignore")


def test_without_pyarrow_the_extra_is_named(programs: Programs) -> None:
    code = (
        "import sys\nsys.modules['pyarrow'] = None\nimport minisbert.corpus\n"
        "try:\n    minisbert.corpus.encode_corpus('x.txt', 'out')\n"
        "except minisbert.MissingExtraError as error:\n    print(error)\n"
        "print(sorted({'ray', 'pyarrow', 'numpy'} & {name for name, module in sys.modules.items() if module}))"
    )
    said = programs.run(code).stdout
    assert "Run pip install pyarrow." in said
