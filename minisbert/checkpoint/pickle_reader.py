"""Reads PyTorch's `.bin` files without running code from them.

A `.bin` file holds a pickle: a program whose instructions may call any function that Python can import, and so can take over a
computer. Here the standard library's `Unpickler` runs it, but it can call only the builders below. PyTorch's own loaders are not
used, so their vulnerabilities do not matter, whatever the version of PyTorch.

1. `_run` allows only the instructions that a dictionary of tensors needs, and limits the sizes that the Unpickler trusts.
2. `find_class` looks up names in `BUILDERS`. Nothing is imported, and any other name is refused.
3. The builders check their arguments and describe tensors. The values are read later, one tensor at a time.

    zip      since PyTorch 1.6    <name>/data.pkl is the program; <name>/data/<key> holds the values, uncompressed
    stream   until PyTorch 1.5    magic number, version, the writer's machine, the program, the storage keys, then the values
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from pickle import Unpickler, UnpicklingError
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from minisbert.errors import CheckpointError

MAGIC: Final = 0x1950A86A20F9469CFC6C  # what the stream begins with
MOST_DIMENSIONS: Final = 64
MOST_BYTES: Final = 1 << 19
"""The most bytes of a program, and of a zip file's list of entries. Those of a BERT of 24 layers have less than 100,000."""


class PickledTensor(NamedTuple):
    """One tensor of a file, not read yet."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


def open_pickled(path: Path, file: str) -> list[PickledTensor]:
    """The tensors of a `.bin` file, under the names that the file gives them.

    Args:
        path: where the file lies.
        file: its name inside the checkpoint, for messages.

    Raises:
        CheckpointError: if it is no such file, is truncated, or holds anything but plain tensors and plain values.
    """
    try:
        with _File(path.open("rb", buffering=0)) as opened:
            head, size = opened.read(512), opened.seek(0, io.SEEK_END)
            if head[257:262] == b"ustar":
                raise UnpicklingError("it is a tar file, PyTorch's format until 2017; load it with PyTorch and save it again")
            opened.seek(0)
            state, starts = _open_zip(opened, size) if head.startswith(b"PK") else _open_stream(opened, size)
        if not isinstance(state, dict):
            raise UnpicklingError(f"it holds a {_kind(state)}, expected a dictionary of tensors by name")
        tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, _Tensor)}
        # One storage may serve two tensors, such as word embeddings that are also an output layer, but not thousands.
        if (total := sum(prod(tensor.shape) * tensor.storage.dtype.itemsize for tensor in tensors.values())) > 4 * size:
            raise UnpicklingError(f"its tensors would fill {total:,} bytes, and the file has {size:,}")
    except Exception as error:
        reason = str(error) if isinstance(error, UnpicklingError) else f"{type(error).__name__}: {_brief(str(error))}"
        raise CheckpointError(
            f"{file}: not a file of plain PyTorch weights ({reason}). Only tensors are read from it, and no code in it is "
            "ever run; take an unchanged copy from a source you trust, best as model.safetensors."
        ) from None
    return [
        PickledTensor(name, view.shape, view.storage.dtype, partial(_read, path, file, name, view, starts[view.storage.key]))
        for name, view in tensors.items()
    ]


def _read(path: Path, file: str, name: str, tensor: _Tensor, start: int) -> Tensor:
    dtype = tensor.storage.dtype
    if 0 in tensor.shape:
        return torch.empty(tensor.shape, dtype=dtype)
    content = bytearray(tensor.reach * dtype.itemsize)
    with path.open("rb") as opened:
        opened.seek(start + tensor.offset * dtype.itemsize)
        if opened.readinto(content) != len(content):
            raise CheckpointError(f"{file}: the values of {_brief(name)} are cut off. Take an unchanged copy of the file.")
    return torch.frombuffer(content, dtype=dtype).as_strided(tensor.shape, tensor.stride)


class _File(io.BufferedReader):
    """A file whose reads are limited in size, whatever sizes its content claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_BYTES:
            raise UnpicklingError(f"its list of entries has {size:,} bytes, expected at most {MOST_BYTES:,}")
        return super().read(size)


