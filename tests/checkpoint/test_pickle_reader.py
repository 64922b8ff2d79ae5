"""`.bin` files, in one place: what is read as PyTorch reads it, what is refused and why, and what an attack costs.

Programs are written by hand, an instruction at a time; `pickletools` explains each. Broken files at random are in test_fuzz.py, the
mapping of the tensors in test_weights.py.
"""

from __future__ import annotations

import ast
import faulthandler
import io
import os
import pickle
import pickletools
import re
import resource
import shutil
import struct
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import finder, write_json
from conftest import PAIR
from containers import CONTAINERS, relay
from messages import naming
from torch import Tensor

import minisbert
from minisbert import CheckpointError
from minisbert.checkpoint.pickle_reader import ALLOWED, BUILDERS, MAGIC, MOST_BYTES, MOST_DIMENSIONS, open_pickled
from minisbert.checkpoint.weights import open_file, open_weights

# --- the instructions (pickletools.py explains each) --------------------------------------------------------------------------


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def row(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def listed(*items: bytes) -> bytes:
    return b"](" + b"".join(items) + b"e"


def label(name: str) -> bytes:
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + row(*arguments) + b"R"


def by_name(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in values.items()) + b"u"


def program(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


TRUE, FALSE = b"\x88", b"\x89"
FLOATS, ORDERED = label("torch.FloatStorage"), label("collections.OrderedDict")
REBUILD, PARAMETER = label("torch._utils._rebuild_tensor_v2"), label("torch._utils._rebuild_parameter")
SQUARE = row(number(2), number(2))


def storage(key: str = "0", kind: bytes = FLOATS, numbers: bytes = number(4), *more: bytes) -> bytes:
    return row(text("storage"), kind, text(key), text("cpu"), numbers, *more) + b"Q"


def tensor(
    numbers: bytes = storage(), offset: bytes = number(0), shape: bytes = SQUARE, stride: bytes = row(number(2), number(1))
) -> bytes:
    return call(REBUILD, numbers, offset, shape, stride, FALSE, call(ORDERED))


# --- files --------------------------------------------------------------------------------------------------------------------

NUMBERS = struct.pack("<4f", 1, 2, 3, 4)


def save_zip(path: Path, value: bytes, numbers: bytes = NUMBERS, **more: bytes) -> Path:
    """A file with this program and one storage of four numbers."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": program(value), "version": b"3\n", "data/0": numbers, **more}.items():
            archive.writestr(f"archive/{name}", content)
    return path


def save_stream(path: Path, value: bytes, version: int = 1001, numbers: bytes = NUMBERS, **writer: object) -> Path:
    """The same in PyTorch's older form."""
    writer = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}} | writer
    start = b"".join(pickle.dumps(part, protocol=2) for part in (MAGIC, version, writer))
    path.write_bytes(start + program(value) + pickle.dumps(["0"], protocol=2) + struct.pack("<q", 4) + numbers)
    return path


def save_tar(path: Path, **entries: bytes) -> Path:
    """PyTorch's form until 2017: a tar file."""
    with tarfile.open(path, "w") as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def refused(path: Path, found: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(found) or None) as caught:
        open_pickled(path, "x.bin")
    message = str(caught.value)
    assert message.startswith("x.bin: not a file of plain PyTorch weights ("), message
    assert len(message) < 1000
    assert message.isprintable()


# --- what is read -------------------------------------------------------------------------------------------------------------

TENSORS: dict[str, Tensor] = {
    "plain": torch.arange(12.0).view(3, 4),
    "double": torch.arange(3, dtype=torch.float64),
    "half": torch.arange(4.0).half(),
    "bfloat16": torch.arange(5.0).bfloat16(),
    "long": torch.arange(6),
    "bytes": torch.arange(7, dtype=torch.uint8),
    "flags": torch.tensor([True, False]),
    "transposed": torch.arange(20.0).view(4, 5).t(),
    "scalar": torch.tensor(3.0),
    "nothing": torch.empty(0, 3),
    "parameter": torch.nn.Parameter(torch.arange(2.0)),
}
TENSORS["view"] = TENSORS["plain"][1:, 1:]  # shares the storage


