"""A small model for all tests of corpora."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from checkpoints import save_tiny
from filelock import FileLock


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with 32 dimensions, made once for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "tiny-of-corpus"
    with FileLock(shared / "tiny-of-corpus.lock"):
        if not (folder / "modules.json").is_file():
            save_tiny(folder)
    return folder