def _open_zip(opened: _File, size: int) -> tuple[object, dict[str, int]]:
    """The object that the program builds, and the byte offset of each storage."""
    import zipfile

    with zipfile.ZipFile(opened) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
    if "constants.pkl" in entries or any(name.startswith("code/") for name in entries):
        raise UnpicklingError("it is a TorchScript archive, a program with its weights; save the weights alone, with state_dict()")

    def start(name: str, least: int) -> int:
        """Seeks to the first byte of an entry that has at least `least` bytes, and returns its offset."""
        if (entry := entries.get(name)) is None:
            raise UnpicklingError(f"it is a zip file without {_brief(name)}, which PyTorch writes")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise UnpicklingError(f"its entry {_brief(name)} is compressed or encrypted, as PyTorch never does; save it again")
        found = opened.seek(entry.header_offset)
        header = opened.read(30)
        if len(header) < 30 or not header.startswith(b"PK\3\4"):
            raise UnpicklingError(f"its entry {_brief(name)} is not where the list of entries says")
        found += 30 + sum(struct.unpack("<HH", header[26:]))  # after the header, a name and extra fields
        if entry.file_size < least or found + entry.file_size > size:
            raise UnpicklingError(f"its entry {_brief(name)} is cut off: expected {least:,} bytes, found {entry.file_size:,}")
        return opened.seek(found)

    if "byteorder" in entries and start("byteorder", 0) and opened.read(6) != b"little":
        raise UnpicklingError("its values are big-endian, expected little-endian")
    start("data.pkl", 1)
    state, storages = _run(opened)
    return state, {key: start(f"data/{key}", storage.numel * storage.dtype.itemsize) for key, storage in storages.items()}


def _open_stream(opened: _File, size: int) -> tuple[object, dict[str, int]]:
    if (magic := _run(opened)[0]) != MAGIC:
        raise UnpicklingError(f"it begins with a {_kind(magic)}, expected the magic number of PyTorch")
    version, writer = _run(opened)[0], _run(opened)[0]
    if version != 1001 or not isinstance(writer, dict) or writer.get("little_endian") is not True:
        raise UnpicklingError("it is of an unknown version of PyTorch's format, or big-endian; expected 1001, little-endian")
    state, storages = _run(opened)
    keys, _ = _run(opened)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise UnpicklingError("its list of storages is not the one that its tensors refer to")
    starts = {}
    for key, dtype, numel in (storages[key] for key in keys):  # the number of elements, in eight bytes, and the elements
        (found,), starts[key], left = struct.unpack("<q", opened.read(8)), opened.tell(), size - opened.tell()
        if found != numel or numel * dtype.itemsize > left:
            raise UnpicklingError(f"its storage {_brief(key)} has {found:,} elements in {left:,} bytes, expected {numel:,}")
        opened.seek(numel * dtype.itemsize, io.SEEK_CUR)
    return state, starts


ALLOWED: Final = {
    "PROTO", "FRAME", "STOP", "MARK", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID", "NONE", "NEWTRUE",
    "NEWFALSE", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS",
}  # fmt: skip
"""The instructions that a dictionary of tensors needs, in protocols 2 to 5. The standard library's `pickletools` explains them."""

REPLACED: Final = {
    "EMPTY_DICT": (1, b"ccollections\nOrderedDict\n)R"),
    "EMPTY_LIST": (1, b"cminisbert\nlist\n)R"),
    "FRAME": (9, b""),  # says how much follows, which changes
}
"""The lengths of instructions, and what replaces them. Python's dictionaries take any key, and a nested tuple can take forever to
hash; so dictionaries and lists come from a builder too."""


