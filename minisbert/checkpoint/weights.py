"""Reads weight files. All tensors are checked before the first is used, and each is read directly into its parameter."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from minisbert.bert import Bert
from minisbert.checkpoint.families import FAMILIES, current_name, is_ignored, is_superfluous, names
from minisbert.checkpoint.fields import Fields, Find, MissingFileError, brief, inside, listed, read_fields
from minisbert.errors import CheckpointError, rust_errors

FLOATS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip


LARGEST_VALUE = 1e6
"""Larger weights are refused. Those of published models are below 100."""

# The prefixes that DataParallel, torch.compile, FSDP, training frameworks and SentenceTransformer add to the names of weights.
WRAPPER = re.compile(r"((module|_orig_mod|_fsdp_wrapped_module|model|auto_model|0)\.)+")


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file, not read yet. `dtype` is None unless it is floating-point; `kind` is the dtype's name in the file."""

    name: str
    file: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None
    kind: str
    read: Callable[[], Tensor]


def load_weights(bert: Bert, stored: Iterable[StoredTensor], dtype: torch.dtype = torch.float32) -> list[str]:
    """Checks all tensors strictly, then loads them into a model that was built on the meta device.

    One tensor is read at a time, so memory holds the weights once. Values are converted to `dtype`. Widening
    half precision is exact; rounding float64 to float32 gives a load warning.

    Returns:
        The load warnings.

    Raises:
        CheckpointError: lists every tensor that is missing, not finite, not floating-point, given twice, or of a wrong shape.
    """
    family = FAMILIES[bert.config.model_type]
    table = names(bert.config)
    stored = list(stored)
    wrapper, hint = _wrapper_of([tensor.name for tensor in stored], [name for row in table.values() for name in row], family.prefix)
    found: dict[str, StoredTensor] = {}
    problems: list[str] = []
    for tensor in stored:
        name = current_name(tensor.name.removeprefix(wrapper), family.prefix)
        if name in found:
            problems.append(f"{tensor.name}: the same tensor as {found[name].name}; expected one of the two")
        found[name] = tensor

    expected = {name: parameter.shape for name, parameter in bert.named_parameters()}
    for ours, theirs in table.items():
        rows = expected[ours][0] // len(theirs)
        shape = (rows, *expected[ours][1:])
        for name in theirs:
            if name not in found:
                problems.append(f"{wrapper}{name} (here {ours}): missing, expected {list(shape)}")
            elif found[name].shape != shape:
                problems.append(f"{found[name].name} (here {ours}): found {list(found[name].shape)}, expected {list(shape)}")
            elif found[name].dtype is None:
                problems.append(f"{found[name].name} (here {ours}): found {found[name].kind}, expected floating-point numbers")
    for name, tensor in found.items():
        if is_superfluous(name, bert.config):
            problems.append(f"{tensor.name}: found {list(tensor.shape)}, expected no such tensor in {family.name}")
    if problems:
        raise _complaint(problems, found.values(), hint=hint)

    state = {}
    for ours, theirs in table.items():
        whole = torch.empty(expected[ours], dtype=dtype)
        parts = whole.chunk(len(theirs))
        for place, name in enumerate(theirs):
            parts[place].copy_(found[name].read().reshape(parts[place].shape))
        if wrong := non_finite(whole):
            problems.append(f"{', '.join(theirs)} (here {ours}): {wrong}")
        state[ours] = whole
    if problems:
        raise _complaint(problems, found.values())
    bert.load_state_dict(state, assign=True)

    used = {name for theirs in table.values() for name in theirs}
    load_warnings = []
    if wrapper:
        load_warnings.append(f"the names of the weights begin with {wrapper!r}, as a wrapper such as DataParallel leaves them")
    unused = [found[name].name for name in found if name not in used and not is_ignored(name)]
    if unused:
        load_warnings.append(f"the checkpoint has tensors that are not used: {listed(unused)}")
    if dtype == torch.float32 and any(found[name].dtype == torch.float64 for name in used):
        load_warnings.append(
            "the checkpoint's weights are float64 and were rounded to float32; ask for dtype=torch.float64 to keep them"
        )
    return load_warnings


