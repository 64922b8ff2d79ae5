"""`.bin` files by themselves: programs written by hand, an instruction at a time, and what each wrong one is told."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from minisbert import CheckpointError
from minisbert.checkpoint.pickle_reader import MAGIC, MOST_DIMENSIONS, MOST_ENTRIES, open_pickled

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


# --- the three containers -----------------------------------------------------------------------------------------------------

NUMBERS = struct.pack("<4f", 1, 2, 3, 4)


def save_zip(path: Path, value: bytes, numbers: bytes = NUMBERS, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": program(value), "version": b"3\n", "data/0": numbers, **more}.items():
            archive.writestr(f"archive/{name}", content)
    return path


def save_stream(path: Path, value: bytes, version: int = 1001, *, little_endian: bool = True) -> Path:
    writer = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    start = b"".join(pickle.dumps(part, protocol=2) for part in (MAGIC, version, writer))
    path.write_bytes(start + program(value) + pickle.dumps(["0"], protocol=2) + struct.pack("<q", 4) + NUMBERS)
    return path


def save_tar(path: Path, value: bytes, views: bytes = b"]", root: int = 1, sizes: tuple[int, ...] = (1, 4, 1, 0)) -> Path:
    """One storage, number 1, with its views, and one tensor, number 7: `sizes` are its dimensions, shape, strides and offset."""
    storages = program(number(1)) + program(row(number(1), text("cpu"), FLOATS)) + struct.pack("<q", 4) + NUMBERS
    tensors = program(number(1)) + program(row(number(7), number(root), label("torch.FloatTensor")))
    tensors += struct.pack("<i4x", sizes[0]) + struct.pack(f"<{len(sizes) - 1}q", *sizes[1:])
    with tarfile.open(path, "w") as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in ("storages", storages + program(views)), ("tensors", tensors), ("pickle", program(value)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def as_torch_reads_it(path: Path) -> None:
    reference = torch.load(path, weights_only=False)
    ours = {tensor.name: tensor.read() for tensor in open_pickled(path, "x.bin")}
    assert ours.keys() == reference.keys()
    for name, value in reference.items():
        assert torch.equal(ours[name], value), name


def refused(path: Path, found: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_pickled(path, "x.bin")
    assert str(caught.value).startswith("x.bin: not a file of plain PyTorch weights (")
    assert found in str(caught.value)


# --- what is read -------------------------------------------------------------------------------------------------------------


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


def test_a_view_of_a_storage_in_a_stream_is_that_part_of_it(tmp_path: Path) -> None:
    view = storage("0", FLOATS, number(4), row(text("view"), number(1), number(3)))
    as_torch_reads_it(save_stream(tmp_path / "x.bin", by_name(x=tensor(view, shape=row(number(3)), stride=row(number(1))))))


def test_a_view_of_a_storage_in_a_tar_file_is_that_part_of_it(tmp_path: Path) -> None:
    views = listed(row(number(2), number(1), number(1), number(3)))
    as_torch_reads_it(save_tar(tmp_path / "x.bin", by_name(x=text("7") + b"Q"), views, root=2, sizes=(1, 3, 1, 0)))


# --- what is refused ----------------------------------------------------------------------------------------------------------

ONES = row(*[number(1)] * (MOST_DIMENSIONS + 1))
WRONG: dict[str, tuple[bytes, str]] = {
    "a storage by a number": (tensor(number(1) + b"Q"), "it refers to a storage in a way that is not PyTorch's"),
    "a storage of an unknown kind": (tensor(storage(kind=label("torch.FloatTensor"))), "an unknown kind of numbers"),
    "a storage of -1 numbers": (tensor(storage(numbers=number(-1))), "it has a int -1 where a size belongs"),
    "a storage of yes numbers": (tensor(storage(numbers=TRUE)), "it has a bool True where a size belongs"),
    "a storage that is not there": (tensor(storage("9")), "the numbers of x are missing"),
    "a shape beyond the storage": (tensor(shape=row(number(3), number(2))), "shape [3, 2] in a storage of 4 numbers"),
    "strides beyond the storage": (tensor(stride=row(number(4), number(1))), "shape [2, 2] in a storage of 4 numbers"),
    "an offset beyond the storage": (tensor(offset=number(1)), "shape [2, 2] in a storage of 4 numbers"),
    "one number for nine": (tensor(shape=row(number(9)), stride=row(number(0))), "shape [9] in a storage of 4 numbers"),
    "a stride too few": (tensor(stride=row(number(1))), "shape and strides do not belong together"),
    "too many dimensions": (tensor(shape=ONES, stride=ONES), "shape and strides do not belong together"),
    "no shape": (tensor(shape=number(2)), "a tensor without a shape"),
    "no numbers": (tensor(number(0)), "a tensor without numbers"),
    "no arguments": (call(REBUILD, storage()), "a tensor without numbers"),
    "a parameter of a number": (call(PARAMETER, number(1)), "a parameter that is no tensor"),
    "a parameter of nothing": (call(PARAMETER), "a parameter that is no tensor"),
    "a call of a storage": (call(FLOATS, number(4)), "it calls torch.FloatStorage"),
    "a call of a number": (call(number(1)), "it calls what cannot be called"),
    "a call without a tuple": (ORDERED + number(1) + b"R", "it calls collections.OrderedDict"),
    "a dictionary of threes": (call(ORDERED, listed(row(text("x"), number(1), number(2)))), "a tuple where 2 values belong"),
    "a tuple as a key": (b"}" + row() + number(1) + b"s", "a dictionary with a tuple as a key, expected names"),
    "an item for a dictionary": (b"}" + number(1) + b"a", "it changes a dict, expected a list"),
    "a name for a list": (b"]" + text("x") + number(1) + b"s", "it changes a list, expected a dict"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_program_is_told_what_is_wrong(tmp_path: Path, name: str) -> None:
    value, found = WRONG[name]
    refused(save_zip(tmp_path / "x.bin", by_name(x=value)), found)


def test_a_program_that_changes_nothing_or_has_no_end_is_told_so(tmp_path: Path) -> None:
    refused(save_zip(tmp_path / "x.bin", number(1) + b"a"), "it changes a nothing, expected a list")
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("archive/data.pkl", program(b"}")[:-1])
    refused(tmp_path / "x.bin", "pickle exhausted before seeing STOP")


def test_more_than_four_tensors_of_one_storage_are_too_many(tmp_path: Path) -> None:
    whole = storage(numbers=number(4096)), number(0), row(number(4096)), row(number(1))
    for count in 4, 5:
        path = save_zip(tmp_path / "x.bin", by_name(**{f"x{n}": tensor(*whole) for n in range(count)}), bytes(4 * 4096))
        if count == 4:
            assert len(open_pickled(path, "x.bin")) == 4
    refused(path, "its tensors would fill 81,920 bytes, and the file has ")


def changed_listing(path: Path, entry: str, place: int, value: int) -> Path:
    """A zip file whose list of entries has another number, of four bytes, at this place of an entry."""
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\1\2", 0, content.rfind(entry.encode())) + place
    content[at : at + 4] = struct.pack("<I", value)
    path.write_bytes(content)
    return path


def test_a_zip_file_that_is_not_as_its_list_of_entries_says_is_told_so(tmp_path: Path) -> None:
    path, value = tmp_path / "x.bin", by_name(x=tensor())
    refused(changed_listing(save_zip(path, value), "data/0", 42, 1), "its entry archive/data/0 is not where the list of entries")
    save_zip(path, value)
    for size in 20, 24:  # packed and unpacked
        changed_listing(path, "data.pkl", size, 1 << 30)
    refused(path, "its entry data.pkl is cut off")


def test_numbers_of_the_other_byte_order_are_refused(tmp_path: Path) -> None:
    value = by_name(x=tensor())
    assert open_pickled(save_zip(tmp_path / "x.bin", value, byteorder=b"little"), "x.bin")
    refused(save_zip(tmp_path / "x.bin", value, byteorder=b"big"), "big-endian")
    refused(save_stream(tmp_path / "x.bin", value, little_endian=False), "big-endian")


def test_a_wrong_stream_is_told_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    refused(save_stream(path, by_name(x=tensor()), version=1002), "an unknown version of PyTorch's format")
    refused(save_stream(path, by_name(x=tensor(storage()))), "it refers to a storage in a way that is not PyTorch's")
    refused(
        save_stream(path, by_name(x=tensor(storage("0", FLOATS, number(4), number(1))))),
        "it refers to a part of a storage in a way",
    )


@pytest.mark.parametrize(
    ("value", "root", "sizes", "found"),
    [
        (text("8") + b"Q", 1, (1, 4, 1, 0), "it refers to a tensor that it does not have"),
        (text("7") + b"Q", 3, (1, 4, 1, 0), "it refers to a storage that it does not have"),
        (text("7") + b"Q", 1, (MOST_DIMENSIONS + 1, 0), "it has a tensor of 65 dimensions"),
        (text("7") + b"Q", 1, (-1, 0), "it has a tensor of -1 dimensions"),
        (text("7") + b"Q", 1, (1, 5, 1, 0), "shape [5] in a storage of 4 numbers"),
    ],
)
def test_a_wrong_tar_file_is_told_what_is_wrong(
    tmp_path: Path, value: bytes, root: int, sizes: tuple[int, ...], found: str
) -> None:
    refused(save_tar(tmp_path / "x.bin", by_name(x=value), root=root, sizes=sizes), found)


def test_a_tar_file_of_endless_entries_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(tarfile.TarInfo("x").tobuf() * (MOST_ENTRIES + 2) + bytes(1024))
    refused(tmp_path / "x.bin", "more than 65,536 entries")


def test_a_file_that_shrinks_after_it_was_opened_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    (whole,) = open_pickled(save_zip(tmp_path / "x.bin", by_name(x=tensor())), "x.bin")
    assert whole.read().tolist() == [[1, 2], [3, 4]]
    content = (tmp_path / "x.bin").read_bytes()
    os.truncate(tmp_path / "x.bin", content.find(NUMBERS) + 8)
    with pytest.raises(CheckpointError, match="the numbers of x are cut off"):
        whole.read()
