"""PyTorch's `.bin` files, read without running them.

A `.bin` file is a pickle: a program for a small stack machine, whose opcodes may call any function that Python can import. That is
how a checkpoint takes over a computer. Here the program is *interpreted* and nothing more: the machine below knows the two dozen
opcodes that describe tensors, and every name in the program is a mere label that is looked up in a table of eight. What is not in
the table is refused by its name. Nothing is imported, and nothing is called. This depends on no version of PyTorch.

Three containers have held such pickles:

    zip      since PyTorch 1.6    <name>/data.pkl is the program, <name>/data/<key> the numbers, uncompressed
    stream   until PyTorch 1.5    a magic number, a version, the writer's machine, the program, the keys; then the numbers
    tar      until PyTorch 0.1    `storages` with the numbers, `tensors` with the shapes, `pickle` with the program

Numbers are read when they are asked for, one tensor at a time.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Final, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from minisbert.errors import CheckpointError

MOST_OPCODES: Final = 1 << 21
"""Of the program; a BERT of 24 layers has 20,000. It bounds the time, about two seconds."""

MOST_ENTRIES: Final = 1 << 16
"""Of a tar file."""

LONGEST_LISTING: Final = 1 << 24  # bytes
"""Of a zip file's list of entries; that of a BERT of 24 layers has 40,000."""

MOST_DIMENSIONS: Final = 64

MAGIC: Final = 0x1950A86A20F9469CFC6C
"""What the stream begins with."""

Kind = TypeVar("Kind")

STORAGES: Final = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
"""The classes of `torch` that say of what kind the numbers are."""


class PickledTensor(NamedTuple):
    """One tensor of a file, not read yet."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


class _RefusedError(Exception):
    """Why a file is not read."""


class _Name(NamedTuple):
    """What a pickle calls something it wants to have imported. A label: nothing is imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return _brief(f"{self.module}.{self.name}")


class _Storage(NamedTuple):
    """A stretch of numbers: where to find it, and which part of it is meant."""

    key: str
    dtype: torch.dtype
    numel: int
    offset: int = 0