def _wrapper_of(stored: Sequence[str], needed: Sequence[str], own: str) -> tuple[str, str]:
    """The prefix that a wrapper added to all names of a file, or ""; and a hint for the error if the prefix is unknown.

    Args:
        stored: the names in the file.
        needed: the names that the model needs; the first is that of the word embeddings.
        own: the family's own prefix, which may follow.

    >>> _wrapper_of(["module.bert.embeddings.weight", "module.cls.bias"], ["embeddings.weight"], "bert.")
    ('module.', '')
    """
    if not {current_name(name, own) for name in stored}.isdisjoint(needed):
        return "", ""
    prefixes = sorted({name.removesuffix(needed[0]).removesuffix(own) for name in stored if name.endswith(f".{needed[0]}")})[:8]
    if len(prefixes) == 1 and WRAPPER.fullmatch(prefixes[0]):
        return prefixes[0], ""
    complete = [
        brief(prefix)
        for prefix in prefixes
        if {current_name(name.removeprefix(prefix), own) for name in stored if name.startswith(prefix)}.issuperset(needed)
    ]
    if not complete:
        return "", ""
    return "", f" All are there with the prefix {' and with '.join(complete)}; save the state_dict() of that module alone."


def load_module(module: nn.Module, stored: Sequence[StoredTensor], dtype: torch.dtype, config: str) -> list[str]:
    """`load_weights` for a module of `pooling.build_modules`, whose tensors have the checkpoint's own names.

    `stored` are the tensors in the module's folder; `config` is the file that gave the shapes, for messages.
    """
    found = {tensor.name: tensor for tensor in stored}
    problems = []
    state = {}
    for name, parameter in module.named_parameters():
        if name not in found:
            problems.append(f"{name}: missing, expected {list(parameter.shape)}")
        elif found[name].shape != parameter.shape:
            problems.append(f"{name}: found {list(found[name].shape)}, expected {list(parameter.shape)}")
        elif found[name].dtype is None:
            problems.append(f"{name}: found {found[name].kind}, expected floating-point numbers")
        else:
            state[name] = found[name]
    values = {} if problems else {name: tensor.read().to(dtype) for name, tensor in state.items()}
    problems += [f"{name}: {wrong}" for name, value in values.items() if (wrong := non_finite(value))]
    if problems:
        raise _complaint(problems, found.values(), config)
    module.load_state_dict({name: value.clone() for name, value in values.items()}, assign=True)
    unused = [name for name in found if name not in values]
    return [f"{found[unused[0]].file} has tensors that are not used: {listed(unused)}"] if unused else []


def non_finite(values: Tensor) -> str:
    """What is wrong with the values of a parameter, or "".

    A flipped bit can make a value huge, and then every vector is infinite or NaN.
    """
    low, high = (float(end) for end in values.aminmax())  # NaN, if one is among them
    if -LARGEST_VALUE <= low <= high <= LARGEST_VALUE:
        return ""
    what = "NaN or infinite values" if not math.isfinite(low) or not math.isfinite(high) else f"values from {low:.3g} to {high:.3g}"
    return f"found {what}, expected finite values of at most {LARGEST_VALUE:,.0f}"


def _complaint(problems: list[str], found: Iterable[StoredTensor], config: str = "config.json", hint: str = "") -> CheckpointError:
    files = sorted({tensor.file for tensor in found}) or ["the weights"]
    return CheckpointError(
        f"{listed(files)}: {len(problems)} of the tensors are not what {config} asks for. The weights and {config} must come "
        f"from the same model; take an unchanged copy of both.{hint}\n  " + _lines(problems)
    )


def _lines(problems: list[str], most: int = 40) -> str:
    more = [f"… and {len(problems) - most} more"] if len(problems) > most else []
    return "\n  ".join([*problems[:most], *more])


SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"

MOST_SHARDS = 1 << 10

SHARD_NAME = re.compile(r"\w[\w.-]{0,200}", re.ASCII)


def open_weights(find: Find, folder: str) -> list[StoredTensor]:
    """The tensors in a folder of a checkpoint, none of them read yet. Nothing in a file is ever run.

    The first of these that exists is used, as in transformers: `model.safetensors`, its shards (`model.safetensors.index.json`),
    `pytorch_model.bin`, its shards.

    Raises:
        CheckpointError: if there is no such file, a file is broken, or shards disagree with their index.
    """
    for name in SAFETENSORS, PICKLED:
        file = inside(folder, name)
        if (path := find(file)) is not None:
            return open_file(path, file)
        if (index := read_fields(find, f"{file}.index.json")) is not None:
            return _open_shards(find, folder, index)
    raise MissingFileError(
        f"{inside(folder, SAFETENSORS)} and {inside(folder, PICKLED)}: neither is in the checkpoint, nor an index of "
        "shards (.index.json), expected one of them. Add the weights, or download the checkpoint again.",
        folder,
    )


