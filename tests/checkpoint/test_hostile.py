"""Broken and hostile checkpoints, a row each: one CheckpointError that says what and where, and nothing of theirs is run.

The rows about json files are in test_config.py and test_modules.py, those about vocabularies in
test_tokenizer_files.py. Those that ask for
more time or memory than there is run in a process of their own, with little of both.
"""

# ruff: noqa: ARG005 (every row of a table takes the same arguments)

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_tiny, write_json
from containers import CONTAINERS, relay, replace_weights, save_stream, save_zip, weights_of

import minisbert
from minisbert import CheckpointError
from minisbert.checkpoint.pickle_reader import LONGEST_LISTING, MOST_OPCODES

WORDS = "embeddings.word_embeddings.weight"
CANARY = "the-payload-was-run"


class Payload:
    """What `pickle.load` would run."""

    def __init__(self, function: Callable[..., object] = os.system, *arguments: object) -> None:
        self.call = function, arguments or (f"touch {CANARY}",)

    def __reduce__(self) -> Any:
        return self.call


class Built:
    """What `pickle.load` would make without its constructor, and then change."""

    def __reduce__(self) -> Any:
        return (type(self), (), {"x": 1})


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    save_tiny(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(original, tmp_path / "model"))


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        minisbert.load(folder)
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    assert len(message) < 20_000
    assert "\0" not in message
    assert not list(folder.parent.rglob(CANARY)), "a payload was run"


# --- pickles with a payload ---------------------------------------------------------------------------------------------------

PLACES: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "instead of the weights": lambda payload, state: payload,
    "as a weight": lambda payload, state: state | {WORDS: payload},
    "beside the weights": lambda payload, state: state | {"x": payload},
    "in a list in a dictionary": lambda payload, state: state | {"x": [1, {"y": (payload,)}]},
    "as a key": lambda payload, state: state | {payload: 1},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", CONTAINERS)
