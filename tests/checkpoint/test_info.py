"""What `info` says is in force is in force, and comes from where it says."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import pytest
from checkpoints import save_tiny
from layouts import HIDDEN, dense, laid
from messages import naming
from safetensors import safe_open

import minisbert
from minisbert.checkpoint.info import SET
from minisbert.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    laid(
        tmp_path / "one",
        ["max", "mean"],
        [("Dense", dense(2 * HIDDEN, 12)), ("LayerNorm", {"dimension": 12}), ("Normalize", None)],
        sentence={"max_seq_length": 24, "do_lower_case": True},
        usage={"prompts": {"query": "a man "}, "similarity_fn_name": "dot", "truncate_dim": 8},
    )
    return tmp_path / "one"


def settings(encoder: minisbert.SentenceEncoder) -> dict[str, tuple[object, str]]:
    return {setting.name: (setting.value, setting.source) for setting in encoder.info().settings}


def test_every_setting_has_its_value_and_its_file(folder: Path) -> None:
    found = settings(minisbert.load(folder, device="cpu"))
    usage = "config_sentence_transformers.json"
    expected = {
        "max_seq_length": (24, "sentence_bert_config.json: max_seq_length"),
        "vocabulary": (33, "vocab.txt"),
        "truncation_side": ("right", "vocab.txt"),
        "hidden_size": (HIDDEN, "config.json"),
        "hidden_act": ("gelu", "config.json"),
        "layer_norm_eps": (1e-12, "config.json"),
        "lower_case_first": (True, "sentence_bert_config.json"),
        "pooling_mode": (["max", "mean"], "1_Pooling/config.json"),
        "include_prompt": (True, "the default"),
        "dense": ("64 → 12, Tanh", "2_Dense/config.json"),
        "layer_norm": ("12", "3_LayerNorm/config.json"),
        "normalize": ("length 1", "modules.json"),
        "prompts": ({"query": "a man "}, usage),
        "default_prompt_name": (None, "the default"),
        "similarity_fn_name": ("dot", usage),
        "truncate_dim": (8, usage),
    }
    assert {name: found[name] for name in expected} == expected


def test_a_similarity_that_no_file_names_is_cosine(tmp_path: Path) -> None:
    save_tiny(tmp_path / "one")
    assert settings(minisbert.load(tmp_path / "one", device="cpu"))["similarity_fn_name"] == ("cosine", "the default")


def test_what_a_program_sets_is_said_to_be_set_there(folder: Path) -> None:
    encoder = minisbert.load(folder, device="cpu", truncate_dim=4)
    encoder.max_seq_length = 11
    encoder.prompts["query"] = "b"
    encoder.default_prompt_name = "query"
    found = settings(encoder)
    assert found["truncate_dim"] == (4, SET)
    assert found["max_seq_length"] == (11, SET)
    assert found["prompts"] == ({"query": "b", "document": ""}, SET)
    assert found["default_prompt_name"] == ("query", SET)
    assert encoder.info().limit[-1] == f"{SET}: max_seq_length is 11"
    assert encoder.info().dimension == 4 == encoder.encode("a man").shape[0]


def test_the_files_are_those_that_were_read_with_their_sha256_and_all_parameters_are_counted(folder: Path) -> None:
    (folder / "README.md").write_text("not read", encoding="utf-8")
    info = minisbert.load(folder, device="cpu").info()
    hashes = {file.name: file.sha256 for file in info.files}
    read = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert hashes.keys() == read - {"README.md"}
    for name, digest in hashes.items():
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    numbers = 0
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            numbers += sum(opened.get_tensor(name).numel() for name in opened.keys())  # noqa: SIM118 (not a dict)
    assert info.parameters == numbers
    assert (info.model, info.origin, info.revision, info.dtype) == (str(folder), "a local folder", None, "float32")
    assert info.limit[0] == "sentence_bert_config.json: max_seq_length is 24"


def test_a_file_that_is_gone_is_said_to_be_gone(folder: Path) -> None:
    encoder = minisbert.load(folder, device="cpu")
    (folder / "vocab.txt").unlink()
    (gone,) = [file for file in encoder.info().files if file.sha256 is None]
    assert (gone.name, gone.bytes) == ("vocab.txt", None)
    assert "vocab.txt" in str(encoder.info())


def test_every_warning_of_the_loading_is_kept(tmp_path: Path) -> None:
    save_tiny(tmp_path / "one")
    for file in "modules.json", "1_Pooling/config.json":
        (tmp_path / "one" / file).unlink()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        info = minisbert.load(tmp_path / "one", device="cpu").info()
    assert [str(one.message) for one in said] == [f"{info.model}: {load_warning}" for load_warning in info.warnings]
    assert len(info.warnings) == 1


def test_the_revision_is_the_commit_in_the_hubs_cache(folder: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache/models--me--mine"
    (repository / "snapshots").mkdir(parents=True)
    folder.rename(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit, encoding="utf-8")
    info = minisbert.load("me/mine", cache_dir=tmp_path / "cache", local_files_only=True, device="cpu").info()
    assert (info.model, info.revision) == ("me/mine", commit)


def test_the_command_prints_it_for_readers_and_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = minisbert.load(folder, device="cpu").info()
    assert main(["info", str(folder), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed == f"{info}\n"
    for text in ("2_Dense/config.json", "64 → 12, Tanh", f"{info.parameters:,}", "the limit", "warnings", "none"):
        assert text in printed
    assert main(["info", "--model", str(folder), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == info.to_dict()
    assert main(["info", str(folder), "--model", "other"]) == 2
    assert naming(str(folder), "other", "--model").search(capsys.readouterr().err)