def open_file(path: Path, file: str) -> list[StoredTensor]:
    """The tensors of one file, whose format is known by its suffix."""
    with path.open("rb") as opened:
        head = opened.read(10)
    for found, what, remedy in (
        (not head, "an empty file", "Download it again."),
        (head[8:] == b'{"' and file.endswith(".bin"), "a safetensors file", "Name it model.safetensors."),
    ):
        if found:
            raise CheckpointError(f"{file}: found {what}, expected the weights. {remedy}")
    tensors = list(_open_safetensors(path, file) if file.endswith(".safetensors") else _open_pickled(path, file))
    if not tensors:
        raise CheckpointError(f"{file}: found no tensors, expected the weights of the model. Take an unchanged copy of it.")
    return tensors


def _open_shards(find: Find, folder: str, index: Fields) -> list[StoredTensor]:
    """Weights in several files, whose index says which file holds which tensor. Index and files must agree on every tensor."""
    where = index.values.get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(shard, str) for shard in where.values()):
        index.refuse("weight_map", "an object that gives for each tensor the name of its file")
    ending = ".safetensors" if SAFETENSORS in index.file else ".bin"
    shards = sorted(set(where.values()))
    for shard in shards:
        if not SHARD_NAME.fullmatch(shard) or not shard.endswith(ending):
            raise CheckpointError(
                f"{index.file}: field 'weight_map': found the file name {brief(shard)}, expected the plain name of a {ending} file "
                "beside it. Take an unchanged copy of the checkpoint."
            )
    if len(shards) > MOST_SHARDS:
        raise CheckpointError(
            f"{index.file}: found {len(shards):,} shards, expected at most {MOST_SHARDS:,}. Take an unchanged copy."
        )

    problems = []
    stored = []
    for shard in shards:
        file = inside(folder, shard)
        path = find(file)
        if path is None:
            problems.append(f"{file}: no such file")
            continue
        tensors = open_file(path, file)
        stored.extend(tensors)
        there = {tensor.name for tensor in tensors}
        listed = {name for name, place in where.items() if place == shard}
        problems.extend(f"{brief(name)}: listed for {file}, but not in it" for name in sorted(listed - there))
        for name in sorted(there - listed):
            place = where.get(name)
            problems.append(f"{brief(name)}: in {file}, but " + (f"listed for {place}" if place else "not listed"))
    if problems:
        raise CheckpointError(
            f"{index.file}: {len(problems)} entries disagree with the files. All shards and their index must come from the same "
            "checkpoint; take an unchanged copy of all.\n  " + _lines(problems)
        )
    return stored


def _open_safetensors(path: Path, file: str) -> Iterable[StoredTensor]:
    def reader(name: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            # The file is opened again for each tensor. An open file is mapped into memory, and the pages that were read stay there
            # until it is closed, so memory would hold the weights twice.
            with rust_errors(complaint), safe_open(path, framework="pt") as opened:
                return opened.get_tensor(name)

        return read

    def complaint(reason: str) -> CheckpointError:
        return CheckpointError(
            f"{file}: not a safetensors file that can be read ({reason}). It may be truncated or damaged; download it again."
        )

    with rust_errors(complaint), safe_open(path, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 (not a dict)
            header = opened.get_slice(name)
            kind = header.get_dtype()
            yield StoredTensor(name, file, tuple(header.get_shape()), FLOATS.get(kind), kind, reader(name))


def _open_pickled(path: Path, file: str) -> Iterable[StoredTensor]:
    from minisbert.checkpoint.pickle_reader import open_pickled  # imported only when there is such a file

    for tensor in open_pickled(path, file):
        floating = tensor.dtype if tensor.dtype in FLOATS.values() else None
        kind = str(tensor.dtype).removeprefix("torch.")
        yield StoredTensor(tensor.name, file, tensor.shape, floating, kind, tensor.read)


def checksum(*parts: nn.Module) -> int:
    """The sum of all weights' bits, read as integers: it changes with any weight, and is exact in any order of addition."""
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    weights = (weight for part in parts for weight in chain(part.parameters(), part.buffers()))  # int8 layers have buffers
    return sum(int(weight.view(kinds[weight.element_size()]).sum()) for weight in weights)
