"""What the tests of the command share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> str:
    """A small model, as it is given to `--model`."""
    return str(tiny_folder)