def as_torch_reads_it(path: Path) -> None:
    reference = torch.load(path, weights_only=False)  # the restricted reader does not know protocol 4
    ours = {tensor.name: tensor for tensor in open_pickled(path, "x.bin")}
    assert ours.keys() == reference.keys()
    for name, tensor in ours.items():
        read = tensor.read()
        assert (tensor.shape, tensor.dtype) == (reference[name].shape, reference[name].dtype) == (read.shape, read.dtype)
        assert torch.equal(read, reference[name]), name


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
def test_tensors_of_every_kind_are_read_as_torch_reads_them(tmp_path: Path, protocol: int, new: bool) -> None:
    torch.save(TENSORS, tmp_path / "x.bin", pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    as_torch_reads_it(tmp_path / "x.bin")


@pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
def test_a_state_dict_with_its_metadata_is_read(tmp_path: Path, new: bool) -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    torch.save(layers.state_dict(), tmp_path / "x.bin", _use_new_zipfile_serialization=new)
    as_torch_reads_it(tmp_path / "x.bin")


@pytest.mark.parametrize(
    "value",
    [
        by_name(x=tensor()),
        by_name(x=tensor(shape=call(label("torch.Size"), SQUARE))),
        by_name(x=call(PARAMETER, tensor(), FALSE, call(ORDERED))),
        call(ORDERED, listed(listed(text("x"), tensor()), listed(text("y"), tensor(offset=number(1), shape=row(), stride=row())))),
    ],
    ids=["plain", "a shape of its own class", "a parameter", "a dictionary as Python 2 writes it"],
)
def test_a_program_gives_the_tensors_that_it_gives_torch(tmp_path: Path, value: bytes) -> None:
    as_torch_reads_it(save_zip(tmp_path / "x.bin", value))
    as_torch_reads_it(save_zip(tmp_path / "x.bin", b"\x95" + struct.pack("<Q", len(value)) + value))  # in a frame


def test_whatever_else_is_in_the_dictionary_is_passed_over(tmp_path: Path) -> None:
    values = {"x": torch.ones(2), "step": 3, "name": "n", "list": [1, (2.5, None)], 7: torch.zeros(1), "deep": {"x": True}}
    torch.save(values, tmp_path / "x.bin")
    assert [tensor.name for tensor in open_pickled(tmp_path / "x.bin", "x.bin")] == ["x"]
    itself = b"}q\0(" + text("x") + tensor() + text("y") + b"h\0" + text("z") + b"]q\1h\1au"  # and a list in itself
    save_zip(tmp_path / "x.bin", itself)
    assert [tensor.name for tensor in open_pickled(tmp_path / "x.bin", "x.bin")] == ["x"]


# --- nothing runs that came with a checkpoint ---------------------------------------------------------------------------------

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


PLACES: dict[str, Callable[[Any], Any]] = {
    "instead of the weights": lambda payload: payload,
    "as a weight": lambda payload: {"x": payload},
    "beside the weights": lambda payload: {"x": torch.ones(1), "y": payload},
    "in a list in a dictionary": lambda payload: {"x": [1, {"y": (payload,)}]},
    "as a key": lambda payload: {payload: 1},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", CONTAINERS)
def test_a_payload_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    CONTAINERS[form](PLACES[place](Payload()), tmp_path / "x.bin")
    refused(tmp_path / "x.bin", "posix.system")
    assert not Path(CANARY).exists()
    torch.load(tmp_path / "x.bin", weights_only=False)  # the payload is real: a reader that runs pickles runs it
    assert Path(CANARY).exists()


def test_a_payload_in_a_tar_file_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in CVE-2025-32434: `torch.load(weights_only=True)` ran what was in this container until PyTorch 2.6."""
    monkeypatch.chdir(tmp_path)
    none, payload = pickle.dumps(0, protocol=2), pickle.dumps(Payload(), protocol=2)
    path = save_tar(tmp_path / "x.bin", storages=none + pickle.dumps([], protocol=2), tensors=none, pickle=payload)
    refused(path, "tar file")
    assert not Path(CANARY).exists()
    torch.load(path, weights_only=False)
    assert Path(CANARY).exists()


def test_a_torchscript_archive_is_never_run(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "x.bin")
    refused(tmp_path / "x.bin", "TorchScript")


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
def test_whatever_is_no_plain_tensor_is_refused_by_its_name(tmp_path: Path, payload: Any, named: str) -> None:
    for save in CONTAINERS.values():
        save({"x": payload}, tmp_path / "x.bin")
        refused(tmp_path / "x.bin", named)


def test_a_payload_in_one_of_several_parts_is_found(tmp_path: Path) -> None:
    for part, state in ("a.bin", {"x": torch.ones(1)}), ("b.bin", {"y": torch.ones(1), "z": Payload()}):
        (tmp_path / "2_Dense").mkdir(exist_ok=True)
        torch.save(state, tmp_path / "2_Dense" / part)
    where = {"x": "a.bin", "y": "b.bin", "z": "b.bin"}
    write_json(tmp_path / "2_Dense/pytorch_model.bin.index.json", {"weight_map": where})
    with pytest.raises(CheckpointError, match=naming("2_Dense/b.bin", "posix.system")):
        open_weights(finder(tmp_path), "2_Dense")


def test_no_loader_of_pytorch_is_called(minilm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The versions of PyTorch that are allowed include some with CVE-2025-32434 and CVE-2026-24747; their loaders are not used."""
    expected = minisbert.load(minilm_folder).encode(PAIR)

    def called(*arguments: object, **options: object) -> None:
        raise AssertionError("a loader that runs pickles was called")

    for module, name in (torch, "load"), (torch.serialization, "load"), (torch.jit, "load"), (pickle, "load"), (pickle, "loads"):
        monkeypatch.setattr(module, name, called)
    for form in CONTAINERS:
        shutil.copytree(minilm_folder, tmp_path / form)
        relay(tmp_path / form, form)
        assert torch.equal(minisbert.load(tmp_path / form).encode(PAIR), expected)


LOADERS = {
    *(
        "torch.load",
        "torch.serialization",
        *("torch.jit", "torch.jit.load"),
        "torch.hub",
        "torch.package",
        "torch.storage",
        "torch._utils",
        "torch._weights_only_unpickler",
    ),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open"),
}


def test_no_loader_of_pytorch_is_named() -> None:
    package = Path(minisbert.__file__).parent
    named = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            found = [ast.unparse(node)] if isinstance(node, ast.Attribute) else []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                found = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
            named |= {(path.relative_to(package).as_posix(), name) for name in found if name in LOADERS}
    recorder = "inference/graphs.py", "torch.jit"  # for torch.jit.trace; torch.jit.load is named by itself
    assert named == {("checkpoint/pickle_reader.py", "pickle.Unpickler"), recorder}


# --- wrong programs -----------------------------------------------------------------------------------------------------------

ONES = row(*[number(1)] * (MOST_DIMENSIONS + 1))
ELSEWHERE = "refers to a storage"
UNMATCHED = "shape and strides"
WRONG: dict[str, tuple[bytes, str]] = {
    "a storage by a number": (tensor(number(1) + b"Q"), ELSEWHERE),
    "a storage of a builder": (tensor(storage(kind=ORDERED)), ELSEWHERE),
    "a view of a storage": (tensor(storage("0", FLOATS, number(4), row(text("v"), number(1), number(3)))), ELSEWHERE),
    "a storage of two sizes": (listed(storage(), storage(numbers=number(3))), "one in two ways"),
    "a storage of an unknown kind": (tensor(storage(kind=label("torch.FloatTensor"))), "torch.FloatTensor"),
    "a storage of -1 elements": (tensor(storage(numbers=number(-1))), "-1 where a size"),
    "a storage of yes elements": (tensor(storage(numbers=TRUE)), "True where a size"),
    "a storage of 10^600 elements": (tensor(storage(numbers=b"\x8a\xf9" + b"\x7f" * 249)), "where a size"),
    "a storage that is not there": (tensor(storage("9")), "without data/9"),
    "a storage of another file": (tensor(storage("../version")), "without data/../version"),
    "a shape beyond the storage": (tensor(shape=row(number(3), number(2))), "shape [3, 2] in a storage of 4 elements"),
    "strides beyond the storage": (tensor(stride=row(number(4), number(1))), "shape [2, 2] in a storage of 4 elements"),
    "an offset beyond the storage": (tensor(offset=number(1)), "shape [2, 2] in a storage of 4 elements"),
    "a negative offset": (tensor(offset=number(-1)), "-1 where a size"),
    "a negative stride": (tensor(stride=row(number(-2), number(1))), "-2 where a size"),
    "one element for nine": (tensor(shape=row(number(9)), stride=row(number(0))), "shape [9] in a storage of 4 elements"),
    "a stride too few": (tensor(stride=row(number(1))), UNMATCHED),
    "too many dimensions": (tensor(shape=ONES, stride=ONES), UNMATCHED),
    "no shape": (tensor(shape=number(2)), UNMATCHED),
    "a shape of texts": (tensor(shape=row(text("a"), text("b"))), "str where a size"),
    "no storage": (tensor(number(0)), UNMATCHED),
    "no arguments": (call(REBUILD, storage()), UNMATCHED),
    "a parameter of nothing": (call(PARAMETER), "TypeError"),
    "a call of a storage's class": (call(FLOATS, number(4)), "TypeError"),
    "a call of a storage": (call(storage()), "TypeError"),
    "a call of a tensor": (call(tensor()), "TypeError"),
    "a new storage's class": (FLOATS + row() + b"\x81", "class"),
    "a new builder": (ORDERED + row() + b"\x81", "class"),
    "a call of a number": (call(number(1)), "TypeError"),
    "a call without a tuple": (ORDERED + number(1) + b"R", "TypeError"),
    "a list with arguments": (call(label("minisbert.list"), listed()), "TypeError"),
    "a dictionary of threes": (call(ORDERED, listed(row(text("x"), number(1), number(2)))), "ValueError"),
    "a tuple as a key": (b"}" + row() + number(1) + b"s", "a tuple as a key"),
    "a builder as a key": (b"}" + ORDERED + number(1) + b"s", "a builder as a key"),
    "an item for a dictionary": (b"}" + number(1) + b"a", "AttributeError"),
    # SETITEM on what is no dictionary: CVE-2026-24747
    "a name for a list": (b"]" + text("x") + number(1) + b"s", "an item of a list"),
    "an index for a list": (listed(number(1)) + number(0) + number(2) + b"s", "an item of a list"),
    "items for a list": (listed(number(1)) + b"(" + number(0) + number(2) + b"u", "an item of a list"),
    "an item for a tensor": (tensor() + number(0) + number(2) + b"s", "does not support item assignment"),
    "items for a tensor": (tensor() + b"(" + number(0) + number(2) + b"u", "does not support item assignment"),
    "an item for a storage": (storage() + number(0) + number(2) + b"s", "does not support item assignment"),
    "an item for a storage's class": (FLOATS + number(0) + number(2) + b"s", "does not support item assignment"),
    "an item for a builder": (ORDERED + number(0) + number(2) + b"s", "does not support item assignment"),
    "an item for a tuple": (row(number(1)) + number(0) + number(2) + b"s", "does not support item assignment"),
    "an item for a number": (number(1) + number(0) + number(2) + b"s", "does not support item assignment"),
    # BUILD, which changes attributes
    **{
        f"{how} of {what}": (value + state + b"b", "Error")
        for what, value in {
            "a builder": ORDERED,
            "a class": FLOATS,
            "a tensor": tensor(),
            "a list": b"]",
            "a number": number(1),
        }.items()
        for how, state in {
            "attributes": by_name(shape=row(), function=number(1)),
            "slots": row(b"N", by_name(shape=row(), function=number(1), __class__=number(1))),
        }.items()
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_program_is_told_what_is_wrong(tmp_path: Path, name: str) -> None:
    value, found = WRONG[name]
    before = dict(BUILDERS)
    refused(save_zip(tmp_path / "x.bin", by_name(x=value)), found)
    assert before == BUILDERS
    as_torch_reads_it(save_zip(tmp_path / "x.bin", by_name(x=tensor())))


def test_a_program_that_takes_what_was_not_given_or_has_no_end_is_told_so(tmp_path: Path) -> None:
    for value, found in (
        (b"s", ""),
        (number(1) + b"a", ""),
        (b"u", ""),
        (b"h\5", ""),
        (b"]", "a list, expected a dictionary"),
        (tensor(), "a tensor, expected a dictionary"),
    ):
        refused(save_zip(tmp_path / "x.bin", value), found)
    for whole in program(b"}")[:-1], b"\x80", b"<html>":
        save_zip(tmp_path / "x.bin", b"", **{"data.pkl": whole})
        refused(tmp_path / "x.bin", "524,288 bytes")


def test_every_other_instruction_is_refused_by_its_name(tmp_path: Path) -> None:
    """Among them INST and OBJ, which call; extension codes; buffers of protocol 5; what takes a length of 8 bytes."""
    others = {opcode.name: opcode for opcode in pickletools.opcodes if opcode.name not in ALLOWED}
    assert {"NEWOBJ_EX", "INST", "OBJ", "EXT1", "EXT4", "NEXT_BUFFER", "BYTEARRAY8", "LONG4", "PERSID"} <= others.keys()
    for name, opcode in others.items():
        argument = b"" if opcode.arg is None else b"'1'\n" if opcode.arg.name == "stringnl" else b"1\n1\n"
        if opcode.arg and opcode.arg.n != pickletools.UP_TO_NEWLINE:
            argument = bytes(8)
        refused(save_zip(tmp_path / "x.bin", opcode.code.encode("latin-1") + argument), f"instruction {name}")


# --- what an attack costs -----------------------------------------------------------------------------------------------------


@contextmanager
def little(seconds: float = 30, memory: int = 200 << 20) -> Iterator[None]:
    """Within these bounds, or a MemoryError, a failure, and after a minute the end of the process."""
    size = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize"))
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    faulthandler.dump_traceback_later(60, exit=True)
    resource.setrlimit(resource.RLIMIT_AS, (size * 1024 + memory, hard))
    start = time.process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        faulthandler.cancel_dump_traceback_later()
    assert time.process_time() - start < seconds


HUGE = struct.pack("<Q", 1 << 60)
LARGE = struct.pack("<I", (1 << 31) - 1)
DIGITS = MOST_BYTES // 4
COLLIDING = b"".join(b"\x8a\x20" + (n * (2**61 - 1)).to_bytes(32, "little") + b"N" for n in range(1, DIGITS // 9))
ATTACKS: dict[str, tuple[bytes, str]] = {
    "a memo index of 2^31": (b"Nr" + LARGE, "memo index 2,147,483,647, expected at most 2"),
    "a memo index of 255": (b"Nq\xff", "memo index 255, expected at most 2"),
    "bytes of 2^31": (b"B" + LARGE, "cut off"),
    "bytes of 2^60": (b"\x8e" + HUGE, "cut off"),
    "a bytearray of 2^60": (b"\x96" + HUGE, "cut off"),
    "a text of 2^31": (b"X" + LARGE, "cut off"),
    "a text of 2^60": (b"\x8d" + HUGE, "cut off"),
    "an old text of 2^31": (b"T" + LARGE, "cut off"),
    "a number of 2^31 bytes": (b"\x8b" + LARGE, "cut off"),
    "a number of 9 bytes that has a length of 4": (b"\x8b" + struct.pack("<i", 9) + b"\1" * 9, "the instruction LONG4"),
    "a frame of 2^60": (b"\x95" + HUGE, ""),
    "more than the most bytes": (b"N" * MOST_BYTES, "cut off, or above 524,288 bytes"),
    "nothing but lists": (b"]" * (MOST_BYTES - 3), "holds a list"),
    "nothing but marks": (b"(" * (MOST_BYTES - 4) + b"t", "holds a tuple"),
    "lists in lists": (b"]" * (DIGITS * 2 - 2) + b"a" * (DIGITS * 2 - 3), "holds a list"),
    "tuples in tuples": (b")" + b"\x85" * (MOST_BYTES - 4), "holds a tuple"),
    "dictionaries in dictionaries": ((b"}" + text("")) * (DIGITS // 2) + b"}" + b"s" * (DIGITS // 2) + b"\x85", "holds a tuple"),
    "a list in itself": (b"]q\0h\0a", "holds a list"),
    "a key of 2^60 parts": (b")q\0" + b"h\0h\0\x86q\0" * 60 + b"}h\0K\1s", "a tuple as a key"),
    "a key 100,000 deep": (b"})" + b"\x85" * 100_000 + b"K\1s", "a tuple as a key"),
    "keys of one hash": (b"}(" + COLLIDING + b"u", "a int as a key"),
    "a shape of 2^60 parts": (tensor(shape=b")q\0" + b"h\0h\0\x86q\0" * 60), UNMATCHED),
    "a shape of 2^17 dimensions": (b"(" + b"K\1" * DIGITS + b"tq\0" + tensor(shape=b"h\0", stride=b"h\0"), UNMATCHED),
    "one list of pairs, read again and again": (
        text("x") + b"N\x86q\0](" + b"h\0" * DIGITS + b"e\x85q\1" + ORDERED + b"q\2" + b"h\2h\1R" * (DIGITS // 4) + b"\x85",
        "holds a tuple",
    ),
    "tensors without elements": (
        tensor(shape=row(number(0)), stride=row(number(1)))
        + b"q\0}("
        + b"".join(text(f"{n}") + b"h\0" for n in range(9999))
        + b"u\x85",
        "holds a tuple",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_costs_little_time_and_memory(tmp_path: Path, name: str) -> None:
    value, found = ATTACKS[name]
    save_zip(tmp_path / "x.bin", value)
    with little():
        refused(tmp_path / "x.bin", found)


def test_more_than_four_tensors_of_one_storage_are_too_many(tmp_path: Path) -> None:
    whole = storage(numbers=number(4096)), number(0), row(number(4096)), row(number(1))
    for count in 4, 5:
        path = save_zip(tmp_path / "x.bin", by_name(**{f"x{n}": tensor(*whole) for n in range(count)}), bytes(4 * 4096))
        if count == 4:
            assert len(open_pickled(path, "x.bin")) == 4
    refused(path, "81,920 bytes")


def test_an_expanded_tensor_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1).expand(1 << 24, 1 << 16)}, tmp_path / "x.bin")
    with little():
        refused(tmp_path / "x.bin", "shape [16777216, 65536] in a storage of 1")


def test_holes_in_a_file_cost_nothing(tmp_path: Path) -> None:
    """A program of two gigabytes, and a list of entries of as many, which are holes in the file."""
    path, hole = tmp_path / "x.bin", (2 << 30) - 2
    save_zip(path, b"}")
    content = path.read_bytes()
    listing = content.find(b"PK\1\2")
    entries, end = bytearray(content[listing:]), content.rfind(b"PK\5\6") - listing
    entries[20:28] = struct.pack("<2L", hole + 2, hole + 2)
    entries[end + 16 : end + 20] = struct.pack("<L", listing + hole)
    with path.open("wb") as file:
        file.write(content[:listing].replace(program(b"}"), bytes(4)))
        file.seek(hole, os.SEEK_CUR)
        file.write(entries)
    with little():
        refused(path, "524,288 bytes")
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.seek(listing + hole)
        file.write(content[-22:-10] + struct.pack("<2LH", hole, listing, 0))
    with little():
        refused(path, f"{hole:,} bytes, expected at most 524,288")


# --- wrong files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty"),
        (struct.pack("<Q", 2) + b'{"', "model.safetensors"),
        (b"\x80", "cut off"),
        (b"<!DOCTYPE html><html>404</html>", "cut off"),
        (b"PK", "zip file"),
        (tarfile.TarInfo("../../escaped").tobuf(), "tar file"),
        (pickle.dumps(7, protocol=2), "int, expected the magic number"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[:40],
)
def test_a_file_that_is_none_is_told_what_it_is(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=naming("x.bin:", found)):
        open_file(tmp_path / "x.bin", "x.bin")


@pytest.mark.parametrize("form", CONTAINERS)
def test_a_file_that_is_cut_off_is_refused_wherever_it_ends(tmp_path: Path, form: str) -> None:
    CONTAINERS[form]({"x": torch.arange(64.0), "y": torch.arange(64.0)}, tmp_path / "x.bin")
    content = (tmp_path / "x.bin").read_bytes()
    for end in range(1, len(content), 7):
        (tmp_path / "x.bin").write_bytes(content[:end])
        refused(tmp_path / "x.bin", "")


def test_a_storage_smaller_than_it_is_said_to_be_is_refused(tmp_path: Path) -> None:
    """CVE-2026-24747: the program says four elements, the file has three."""
    for save, found in (
        (save_zip, "data/0 is cut off: expected 16 bytes, found 12"),
        (save_stream, "storage 0 has 4 elements in 12 bytes"),
    ):
        refused(save(tmp_path / "x.bin", by_name(x=tensor()), numbers=NUMBERS[:12]), found)  # type: ignore[operator]
        large = tensor(storage(numbers=number(1 << 30)), shape=row(number(1 << 30)), stride=row(number(1)))
        refused(save(tmp_path / "x.bin", by_name(x=large)), "expected ")  # type: ignore[operator]


def changed_listing(path: Path, entry: str, place: int, value: bytes) -> Path:
    """A zip file whose list of entries has something else at this place of an entry."""
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\1\2", 0, content.rfind(entry.encode())) + place
    content[at : at + len(value)] = value
    path.write_bytes(content)
    return path


def test_a_zip_file_that_is_not_as_its_list_of_entries_says_is_told_so(tmp_path: Path) -> None:
    path, value = tmp_path / "x.bin", by_name(x=tensor())
    refused(changed_listing(save_zip(path, value), "data/0", 42, struct.pack("<I", 1)), "data/0 is not where")
    for entry in "data.pkl", "data/0":
        save_zip(path, value)
        refused(changed_listing(path, entry, 20, struct.pack("<2I", 1 << 30, 1 << 30)), f"{entry} is cut off")
        save_zip(path, value)
        refused(changed_listing(path, entry, 24, struct.pack("<I", 1)), f"{entry} is compressed or encrypted")
        for place, what in (8, b"\1\0"), (10, b"\10\0"):  # encrypted; deflated to the same size
            refused(changed_listing(save_zip(path, value), entry, place, what), f"{entry} is compressed or encrypted")
    refused(save_zip(path, value, **{"data.pkl": b""}), "data.pkl is cut off")


@pytest.mark.parametrize("packed", ["data.pkl", "data/0"])
def test_a_compressed_entry_is_refused_and_not_unpacked(tmp_path: Path, packed: str) -> None:
    for content in program(by_name(x=tensor())) if packed == "data.pkl" else NUMBERS, bytes(256 << 20):
        save_zip(tmp_path / "x.bin", by_name(x=tensor()))
        with zipfile.ZipFile(tmp_path / "x.bin") as archive:
            entries = {name: archive.read(name) for name in archive.namelist()} | {f"archive/{packed}": content}
        with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
            for name, part in entries.items():
                archive.writestr(name, part, zipfile.ZIP_DEFLATED if name.endswith(packed) else zipfile.ZIP_STORED)
        del entries, content
        with little(memory=100 << 20):
            refused(tmp_path / "x.bin", f"{packed} is compressed or encrypted")


def test_values_of_the_other_byte_order_are_refused(tmp_path: Path) -> None:
    value = by_name(x=tensor())
    assert open_pickled(save_zip(tmp_path / "x.bin", value, byteorder=b"little"), "x.bin")
    refused(save_zip(tmp_path / "x.bin", value, byteorder=b"big"), "big-endian")
    refused(save_stream(tmp_path / "x.bin", value, little_endian=False), "big-endian")


def test_a_wrong_stream_is_told_what_is_wrong(tmp_path: Path) -> None:
    path, kind = tmp_path / "x.bin", "unknown version"
    value = by_name(x=tensor(storage("0", FLOATS, number(4), b"N")))
    as_torch_reads_it(save_stream(path, value))
    refused(save_stream(path, value, version=1002), kind)
    refused(save_stream(path, by_name(x=tensor(storage("1", FLOATS, number(4), b"N")))), "list of storages")
    refused(save_stream(path, by_name(x=tensor(storage("0", FLOATS, number(4), number(1))))), ELSEWHERE)
    content = save_stream(path, value).read_bytes()
    for claimed in -1, 3, 5, 1 << 62:
        path.write_bytes(content[:-24] + struct.pack("<q", claimed) + NUMBERS)
        refused(path, f"storage 0 has {claimed:,} elements in 16 bytes, expected 4")


def test_a_file_that_shrinks_after_it_was_opened_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    (whole,) = open_pickled(save_zip(tmp_path / "x.bin", by_name(x=tensor())), "x.bin")
    assert whole.read().tolist() == [[1, 2], [3, 4]]
    content = (tmp_path / "x.bin").read_bytes()
    os.truncate(tmp_path / "x.bin", content.find(NUMBERS) + 8)
    with pytest.raises(CheckpointError, match=naming("x.bin:", "x", "cut off")):
        whole.read()


def test_integers_are_told_by_their_kind(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(2), "y": torch.arange(2)}, tmp_path / "x.bin")
    kinds = [(tensor.name, tensor.dtype, tensor.kind) for tensor in open_file(tmp_path / "x.bin", "x.bin")]
    assert kinds == [("x", torch.float32, "float32"), ("y", None, "int64")]
