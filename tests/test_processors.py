"""What must hold on every processor: tests of parity, bits and scores, once more with the instruction sets of lesser ones.

They are those marked `every_processor`, but for the slower half in float64. `pytest -m every_processor` under the same variables
runs them all.

Which instructions PyTorch, oneDNN and MKL use is decided when they start, by environment variables, so each run is a process. On a
machine that has less, a variable that asks for more changes nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PROCESSORS = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "threads": "2"},
    "avx": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX", "MKL_ENABLE_INSTRUCTIONS": "AVX", "threads": "2"},
    "sse4": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "threads": "1"},
}


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_promises_hold_on_a_lesser_processor(processor: str, sts_folder: Path) -> None:
    settings = PROCESSORS[processor]
    variables = {name: value for name, value in settings.items() if name != "threads"} | {"OMP_NUM_THREADS": settings["threads"]}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    options = ["-q", "-m", "every_processor", "-k", "not float64", "-n0", "-p", "no:cacheprovider", "-p", "no:randomly"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/parity", "tests/inference", "tests/test_util.py"],
        cwd=ROOT, env=inherited | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