def test_a_payload_is_never_run(folder: Path, form: str, place: str) -> None:
    state = weights_of(folder)
    (folder / "model.safetensors").unlink()
    CONTAINERS[form](PLACES[place](Payload(), state), folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin: not a file of plain PyTorch weights (it names posix.system,", "no code in it is ever run")
    assert not Path(CANARY).exists()


def test_the_payloads_are_real(folder: Path) -> None:
    """So that the test above could fail: in each container it is run by a reader that runs pickles."""
    for save in CONTAINERS.values():
        save({"x": Payload()}, folder / "x.bin")
        torch.load(folder / "x.bin", weights_only=False)
        Path(CANARY).unlink()


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (Payload(eval, f"open({CANARY!r}, 'w')"), "__builtin__.eval"),
        (Payload(subprocess.check_call, ["touch", CANARY]), "commands.check_call"),  # the name of Python 2, as pickle writes it
        (Payload(getattr, "x", "y"), "__builtin__.getattr"),
        (Payload(torch.load, "x.bin"), "torch.serialization.load"),
        (Payload(torch.hub.load, "x/y", "z"), "torch.hub.load"),
        (Payload(bytearray, 1 << 40), "__builtin__.bytearray"),
        (Payload(pickle.loads, b"cos\nsystem\n(Vx\ntR."), "pickle.loads"),
        (Built(), "Built"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({1, 2}, "__builtin__.set"),
        (torch.device("cpu"), "torch.device"),
        (torch.zeros(2).to_sparse(), "_rebuild_sparse_tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_whatever_is_no_plain_tensor_is_refused_by_its_name(folder: Path, payload: Any, named: str) -> None:
    (folder / "model.safetensors").unlink()
    for save in (save_zip, save_stream):
        save({"x": payload}, folder / "pytorch_model.bin")
        refused(folder, "pytorch_model.bin: ", named)


def test_a_payload_in_one_of_several_parts_is_found(folder: Path) -> None:
    relay(folder, "zip", parts=3)
    part = sorted(folder.glob("*.bin"))[1]
    torch.save(torch.load(part, weights_only=True) | {"x": Payload()}, part)
    refused(folder, f"{part.name}: ", "posix.system")


def test_a_payload_in_the_weights_of_a_head_is_found(folder: Path) -> None:
    rows = json.loads((folder / "modules.json").read_text())
    write_json(
        folder / "modules.json", [*rows, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    )
    write_json(folder / "2_Dense/config.json", {"in_features": 32, "out_features": 4, "bias": False})
    save_zip({"linear.weight": torch.zeros(4, 32), "x": Payload()}, folder / "2_Dense/pytorch_model.bin")
    refused(folder, "2_Dense/pytorch_model.bin: ", "posix.system")


def test_python_that_lies_beside_the_weights_is_never_imported(folder: Path) -> None:
    for name in ("modeling.py", "sitecustomize.py", "minisbert.py", "tokenizer.py", "1_Pooling/__init__.py"):
        (folder / name).write_text(f"open({CANARY!r}, 'w')")
    minisbert.load(folder)
    assert not Path(CANARY).exists()


# --- weight files that are no weight files ------------------------------------------------------------------------------------


def bomb(folder: Path, path: Path) -> None:
    """A zip file whose one entry is 1 GB when unpacked."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as entry:
        for _ in range(64):
            entry.write(b"\0" * (1 << 20))


def listing(folder: Path, path: Path) -> None:
    """A zip file that says that its list of entries has a gigabyte."""
    save_zip(weights_of(folder), path)
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\5\6") + 12
    content[at : at + 4] = struct.pack("<L", LONGEST_LISTING + 1)
    path.write_bytes(content)


def pickled(path: Path, program: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)


def big_storage(folder: Path, path: Path) -> None:
    save_zip(weights_of(folder), path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in entries if name.endswith("data.pkl"))
    entries[name] = entries[name].replace(struct.pack("<BH", 0x4D, 33 * 32), struct.pack("<Bi", 0x4A, 1 << 30))
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)


def script(folder: Path, path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def number(folder: Path, path: Path) -> None:
    path.write_bytes(pickle.dumps(7, protocol=2))


def foreign_tar(folder: Path, path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO())


def cut(size: float, form: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, path: Path) -> None:
        CONTAINERS[form](weights_of(folder), path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * size)])

    return make


def text(content: bytes) -> Callable[[Path, Path], None]:
    return lambda folder, path: path.write_bytes(content) and None


BINS: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "empty": (text(b""), "it is empty"),
    "one byte": (text(b"\x80"), "not a file of plain PyTorch weights"),
    "a web page": (text(b"<!DOCTYPE html><html>404</html>"), "not a file of plain PyTorch weights"),
    "a pointer of git lfs": (text(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "a pointer of Git LFS"),
    "safetensors by another name": (lambda f, p: shutil.copy(f / "model.safetensors", p), "it is a safetensors file; name it"),
    "a number": (number, "it begins with a int, expected the magic number"),
    "a list": (lambda f, p: save_zip([1], p), "it holds a list, expected a dictionary"),
    "a torchscript archive": (script, "a TorchScript archive"),
    "a zip bomb": (bomb, "is compressed, and PyTorch compresses nothing"),
    "a zip file without weights": (lambda f, p: zipfile.ZipFile(p, "w").writestr("a/b", b"x"), "not a file of plain"),
    "a zip listing of a gigabyte": (listing, "its list of entries has"),
    "a tar file of something else": (foreign_tar, "without the storages, tensors and pickle"),
    "zip cut in half": (cut(0.5, "zip"), "not a file of plain PyTorch weights"),
    "zip cut at the end": (cut(0.999, "zip"), "not a file of plain PyTorch weights"),
    "stream cut in half": (cut(0.5, "stream"), "it is cut off: a storage ends at byte"),
    "stream cut early": (cut(0.01, "stream"), "not a file of plain PyTorch weights"),
    "tar cut in half": (cut(0.5, "tar"), "not a file of plain PyTorch weights"),
    "a program without end": (
        lambda f, p: pickled(p, b"\x80\x02" + b"N" * MOST_OPCODES + b"N."),
        "more than 2,097,152 instructions",
    ),
    "a program that ends in the middle": (lambda f, p: pickled(p, b"\x80\x02}"), "not a file of plain"),
    "a program that takes what was not given": (lambda f, p: pickled(p, b"\x80\x02s."), "takes values that were never given"),
    "a memory cell that is empty": (lambda f, p: pickled(p, b"\x80\x02h\x05."), "not a file of plain"),
    "a text of 2^60 letters": (
        lambda f, p: pickled(p, b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x."),
        "not a file of plain",
    ),
    "a key that takes forever to hash": (
        lambda f, p: pickled(p, b"\x80\x02)q\0" + b"h\0h\0\x86q\0" * 60 + b"}h\0K\x01s."),
        "a dictionary with a tuple as a key",
    ),
    "a tuple 100,000 deep": (lambda f, p: pickled(p, b"\x80\x02)" + b"\x85" * 100_000 + b"."), "it holds a tuple"),
    "a storage of 2^30 numbers": (big_storage, "asks for 1,073,741,824 numbers, and the file has 1,056 for it"),
}


@pytest.mark.parametrize("name", BINS)
def test_a_bin_file_that_is_none_is_refused(folder: Path, name: str) -> None:
    make, found = BINS[name]
    path = folder / "pytorch_model.bin"
    make(folder, path)
    (folder / "model.safetensors").unlink()
    refused(folder, "pytorch_model.bin: ", found)
    assert not (folder.parent.parent / "escaped").exists()


def header(values: object, length: int | None = None, rest: bytes = b"") -> bytes:
    content = values if isinstance(values, bytes) else json.dumps(values).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + rest


def tensor(shape: list[int], start: int, stop: int, kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


SAFE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is empty"),
    "seven bytes": (b"\0" * 7, "not a safetensors file"),
    "a pointer of git lfs": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    "a header of 2^60 bytes": (header({}, 1 << 60), "not a safetensors file"),
    "a header of 2^64 - 1 bytes": (header({}, (1 << 64) - 1), "not a safetensors file"),
    "a header of 90 MB that is not there": (header({}, 90_000_000), "not a safetensors file"),
    "a header that is no json": (header(b"{nonsense"), "not a safetensors file"),
    "a header that is a list": (header([]), "not a safetensors file"),
    "a header nested 100,000 deep": (header(b'{"x":' * 100_000), "not a safetensors file"),
    "a header that is not utf-8": (header(b'{"\xff":1}'), "not a safetensors file"),
    "no tensors": (header({}), "found no tensors"),
    "a shape of 2^40": (header({WORDS: tensor([1 << 40], 0, 4)}, rest=b"\0" * 4), "not a safetensors file"),
    "a shape that overflows": (header({WORDS: tensor([1 << 40, 1 << 40], 0, 4)}, rest=b"\0" * 4), "not a safetensors file"),
    "a negative shape": (header({WORDS: tensor([-1], 0, 4)}, rest=b"\0" * 4), "not a safetensors file"),
    "offsets beyond the end": (header({WORDS: tensor([2], 0, 8)}, rest=b"\0" * 4), "not a safetensors file"),
    "offsets the wrong way round": (header({WORDS: tensor([1], 4, 0)}, rest=b"\0" * 4), "not a safetensors file"),
    "offsets that overlap": (header({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, rest=b"\0" * 12), "not a safetensors file"),
    "a hole between tensors": (
        header({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, rest=b"\0" * 12),
        "not a safetensors file",
    ),
    "more bytes than tensors": (header({"a": tensor([1], 0, 4)}, rest=b"\0" * 400), "not a safetensors file"),
    "an unknown kind of numbers": (header({"a": tensor([1], 0, 4, "F33")}, rest=b"\0" * 4), "not a safetensors file"),
    "a pickle by another name": (pickle.dumps(Payload(), protocol=2), "not a safetensors file"),
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
    refused(folder, "model.safetensors: ", "found [33, 16], expected [33, 32]")


def test_the_tokenizer_of_another_model_is_refused(folder: Path, minilm_folder: Path) -> None:
    shutil.copy(minilm_folder / "tokenizer.json", folder)
    refused(folder, "tokenizer.json: the highest token id is 30521, expected at most 32", "do not belong together")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_numbers_that_are_none_are_refused(folder: Path, value: float) -> None:
    state = weights_of(folder)
    state[WORDS][0, 0] = value
    replace_weights(folder, state)
    refused(folder, WORDS, "expected finite numbers")


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.uint8, torch.bool])
def test_integers_are_refused(folder: Path, kind: torch.dtype) -> None:
    replace_weights(folder, {name: value.to(kind) for name, value in weights_of(folder).items()})
    refused(folder, WORDS, "expected floating-point numbers")


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
def test_a_link_that_leaves_the_folder_is_refused(folder: Path, file: str) -> None:
    secret = folder.parent / "secret"
    (folder / file).rename(secret)
    (folder / file).symlink_to(secret)
    refused(folder, f"{file}: found a link to {secret}, expected a file inside")


# --- bounds -------------------------------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys
import minisbert, minisbert.checkpoint.pickle_reader, pickletools, zipfile, tarfile
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
    for name in (
        *("a zip bomb", "a program without end", "a key that takes forever to hash", "a storage of 2^30 numbers"),
        *("a tuple 100,000 deep", "a text of 2^60 letters", "a zip listing of a gigabyte"),
    ):

        def pickle_instead(place: Path, name: str = name) -> None:
            BINS[name][0](folder, place / "pytorch_model.bin")
            (place / "model.safetensors").unlink()

        one(pickle_instead)

    def expanded(place: Path) -> None:
        """One number that says it is 2^40."""
        write_json(place / "config.json", config | {"vocab_size": 1 << 24, "hidden_size": 1 << 16})
        save_zip({name: torch.zeros(1).expand(1 << 24, 1 << 16) for name in weights_of(place)}, place / "pytorch_model.bin")
        (place / "model.safetensors").unlink()

    one(expanded)

    def long_program(place: Path) -> None:
        """A program of two gigabytes, which are a hole in the file."""
        path = place / "pytorch_model.bin"
        pickled(path, b"N.")
        content, hole = path.read_bytes(), (2 << 30) - 2
        listing = content.find(b"PK\1\2")
        entry, end = bytearray(content[listing:]), content.rfind(b"PK\5\6") - listing
        entry[20:28] = struct.pack("<2L", hole + 2, hole + 2)
        entry[end + 16 : end + 20] = struct.pack("<L", listing + hole)
        with path.open("wb") as file:
            file.write(content[:listing])
            file.seek(hole, os.SEEK_CUR)
            file.write(entry)
        (place / "model.safetensors").unlink()

    one(long_program)
    one(lambda place: (place / "tokenizer.json").write_bytes(TOKENIZERS["nested 100,000 deep"]))
    one(lambda place: (place / "vocab.txt").write_bytes(b"x" * (70 << 20)))
    one(lambda place: (place / "config.json").write_bytes(b"[" * (1 << 20)))
    done = subprocess.run([sys.executable, "-c", LIMITED, *worst], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(worst)
    assert [line for line in lines if "it asks for more memory than there is" in line]
    assert not [line for line in lines if line == "loaded"]