class _Tensor(NamedTuple):
    """A view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Place:
    """Where the bytes of a storage lie in the file."""

    start: int
    size: int


def open_pickled(path: Path, file: str) -> list[PickledTensor]:
    """The tensors of a `.bin` file, under the names that the file gives them.

    Args:
        path: where the file lies.
        file: its name inside the checkpoint, for messages.

    Raises:
        CheckpointError: if it is no such file, is cut off, or names anything but plain tensors.
    """
    try:
        state, places = _open(path)
        if not isinstance(state, dict):
            raise _RefusedError(f"it holds a {_kind(state)}, expected a dictionary of tensors by name")
        tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, _Tensor)}
        _check_total(tensors, path.stat().st_size)
        return [
            PickledTensor(name, tensor.shape, tensor.storage.dtype, _reader(path, file, name, tensor, _find(name, tensor, places)))
            for name, tensor in tensors.items()
        ]
    except _RefusedError as error:
        reason = str(error)
    except MemoryError:
        reason = "it asks for more memory than there is"
    except Exception as error:
        reason = f"{type(error).__name__}: {_brief(str(error))}"
    raise CheckpointError(
        f"{file}: not a file of plain PyTorch weights ({reason}). Only tensors are read from it, and no code in it is ever run; "
        "take an unchanged copy from a source you trust, best as model.safetensors."
    )


def _open(path: Path) -> tuple[object, dict[str, _Place]]:
    with path.open("rb") as opened:
        head = opened.read(512)
        if not head:
            raise _RefusedError("it is empty")
        if head.startswith(b"version https://git-lfs"):
            raise _RefusedError("it is a pointer of Git LFS, a note of where the weights are; download the file itself")
        if head[8:10] == b'{"':
            raise _RefusedError("it is a safetensors file; name it model.safetensors")
        if head.startswith(b"PK"):
            return _open_zip(opened)
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _open_tar(opened, content) if head[257:262] == b"ustar" else _open_stream(content)


# --- the three containers -----------------------------------------------------------------------------------------------------


def _open_zip(opened: IO[bytes]) -> tuple[object, dict[str, _Place]]:
    import io
    import zipfile

    # Python reads the whole list of entries at once, so how long it is must be known before: it says so itself, at its end, in
    # the old form (after PK 5 6), in the 64-bit form (after PK 6 6), or in both.
    size = opened.seek(0, 2)
    opened.seek(max(0, size - (1 << 16) - 200))
    end = opened.read()
    listed = 0
    for mark, place_of_size, form in (b"PK\5\6", 12, "<L"), (b"PK\6\6", 40, "<Q"):
        found = end.rfind(mark)
        if found >= 0 and len(end) >= found + place_of_size + 8:
            (length,) = struct.unpack_from(form, end, found + place_of_size)
            listed = max(listed, 0 if length == 0xFFFFFFFF else length)
    if listed > LONGEST_LISTING:
        raise _RefusedError(f"its list of entries has {listed:,} bytes, expected at most {LONGEST_LISTING:,}")

    with zipfile.ZipFile(opened) as archive:
        entries = archive.infolist()
    inside = {entry.filename.partition("/")[2]: entry for entry in entries}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise _RefusedError("it is a TorchScript archive, a program with its weights; save the weights alone, with state_dict()")
    if "data.pkl" not in inside:
        raise _RefusedError("it is a zip file without a data.pkl, as PyTorch writes it")

    def place(entry: zipfile.ZipInfo) -> _Place:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise _RefusedError(f"its entry {_brief(entry.filename)} is compressed, and PyTorch compresses nothing; save it anew")
        opened.seek(entry.header_offset)
        header = opened.read(30)
        if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
            raise _RefusedError(f"its entry {_brief(entry.filename)} is not where the list of entries says")
        name, extra = struct.unpack("<HH", header[26:30])
        return _Place(entry.header_offset + 30 + name + extra, entry.file_size)

    def read(name: str) -> bytes:
        found = place(inside[name])
        if found.start + found.size > size:
            raise _RefusedError(f"its entry {name} is cut off")
        opened.seek(found.start)
        return opened.read(found.size)

    if "byteorder" in inside and read("byteorder") != b"little":
        raise _RefusedError("its numbers are big-endian, expected little-endian")
    places = {name.removeprefix("data/"): place(entry) for name, entry in inside.items() if name.startswith("data/")}
    return _Machine(_storage_by_key).run(io.BytesIO(read("data.pkl"))), places


def _open_stream(content: mmap.mmap) -> tuple[object, dict[str, _Place]]:
    roots: dict[str, _Storage] = {}

    def storage(identity: object) -> _Storage:
        # ("storage", class, key, device, numbers, None or (key of a view, its offset, its numbers))
        if not isinstance(identity, tuple) or len(identity) != 6:
            raise _RefusedError("it refers to a storage in a way that is not PyTorch's")
        root = _storage_by_key(identity[:5])
        roots[root.key] = root
        view = identity[5]
        if view is None:
            return root
        if not isinstance(view, tuple) or len(view) != 3:
            raise _RefusedError("it refers to a part of a storage in a way that is not PyTorch's")
        return root._replace(offset=_size(view[1]), numel=_size(view[2]))

    machine = _Machine()
    if (magic := machine.run(content)) != MAGIC:
        raise _RefusedError(f"it begins with a {_kind(magic)}, expected the magic number of PyTorch")
    version, writer = machine.run(content), machine.run(content)
    if version != 1001 or not isinstance(writer, dict):
        raise _RefusedError("it is of an unknown version of PyTorch's format, expected 1001")
    if writer.get("little_endian") is not True:
        raise _RefusedError("its numbers are big-endian, expected little-endian")
    machine.load = storage
    state = machine.run(content)
    machine.load = None
    keys = machine.run(content)
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in roots for key in keys):
        raise _RefusedError("its list of storages is not the one that its tensors refer to")
    places = {}
    for key in keys:
        places[key] = _counted(content, roots[key].dtype)
    return state, places


def _open_tar(opened: IO[bytes], content: mmap.mmap) -> tuple[object, dict[str, _Place]]:
    import tarfile

    opened.seek(0)
    starts: dict[str, int] = {}
    with tarfile.open(fileobj=opened, mode="r:") as archive:
        for count, entry in enumerate(archive):
            if count > MOST_ENTRIES:
                raise _RefusedError(f"it has more than {MOST_ENTRIES:,} entries")
            if entry.isreg():
                starts[entry.name.removeprefix("./")] = entry.offset_data
    if not {"storages", "tensors", "pickle"} <= starts.keys():
        raise _RefusedError("it is a tar file without the storages, tensors and pickle of PyTorch's")

    # Every storage, view and tensor has a number, by which the others refer to it.
    machine = _Machine()
    places: dict[str, _Place] = {}
    storages: dict[int, _Storage] = {}

    def storage(number: object) -> _Storage:
        if _size(number) not in storages:
            raise _RefusedError("it refers to a storage that it does not have")
        return storages[_size(number)]

    content.seek(starts["storages"])
    for _ in range(_size(machine.run(content))):
        number, _device, kind = _row(machine.run(content), 3)
        key, dtype = str(_size(number)), _dtype(kind)
        places[key] = _counted(content, dtype)
        storages[_size(number)] = _Storage(key, dtype, places[key].size // dtype.itemsize)
    views = machine.run(content)
    for view in views if isinstance(views, list) else []:
        number, root, offset, numel = _row(view, 4)
        storages[_size(number)] = storage(root)._replace(offset=_size(offset), numel=_size(numel))

    tensors: dict[str, _Tensor] = {}
    content.seek(starts["tensors"])
    for _ in range(_size(machine.run(content))):
        number, root, _kind_of_tensor = _row(machine.run(content), 3)
        (dimensions,) = struct.unpack("<i4x", content.read(8))
        if not 0 <= dimensions <= MOST_DIMENSIONS:
            raise _RefusedError(f"it has a tensor of {dimensions} dimensions")
        numbers = struct.unpack(f"<{2 * dimensions + 1}q", content.read(8 * (2 * dimensions + 1)))
        tensors[str(_size(number))] = _tensor(storage(root), numbers[-1], numbers[:dimensions], numbers[dimensions:-1])

    def by_number(identity: object) -> _Tensor:
        if not isinstance(identity, (str, int)) or str(identity) not in tensors:
            raise _RefusedError("it refers to a tensor that it does not have")
        return tensors[str(identity)]

    machine.load = by_number
    content.seek(starts["pickle"])
    return machine.run(content), places


def _counted(content: mmap.mmap, dtype: torch.dtype) -> _Place:
    """A storage in a stream: how many numbers, in eight bytes, and the numbers."""
    (numel,) = struct.unpack("<q", content.read(8))
    size = _size(numel) * dtype.itemsize
    start = content.tell()
    if start + size > len(content):
        raise _RefusedError(f"it is cut off: a storage ends at byte {start + size:,}, and the file at {len(content):,}")
    content.seek(start + size)
    return _Place(start, size)


# --- the machine --------------------------------------------------------------------------------------------------------------


class _Machine:
    """Runs a pickle that describes tensors, and refuses any other.

    Args:
        load: what a reference to something outside of the program stands for (a storage, in the tar form a tensor).
    """

    def __init__(self, load: Callable[[object], object] | None = None) -> None:
        self.load = load
        self.steps = 0  # of all programs together
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def run(self, program: IO[bytes] | mmap.mmap) -> object:
        """What the program builds: None, numbers, texts, lists, tuples, dictionaries, labels, storages, tensors."""
        import pickletools

        self.stack, self.marks, self.memo = [], [], {}
        # Up to STOP; a program that ends without one raises a ValueError.
        for opcode, argument, _position in pickletools.genops(cast("IO[bytes]", program)):
            self.steps += 1
            if self.steps > MOST_OPCODES:
                raise _RefusedError(f"it has more than {MOST_OPCODES:,} instructions")
            if opcode.name != "STOP":
                self.step_html(opcode.name, argument)
        return self._pop(1)[0]

    def step_html(self, name: str, argument: object) -> None:
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in _GETS:
            stack.append(self.memo[int(str(argument))])
        elif name in _PUTS:
            self.memo[len(self.memo) if argument is None else int(str(argument))] = stack[-1]
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[name])))
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1 if name == "APPEND" else None)
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            pairs = self._pop(2 if name == "SETITEM" else None)
            _set(self._top(dict), pairs)
        elif name == "GLOBAL":
            module, _, label = str(argument).partition(" ")
            stack.append(_known(_Name(module, label)))
        elif name == "STACK_GLOBAL":
            names = self._pop(2)
            stack.append(_known(_Name(str(names[0]), str(names[1]))))
        elif name in ("REDUCE", "NEWOBJ"):
            function, arguments = self._pop(2)
            stack.append(_built(function, arguments))
        elif name == "BUILD":
            self._pop(1)  # the `_metadata` of a state_dict: which version of which layer wrote it
            self._top(dict)
        elif name in ("BINPERSID", "PERSID"):
            if self.load is None:
                raise _RefusedError("it refers to numbers where there can be none")
            stack.append(self.load(self._pop(1)[0] if name == "BINPERSID" else argument))
        elif name not in ("PROTO", "FRAME"):
            raise _RefusedError(f"it has the instruction {name}, which no file of plain tensors needs")

    def _pop(self, count: int | None) -> list[object]:
        """The topmost values, or those above the last mark."""
        if count is None:
            count = len(self.stack) - self.marks.pop()
        start = len(self.stack) - count
        if start < 0:
            raise _RefusedError("it takes values that were never given")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _top(self, kind: type[Kind]) -> Kind:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise _RefusedError(f"it changes a {_kind(self.stack[-1]) if self.stack else 'nothing'}, expected a {kind.__name__}")
        return self.stack[-1]


def _set(values: dict[object, object], pairs: list[object]) -> None:
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, (str, int)):  # anything else can be made to take forever to hash
            raise _RefusedError(f"it has a dictionary with a {_kind(key)} as a key, expected names")
        values[key] = value


_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS: Final = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"),
    )
)
_GETS: Final = frozenset(("GET", "BINGET", "LONG_BINGET"))
_PUTS: Final = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_TUPLES: Final = {"TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

_ORDERED_DICT: Final = _Name("collections", "OrderedDict")
_SIZE: Final = _Name("torch", "Size")
_PARAMETER: Final = _Name("torch._utils", "_rebuild_parameter")
_TENSORS: Final = (_Name("torch._utils", "_rebuild_tensor_v2"), _Name("torch._utils", "_rebuild_tensor"))
_BUILDERS: Final = {_ORDERED_DICT, _SIZE, _PARAMETER, *_TENSORS}


def _known(name: _Name) -> _Name:
    if name not in _BUILDERS and not (name.module == "torch" and (name.name in STORAGES or name.name.endswith("Tensor"))):
        raise _RefusedError(f"it names {name}, which is no part of a plain tensor")
    return name


def _built(function: object, arguments: object) -> object:
    """What a call in the program stands for. The only ones that mean anything here are those that make tensors."""
    if not isinstance(function, _Name) or function not in _BUILDERS or not isinstance(arguments, tuple):
        raise _RefusedError(f"it calls {function if isinstance(function, _Name) else 'what cannot be called'}")
    if function == _ORDERED_DICT:
        values: dict[object, object] = {}
        for pair in arguments[0] if arguments and isinstance(arguments[0], list) else []:  # lists of two, as Python 2 writes it
            _set(values, list(_row(tuple(pair) if isinstance(pair, list) else pair, 2)))
        return values
    if function == _SIZE:
        return arguments[0] if arguments else ()
    if function == _PARAMETER:
        if not arguments or not isinstance(arguments[0], _Tensor):
            raise _RefusedError("it has a parameter that is no tensor")
        return arguments[0]
    if len(arguments) < 4 or not isinstance(arguments[0], _Storage):
        raise _RefusedError("it has a tensor without numbers")
    return _tensor(*arguments[:4])


def _tensor(storage: object, offset: object, shape: object, stride: object) -> _Tensor:
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise _RefusedError("it has a tensor without a shape")
    sizes, steps = tuple(map(_size, shape)), tuple(map(_size, stride))
    if len(sizes) != len(steps) or len(sizes) > MOST_DIMENSIONS:
        raise _RefusedError("it has a tensor whose shape and strides do not belong together")
    reach = 0 if 0 in sizes else 1 + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if _size(offset) + reach > storage.numel or prod(sizes) > storage.numel:
        raise _RefusedError(f"it has a tensor of shape {list(sizes)} in a storage of {storage.numel:,} numbers")
    return _Tensor(storage, _size(offset), sizes, steps)


def _storage_by_key(identity: object) -> _Storage:
    # ("storage", class, key, device, numbers)
    if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage" or not isinstance(identity[2], str):
        raise _RefusedError("it refers to a storage in a way that is not PyTorch's")
    return _Storage(identity[2], _dtype(identity[1]), _size(identity[4]))


def _dtype(kind: object) -> torch.dtype:
    if not isinstance(kind, _Name) or kind.module != "torch" or kind.name not in STORAGES:
        raise _RefusedError("it has a storage of an unknown kind of numbers")
    return STORAGES[kind.name]


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise _RefusedError(
            f"it has a {_kind(value)} {_brief(repr(value)) if isinstance(value, (int, str)) else ''} where a size belongs"
        )
    return value


def _row(value: object, length: int) -> tuple[object, ...]:
    if not isinstance(value, tuple) or len(value) != length or not isinstance(value[0], (int, str)):
        raise _RefusedError(f"it has a {_kind(value)} where {length} values belong")
    return value


# --- the numbers --------------------------------------------------------------------------------------------------------------


def _find(name: str, tensor: _Tensor, places: dict[str, _Place]) -> _Place:
    storage = tensor.storage
    if storage.key not in places:
        raise _RefusedError(f"the numbers of {_brief(name)} are missing")
    if (storage.offset + storage.numel) * storage.dtype.itemsize > places[storage.key].size:
        raise _RefusedError(
            f"{_brief(name)} asks for {storage.offset + storage.numel:,} numbers, and the file has "
            f"{places[storage.key].size // storage.dtype.itemsize:,} for it"
        )
    return places[storage.key]


def _check_total(tensors: dict[str, _Tensor], size: int) -> None:
    # One storage may serve two tensors (the word embeddings are also the output layer of a masked-word head), but not thousands.
    total = sum(prod(tensor.shape) * tensor.storage.dtype.itemsize for tensor in tensors.values())
    if total > 4 * size:
        raise _RefusedError(f"its tensors would fill {total:,} bytes, and the file has {size:,}")


def _reader(path: Path, file: str, name: str, tensor: _Tensor, place: _Place) -> Callable[[], Tensor]:
    def read() -> Tensor:
        dtype = tensor.storage.dtype
        if 0 in tensor.shape:
            return torch.empty(tensor.shape, dtype=dtype)
        reach = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
        content = bytearray(reach * dtype.itemsize)
        with path.open("rb") as opened:
            opened.seek(place.start + (tensor.storage.offset + tensor.offset) * dtype.itemsize)
            found = opened.readinto(content)
        if found != len(content):
            raise CheckpointError(f"{file}: the numbers of {_brief(name)} are cut off. Take an unchanged copy of the file.")
        return torch.frombuffer(content, dtype=dtype).as_strided(tensor.shape, tensor.stride)

    return read


def _kind(value: object) -> str:
    return {_Name: "label", _Tensor: "tensor", _Storage: "storage"}.get(type(value), type(value).__name__)


def _brief(text: str) -> str:
    """A text out of the file, fit for a message of one line."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text[:120])
    return text if len(text) <= 100 else text[:97] + "..."
