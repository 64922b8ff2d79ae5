"""The two checkpoints of real size, loaded by both sides."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import minisbert
from parity.compare import BERT_BASE, MINILM, Bounds
from parity.reference import Reference


class Both(NamedTuple):
    """One checkpoint, loaded by either side, and how close they must come."""

    encoder: minisbert.SentenceEncoder
    reference: Reference
    bounds: Bounds


@pytest.fixture(scope="package", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(scope="package")
def minilm(minilm_folder: Path, dtype: torch.dtype) -> Both:
    return Both(minisbert.load(minilm_folder, dtype=dtype), Reference(minilm_folder, dtype), MINILM[dtype])


@pytest.fixture(scope="package")
def bert_base(bert_base_folder: Path, dtype: torch.dtype) -> Both:
    return Both(minisbert.load(bert_base_folder, dtype=dtype), Reference(bert_base_folder, dtype), BERT_BASE[dtype])
