"""Checks vectors that a caller passes, and converts them to tensors: torch, numpy, lists of either, blocks of a large corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from minisbert.errors import imported

if TYPE_CHECKING:
    import numpy as np

Vectors: TypeAlias = "Tensor | np.ndarray[Any, Any] | Sequence[Any]"
"""[rows, dim], or a single [dim]: a tensor, anything that numpy converts to an array, or a list of vectors."""


def as_matrices(a: Vectors, b: Vectors) -> tuple[Tensor, Tensor]:
    """Two checked matrices [rows, dim] of the same dimension, dtype and device."""
    first, second = as_matrix("a", a), as_matrix("b", b)
    check_same_width("a", first, "b", second)
    if first.device != second.device:
        raise ValueError(f"found a on {first.device} and b on {second.device}, expected one device. Move one with .to().")
    first, second = check_finite("a", first), check_finite("b", second)
    if not len(first) or not len(second):  # an empty list has no width of its own
        width = max(first.shape[1], second.shape[1])
        first, second = (matrix if len(matrix) else matrix.new_zeros(0, width) for matrix in (first, second))
    dtype = torch.promote_types(first.dtype, second.dtype)
    return first.to(dtype), second.to(dtype)


def as_pairs(a: Vectors, b: Vectors) -> tuple[Tensor, Tensor]:
    """Two checked matrices [rows, dim] with equal numbers of rows; a single vector stays [dim]."""
    first, second = as_matrices(a, b)
    single_a, single_b = _is_vector(a), _is_vector(b)
    if not single_a and not single_b and len(first) != len(second):
        raise ValueError(f"found {len(first)} rows in a and {len(second)} in b, expected equal numbers, or one vector [dim].")
    return first[0] if single_a else first, second[0] if single_b else second


def _is_vector(value: Any) -> bool:
    shape = getattr(value, "shape", None)
    if shape is None:
        return len(value) > 0 and isinstance(value[0], (int, float))
    return len(shape) == 1 and shape[0] > 0 and str(getattr(value, "dtype", None)) != "object"


def check_same_width(name_a: str, a: Any, name_b: str, b: Any) -> None:
    """Refuses vectors of different dimensions."""
    empty = any(tuple(matrix.shape) == (0, 0) for matrix in (a, b))
    if a.shape[1] != b.shape[1] and not empty:
        raise ValueError(
            f"found vectors of {a.shape[1]} dimensions in {name_a} and of {b.shape[1]} in {name_b}, expected equal dimensions. "
            "Do both come from the same model?"
        )


def blocks_of(name: str, matrix: Any, size: int, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
    """Yields blocks [at most size, dim] of a matrix, each after the index of its first row."""
    for start in range(0, len(matrix), size):
        yield start, as_matrix(name, matrix[start : start + size]).to(dtype)


def check_finite(name: str, vectors: Tensor, first: int = 0) -> Tensor:
    """Returns the vectors [rows, dim], or raises a ValueError that names a row with NaN or infinity, counted from `first`."""
    if not all_finite(vectors):
        finite = vectors.isfinite().all(dim=1)
        row = int(finite.int().argmin())
        wrong = vectors[row][~vectors[row].isfinite()][0].item()
        raise ValueError(f"{name}: row {first + row} holds {wrong}, expected finite values only.")
    return vectors


def all_finite(values: Tensor) -> bool:
    """Whether all values are finite.

    A finite sum proves it, and takes a tenth of the time of checking each value. Only if the sum is not finite, which may also be
    an overflow, each value is checked.
    """
    return bool(values.detach().sum().isfinite()) or bool(values.isfinite().all())


def as_sliceable(name: str, value: Vectors) -> Any:
    """A matrix [rows, dim] for `blocks_of`. An array is not converted, so that a memory-mapped one is read block by block."""
    if not isinstance(value, Tensor) and _is_array(value):
        array = _as_array(name, value)
        if array.ndim == 2:
            as_matrix(name, array[:0])  # refuses a wrong dtype before the first block
            return array
    elif isinstance(value, Tensor) and value.dim() == 2 and value.layout == torch.strided:
        return value
    return as_matrix(name, value)


def as_matrix(name: str, value: Vectors) -> Tensor:
    """The caller's vectors as [rows, dim], float32 or float64."""
    vectors = _tensor(name, value)
    if vectors.layout != torch.strided:
        raise TypeError(f"{name}: found a sparse tensor, expected a dense one. Convert it with .to_dense().")
    if vectors.dtype == torch.bool or vectors.is_complex():
        raise TypeError(f"{name}: found {vectors.dtype}, expected numbers such as torch.float32.")
    if vectors.shape == (0,):
        vectors = vectors.view(0, 0)
    if vectors.dim() == 1:
        vectors = vectors[None]
    if vectors.dim() != 2:
        raise ValueError(f"{name}: found the shape {list(vectors.shape)}, expected [rows, dim], or [dim] for one vector.")
    if len(vectors) and not vectors.shape[1]:
        raise ValueError(f"{name}: found {len(vectors)} vectors without dimensions, expected [rows, dim].")
    return vectors if vectors.dtype == torch.float64 else vectors.float()


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, str):
        raise TypeError(
            f"{name}: found str, expected a tensor, an array, or a list of vectors. Encode texts first, with minisbert.encode."
        )
    if _is_array(value):
        array = _as_array(name, value)
        if array.dtype != object:
            try:
                # torch warns about read-only arrays, and refuses negative strides and foreign byte orders
                plain = array.flags.writeable and array.dtype.isnative and all(stride >= 0 for stride in array.strides)
                return torch.from_numpy(array if plain else array.astype(array.dtype.newbyteorder("=")))
            except TypeError as error:
                raise TypeError(f"{name}: found an array of {array.dtype}, expected numbers such as float32.") from error
        value = list(array)  # such as a pandas.Series of vectors
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name}: found {type(value).__name__}, expected a tensor, an array, or a list of vectors.")
    if all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in value):
        return torch.tensor(value, dtype=torch.float32)
    rows = [_tensor(f"{name}[{index}]", row) for index, row in enumerate(value)]
    for index, row in enumerate(rows):
        if row.shape != rows[0].shape or row.device != rows[0].device:
            raise ValueError(
                f"{name}[{index}]: found {list(row.shape)} on {row.device}, expected what {name}[0] is, {list(rows[0].shape)} on "
                f"{rows[0].device}."
            )
    dtype = rows[0].dtype
    for row in rows:
        dtype = torch.promote_types(dtype, row.dtype)
    return torch.stack([row.to(dtype) for row in rows])


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, (list, tuple))


def _as_array(name: str, value: Any) -> Any:
    return imported("numpy", "numpy", f"{name}: found {type(value).__name__}, but ", ", or pass a tensor").asarray(value)
