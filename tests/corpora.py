"""Small corpora in several formats, and what an output folder holds."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from checkpoints import TINY_VOCAB


def sentences(number: int, seed: int = 0) -> list[str]:
    """Sentences of 2 to 9 words that the small model knows, all different by a number at the end."""
    rng = random.Random(seed)
    words = [word for word in TINY_VOCAB if word.isalpha()]
    return [f"{' '.join(rng.choices(words, k=2 + n % 8))} {n}" for n in range(number)]


def write_parquet(path: Path, texts: list[str | None], first: int = 0, **options: object) -> None:
    """Ids p0, p1, … from `first` on, the texts, and their numbers."""
    numbers = list(range(first, first + len(texts)))
    table = pa.table({"id": [f"p{n}" for n in numbers], "text": pa.array(texts, pa.string()), "number": numbers})
    pq.write_table(table, path, **options)


def write_jsonl(path: Path, texts: list[str | None], first: int = 0) -> None:
    """The same as a json object a line, compressed if the name ends in .gz."""
    rows = [{"id": f"p{first + n}", "text": text, "number": first + n} for n, text in enumerate(texts)]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its path inside."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
