"""Broken and hostile checkpoints, a row each: one CheckpointError that says what and where, and nothing of theirs is run.

The rows about json files are in test_config.py and test_modules.py, those about vocabularies in test_tokenizer_files.py, those
about `.bin` files in test_pickle_reader.py. Those that ask for more time or memory than there is run in a process of their own,
with little of both.
"""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_tiny, write_json
from containers import replace_weights, weights_of
from messages import naming

import minisbert
from minisbert import CheckpointError

WORDS = "embeddings.word_embeddings.weight"
CANARY = "the-payload-was-run"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def refused(folder: Path, *parts: object) -> None:
    with pytest.raises(CheckpointError, match=naming(*parts)) as caught:
        minisbert.load(folder)
    message = str(caught.value)
    assert len(message) < 20_000
    assert "\0" not in message
    assert not list(folder.parent.rglob(CANARY)), "a payload was run"


def test_python_that_lies_beside_the_weights_is_never_imported(folder: Path) -> None:
    for name in ("modeling.py", "sitecustomize.py", "minisbert.py", "tokenizer.py", "1_Pooling/__init__.py"):
        (folder / name).write_text(f"open({CANARY!r}, 'w')")
    minisbert.load(folder)
    assert not Path(CANARY).exists()


# --- weight files that are no weight files ------------------------------------------------------------------------------------


def header(values: object, length: int | None = None, rest: bytes = b"") -> bytes:
    content = values if isinstance(values, bytes) else json.dumps(values).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + rest


def tensor(shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}


# The safetensors library has tests of its own for headers that are wrong; test_fuzz.py changes some at random.
SAFE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "a pickle by another name": (pickle.dumps({"x": 1}, protocol=2), "not a safetensors file"),
    "no tensors": (header({}), "found no tensors"),
    "a header of 2^60 bytes": (header({}, 1 << 60), "not a safetensors file"),
    "a header of 90 MB that is not there": (header({}, 90_000_000), "not a safetensors file"),
    "a header nested 100,000 deep": (header(b'{"x":' * 100_000), "not a safetensors file"),
    "a shape of 2^40": (header({WORDS: tensor([1 << 40], 0, 4)}, rest=b"\0" * 4), "not a safetensors file"),
    "offsets beyond the end": (header({WORDS: tensor([2], 0, 8)}, rest=b"\0" * 4), "not a safetensors file"),
}


@pytest.mark.parametrize("name", SAFE)
def test_a_safetensors_file_that_is_none_is_refused(folder: Path, name: str) -> None:
    content, found = SAFE[name]
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "model.safetensors", found)


# --- files of different models ------------------------------------------------------------------------------------------------


def test_the_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "other", hidden_size=16, num_hidden_layers=3)
    shutil.copy(tmp_path / "other/model.safetensors", folder)
    refused(folder, "model.safetensors", WORDS, [33, 16], [33, 32])


def test_the_tokenizer_of_another_model_is_refused(folder: Path, minilm_folder: Path) -> None:
    shutil.copy(minilm_folder / "tokenizer.json", folder)
    refused(folder, "tokenizer.json", 30521, 32, "config.json", "vocab_size 33")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_values_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    state = weights_of(folder)
    state[WORDS][0, 0] = value
    replace_weights(folder, state)
    refused(folder, WORDS, "finite", "1,000,000")


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.uint8, torch.bool])
def test_integers_are_refused(folder: Path, kind: torch.dtype) -> None:
    replace_weights(folder, {name: value.to(kind) for name, value in weights_of(folder).items()})
    refused(folder, WORDS, "floating-point")


# --- tokenizers ---------------------------------------------------------------------------------------------------------------

TOKENIZERS: dict[str, bytes] = {
    "empty": b"",
    "a list": b"[]",
    "no model": b'{"version":"1.0"}',
    "nested 100,000 deep": b'{"model":' * 100_000,
    "a number as a vocabulary": b'{"version":"1.0","model":{"type":"WordPiece","vocab":3}}',
    "ids beyond 32 bits": b'{"version":"1.0","model":{"type":"WordPiece","unk_token":"a","continuing_subword_prefix":"##",'
    b'"max_input_chars_per_word":100,"vocab":{"a":99999999999}}}',
    "no unknown token": b'{"version":"1.0","added_tokens":[],"model":{"type":"WordPiece","unk_token":"[UNK]",'
    b'"continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{"a":1}}}',
    "not utf-8": b'{"\xff":1}',
    "a text": b'"x"',
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_json_that_is_none_is_refused(folder: Path, name: str) -> None:
    (folder / "tokenizer.json").write_bytes(TOKENIZERS[name])
    refused(folder, "tokenizer.json: ")


# --- links --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", ["model.safetensors", "vocab.txt", "config.json", "1_Pooling/config.json", "tokenizer_config.json"]
)
def test_a_link_that_leaves_a_downloaded_checkpoint_is_refused(folder: Path, file: str) -> None:
    snapshot = folder.parent / "models--org--name/snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    secret = folder.parent / "secret"
    folder.rename(snapshot)
    (snapshot / file).rename(secret)
    (snapshot / file).symlink_to(secret)
    refused(snapshot, file, "link", secret)


# --- bounds -------------------------------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys
import minisbert.encoder  # with torch, which comes late
from minisbert import CheckpointError
size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 600_000_000, size + 600_000_000))
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
for folder in sys.argv[1:]:
    try:
        minisbert.load(folder)
    except CheckpointError as error:
        print(str(error).splitlines()[0][:200])
    else:
        print("loaded")
"""


def test_the_worst_ones_take_little_time_and_memory(folder: Path, tmp_path: Path) -> None:
    """All of them in one process with 600 MB to spare and 30 seconds."""
    worst: list[Path] = []

    def one(change: Callable[[Path], object]) -> None:
        worst.append(Path(shutil.copytree(folder, tmp_path / f"worst-{len(worst)}")))
        change(worst[-1])

    config = json.loads((folder / "config.json").read_text())
    for field in ("hidden_size", "vocab_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings"):
        one(lambda place, field=field: write_json(place / "config.json", config | {field: 1 << 40}))
    one(
        lambda place: write_json(
            place / "config.json", config | {"vocab_size": 1 << 24, "hidden_size": 1 << 16, "intermediate_size": 1 << 20}
        )
    )
    for name in (
        "a header of 2^60 bytes",
        "a header of 90 MB that is not there",
        "a shape of 2^40",
        "a header nested 100,000 deep",
    ):
        one(lambda place, name=name: (place / "model.safetensors").write_bytes(SAFE[name][0]))
    one(lambda place: (place / "tokenizer.json").write_bytes(TOKENIZERS["nested 100,000 deep"]))
    one(lambda place: (place / "vocab.txt").write_bytes(b"x" * (70 << 20)))
    one(lambda place: (place / "config.json").write_bytes(b"[" * (1 << 20)))
    done = subprocess.run([sys.executable, "-c", LIMITED, *worst], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(worst)
    assert not [line for line in lines if line == "loaded"]
