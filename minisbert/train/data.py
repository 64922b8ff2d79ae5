"""Training data: columns of texts, a label for each row, and the batches of an epoch."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from minisbert.errors import imported, warn
from minisbert.files.lines import column_index, json_values, numbered, table_cells
from minisbert.inference.inputs import check_text

NLI_LABELS = {"contradiction": 0, "entailment": 1, "neutral": 2}
"""The classes of SNLI, MultiNLI and SICK in the order of sentence-transformers. Upper and lower case are one."""

NO_GOLD_LABEL = "-"
"""The label of SNLI and MultiNLI where the annotators did not agree; such rows are left out, as in their papers."""


@dataclass(frozen=True)
class Examples:
    """Rows of texts, as columns.

    Attributes:
        columns: one list for each column of texts, of equal length.
        labels: [rows], or [rows, dim] of teacher's vectors; None if there are none.
    """

    columns: list[list[str]]
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.columns[0])

    def digest(self) -> str:
        """The sha256 of all texts and labels: equal for equal data in the same order."""
        sha = hashlib.sha256()
        for column in self.columns:
            for text in column:
                data = text.encode()
                sha.update(len(data).to_bytes(8, "little") + data)
        if self.labels is not None:
            for row in self.labels.double().flatten().split(65_536):
                sha.update(repr(row.tolist()).encode())
        return sha.hexdigest()


ExamplesLike: TypeAlias = Examples | Mapping[str, Any] | Sequence[Sequence[Any]]


def as_examples(examples: ExamplesLike) -> Examples:
    """Examples from rows, from columns, or as they are.

    Args:
        examples: rows such as ("a text", "another", 0.8), the label last if there is one; or a mapping of columns by name, such as
            {"sentence1": […], "sentence2": […], "score": […]}, whose one column of numbers is the label.

    Raises:
        TypeError: if it is neither, or a cell is no text where one is expected.
        ValueError: if there is no row, a text is empty, or rows or columns differ in length.

    >>> as_examples([("a", "b", 0.5), ("c", "d", 1.0)])
    Examples(columns=[['a', 'c'], ['b', 'd']], labels=tensor([0.5000, 1.0000]))
    """
    if isinstance(examples, Examples):
        return examples
    if isinstance(examples, Mapping):
        columns = {name: column if isinstance(column, Tensor) else list(column) for name, column in examples.items()}
    elif isinstance(examples, Sequence) and not isinstance(examples, (str, bytes)):
        width = len(examples[0]) if examples and isinstance(examples[0], Sequence) else 0
        for row, cells in enumerate(examples):
            if isinstance(cells, (str, bytes)) or not isinstance(cells, Sequence) or len(cells) != width:
                raise ValueError(f"examples: row {row}: found {cells!r:.80}, expected a tuple of {width or 'one or more'} cells.")
        columns = {f"column {index}": [row[index] for row in examples] for index in range(width)}
    else:
        raise TypeError(f"examples: found {type(examples).__name__}, expected a list of rows or a dict of columns.")
    lengths = {name: len(column) for name, column in columns.items()}
    if not all(lengths.values()) or len(set(lengths.values())) != 1:
        raise ValueError(f"examples: found columns of {lengths or 'no'} rows, expected the same number in each, at least one.")
    texts = {name: column for name, column in columns.items() if isinstance(column, list) and isinstance(column[0], str)}
    others = [name for name in columns if name not in texts]
    if len(others) > 1 or not texts:
        raise ValueError(f"examples: found {len(texts)} columns of texts and {len(others)} others, expected texts and one label.")
    for name, column in texts.items():
        for row, text in enumerate(column):
            if not check_text(text, f"examples: row {row}, {name}").strip():
                raise ValueError(f"examples: row {row}, {name}: found an empty text, expected some. Leave the row out.")
    return Examples(list(texts.values()), _labels(columns[others[0]], others[0]) if others else None)


def _labels(values: Any, name: str) -> Tensor:
    """The labels as a tensor: float32, or int64 if all are integers."""
    if isinstance(values, Tensor):
        return values.detach().cpu()
    for row, value in enumerate(values):
        if not isinstance(value, (int, float, Sequence, Tensor)) or isinstance(value, str):
            raise TypeError(f"examples: row {row}, {name}: found {value!r:.80}, expected a number like the others.")
    if isinstance(values[0], Tensor):
        return torch.stack(list(values))
    found = torch.tensor(values)
    return torch.tensor(values, dtype=torch.float32) if found.is_floating_point() else found  # whatever the default dtype is


def read_examples(
    path: str | os.PathLike[str],
    texts: Sequence[str],
    label: str | None = None,
    *,
    classes: Mapping[str, int] | None = None,
    max_score: float = 1.0,
    skip_empty: bool = False,
) -> Examples:
    """Reads a file with named columns. SNLI's and MultiNLI's .jsonl files are read as they are published.

    Args:
        path: .tsv (UTF-8, a first line with the names, no quotes), .jsonl (an object a line) or .parquet. Empty lines are skipped.
        texts: the columns of texts, such as ("sentence1", "sentence2").
        label: the column of the label, such as "score" or "gold_label"; None: no labels.
        classes: the id of each class that the label column names. Default: `NLI_LABELS`. Rows with the class "-" are left out.
        max_score: what numbers are divided by: 5.0 brings scores from 0 to 5 to the 0 to 1 that `CosineSimilarityLoss` wants.
        skip_empty: leave rows with an empty text out, with a warning, instead of raising an error.

    Returns:
        A column of texts for each name in `texts`, and the labels.

    Raises:
        ValueError: naming the file and the line, for what is not of that form.
        OSError: if it cannot be read.
        MissingExtraError: if it is .parquet and pyarrow is missing.
    """
    file = Path(path)
    readers = {".tsv": _tsv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    if file.suffix.lower() not in readers:
        raise ValueError(f"{file}: found {file.suffix or 'no suffix'!r}, expected one of {', '.join(readers)}.")
    wanted = [*texts, *([label] if label is not None else [])]
    known = {name.lower(): number for name, number in (NLI_LABELS if classes is None else classes).items()}
    columns: list[list[str]] = [[] for _ in texts]
    labels: list[float] = []
    left_out = {"no gold label": 0, "an empty text": 0}
    for place, cells in readers[file.suffix.lower()](file, wanted):
        row = [check_text(cell, f"{place}, column {name!r}") for name, cell in zip(texts, cells, strict=False)]
        if label is not None and cells[-1] == NO_GOLD_LABEL:
            left_out["no gold label"] += 1
            continue
        empty = [name for name, text in zip(texts, row, strict=True) if not text.strip()]
        if empty and not skip_empty:
            raise ValueError(f"{place}, column {empty[0]!r}: found an empty text. Remove the row, or leave it out with skip_empty.")
        if empty:
            left_out["an empty text"] += 1
            continue
        if label is not None:
            labels.append(_label(cells[-1], known, max_score, f"{place}, column {label!r}"))
        for column, text in zip(columns, row, strict=True):
            column.append(text)
    for reason, count in left_out.items():
        if count:
            warn(f"{file}: {count} rows with {reason} are left out.")
    if not columns[0]:
        raise ValueError(f"{file}: found no rows, expected at least one.")
    integers = all(isinstance(value, int) for value in labels)
    numbers = torch.tensor(labels, dtype=torch.int64 if integers else torch.float32) if label is not None else None
    return Examples(columns, numbers)


def _label(cell: Any, classes: Mapping[str, int], max_score: float, place: str) -> float:
    if isinstance(cell, str) and cell.strip().lower() in classes:
        return classes[cell.strip().lower()]
    try:
        number = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        expected = " or one of ".join(filter(None, ("a finite number", ", ".join(map(repr, classes)))))
        raise ValueError(f"{place}: found {cell!r:.80}, expected {expected}.")
    whole = max_score == 1 and number.is_integer() and "." not in str(cell)
    return int(number) if whole else number / max_score


Rows: TypeAlias = Iterator[tuple[str, list[Any]]]
"""Where a row stands, in words, and its cells in the wanted order."""


def _tsv_rows(path: Path, wanted: Sequence[str]) -> Rows:
    with path.open("rb") as file:
        yield from table_cells(numbered(file, str(path)), str(path), wanted, "\t", quoted=False)


def _jsonl_rows(path: Path, wanted: Sequence[str]) -> Rows:
    with path.open("rb") as file:
        for place, row in json_values(numbered(file, str(path)), str(path)):
            if not isinstance(row, dict):
                raise ValueError(f"{place}: found {type(row).__name__}, expected an object with named fields.")
            for name in wanted:
                column_index(name, list(row), place)
            yield place, [row[name] for name in wanted]


def _parquet_rows(path: Path, wanted: Sequence[str]) -> Rows:
    arrow, parquet = (imported(name, "pyarrow", f"{path}: ", ", or use .tsv or .jsonl") for name in ("pyarrow", "pyarrow.parquet"))
    try:
        with parquet.ParquetFile(path) as file:
            for name in wanted:
                column_index(name, file.schema_arrow.names, str(path))
            number = 0
            for batch in file.iter_batches(columns=list(wanted)):
                for row in batch.to_pylist():
                    yield f"{path}, row {number}", [row[name] for name in wanted]
                    number += 1
    except arrow.ArrowException as error:
        raise ValueError(f"{path}: the parquet file is broken ({str(error).rstrip('.')}). Replace it.") from error


def batches(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int, keys: Sequence[Iterable[str]] | None = None
) -> list[list[int]]:
    """The rows of each batch of an epoch: in random order, yet of about equal cost.

    Rows are sorted by length and divided into strata of neighbours; each batch draws one row from each stratum. So every batch
    has short and long texts, and the largest one needs hardly more memory than the others. All have the same number of rows, give
    or take one. The order depends on the arguments alone, so an interrupted run finds its place again.

    Args:
        lengths: tokens of each row, all its texts together.
        batch_size: the most rows of one batch.
        seed: of the run.
        epoch: from 0.
        keys: the texts of each row, if no text may stand in a batch twice. A row that would bring one waits for a later batch, so
            that there may be a few more and smaller batches.

    >>> batches([1, 2, 3, 4, 50, 60], batch_size=3, seed=0, epoch=0)
    [[3, 5, 1], [4, 2, 0]]
    """
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    count = -(-len(lengths) // batch_size)
    shuffled = torch.randperm(len(lengths), generator=generator)  # equal lengths are in random order
    by_length = shuffled[torch.tensor(lengths)[shuffled].argsort(stable=True)]
    drawn: list[list[int]] = [[] for _ in range(count)]
    for stratum in by_length.split(count):
        for batch, row in zip(torch.randperm(count, generator=generator).tolist(), stratum.tolist(), strict=False):
            drawn[batch].append(row)
    for batch in drawn:
        batch[:] = [batch[place] for place in torch.randperm(len(batch), generator=generator).tolist()]
    return drawn if keys is None else _without_duplicates([row for batch in drawn for row in batch], batch_size, keys)


def _without_duplicates(rows: Iterable[int], batch_size: int, keys: Sequence[Iterable[str]]) -> list[list[int]]:
    """Fills batches in the order of the rows; a row whose text is in the batch already waits for the next."""
    waiting = dict.fromkeys(rows)
    filled = []
    while waiting:
        batch: list[int] = []
        texts: set[str] = set()
        for row in waiting:
            mine = set(keys[row])
            if texts.isdisjoint(mine):
                batch.append(row)
                texts |= mine
                if len(batch) == batch_size:
                    break
        for row in batch:
            del waiting[row]
        filled.append(batch)
    return filled