def _run(opened: _File) -> tuple[object, dict[str, _Storage]]:
    """Runs the program at the current offset, and seeks to its end. Returns what it builds, and the storages it refers to."""
    import pickletools

    begin, content, parts, done, at = opened.tell(), opened.read(MOST_BYTES), [], 0, 0
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(content)):
            name, at = opcode.name, position or 0
            if name not in ALLOWED:
                raise UnpicklingError(f"it has the instruction {name}, which no file of plain tensors needs")
            # The memo is an array as long as its largest index. PyTorch's programs count up from 0, those of Python 2 from 1.
            if name in ("BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
                raise UnpicklingError(f"its instruction {count:,} writes to memo index {argument:,}, expected at most {count:,}")
            if name in REPLACED:
                length, replacement = REPLACED[name]
                parts += [content[done:at], replacement]
                done = at + length
    except ValueError as error:
        raise UnpicklingError(f"its program is no pickle, cut off, or above {MOST_BYTES:,} bytes: {_brief(str(error))}") from None
    opened.seek(begin + at + 1)
    unpickler = _Unpickler(io.BytesIO(b"".join([*parts, content[done : at + 1]])), encoding="utf-8")
    unpickler.storages = {}
    return unpickler.load(), unpickler.storages


class _Unpickler(Unpickler):
    storages: dict[str, _Storage]

    def find_class(self, module: str, name: str) -> _Builder | torch.dtype:
        if (found := BUILDERS.get(f"{module}.{name}")) is None:
            raise UnpicklingError(f"it names {_brief(f'{module}.{name}')}, which is no part of a plain tensor")
        return found

    def persistent_load(self, identity: Any) -> _Storage:
        match identity:
            # The last is for views of storages, which PyTorch had before BERT.
            case ("storage", torch.dtype() as dtype, str(key), _device, numel, *last) if last in ([], [None]):
                storage = _Storage(key, dtype, _size(numel))
                if self.storages.setdefault(key, storage) == storage:
                    return storage
        raise UnpicklingError("it refers to a storage in a way that is not PyTorch's, or to one in two ways")


class _Builder(NamedTuple):
    """The value of a name in a program, which can call the function but cannot change it."""

    function: Callable[..., object]

    def __call__(self, *arguments: object) -> object:
        return self.function(*arguments)


class _Storage(NamedTuple):  # a block of elements in the file
    key: str
    dtype: torch.dtype
    numel: int


class _Tensor(NamedTuple):  # a view of a storage; `reach` is the number of elements from its first to its last
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    reach: int


class _Dict(dict[object, object]):  # keys are fast to hash and do not collide
    def __setitem__(self, key: object, value: object) -> None:
        if not isinstance(key, str) and not (isinstance(key, int) and 0 <= key < 1 << 32):
            raise UnpicklingError(f"it has a dictionary with a {_kind(key)} as a key, expected names")
        super().__setitem__(key, value)

    def __setstate__(self, state: object) -> None:
        """Drops the `_metadata` of a state_dict: which version of which layer wrote it."""


class _List(list[Any]):
    __slots__ = ()

    def __setitem__(self, key: object, value: object) -> None:
        raise UnpicklingError("it sets an item of a list, expected a dictionary")


def _build_dict(pairs: Any = None) -> _Dict:
    values = _Dict()
    if isinstance(pairs, _List):  # as Python 2 writes it
        for key, value in pairs:
            values[key] = value
        pairs.clear()  # otherwise a short program could copy one long list many times
    return values


def _build_tensor(*arguments: object) -> _Tensor:
    match arguments:
        case (_Storage() as storage, start, tuple(shape), tuple(stride), *_) if len(shape) == len(stride) <= MOST_DIMENSIONS:
            offset, sizes, steps = _size(start), [_size(size) for size in shape], [_size(step) for step in stride]
        case _:
            raise UnpicklingError("it has a tensor without a storage, or whose shape and strides do not belong together")
    reach = 0 if 0 in sizes else 1 + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if max(offset + reach, prod(sizes)) > storage.numel:
        raise UnpicklingError(f"it has a tensor of shape {_brief(str(sizes))} in a storage of {storage.numel:,} elements")
    return _Tensor(storage, offset, tuple(sizes), tuple(steps), reach)


BUILDERS: Final[dict[str, _Builder | torch.dtype]] = {
    "collections.OrderedDict": _Builder(_build_dict), "minisbert.list": _Builder(lambda: _List()),  # noqa: PLW0108
    "torch.Size": _Builder(lambda shape=(): shape), "torch._utils._rebuild_parameter": _Builder(lambda tensor, *_: tensor),
    "torch._utils._rebuild_tensor": _Builder(_build_tensor), "torch._utils._rebuild_tensor_v2": _Builder(_build_tensor),
    "torch.DoubleStorage": torch.float64, "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16, "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64, "torch.IntStorage": torch.int32, "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8, "torch.ByteStorage": torch.uint8, "torch.BoolStorage": torch.bool,
}  # fmt: skip
"""The names that a program may use, and their values."""


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        found = _brief(str(value)) if isinstance(value, int) else f"a {_kind(value)}"
        raise UnpicklingError(f"it has {found} where a size belongs")
    return value


def _kind(value: object) -> str:
    return type(value).__name__.strip("_").lower()


def _brief(text: str) -> str:
    """A text from the file, shortened and printable, for a message of one line."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text[:120])
    return text if len(text) <= 100 else text[:97] + "..."
