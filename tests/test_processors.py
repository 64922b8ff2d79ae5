"""What must hold on every processor: tests of parity, bits and scores, once more with the instruction sets of lesser ones.

They are those marked `every_processor`, but for the slower half in float64, and for texts that are a matter of the tokenizer alone.
`pytest -m every_processor` under the same variables runs them all.

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
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX", "MKL_ENABLE_INSTRUCTIONS": "AVX"},
    "sse4": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}

# One thread, since three of these processes may share two cores with others. The tests of bits set both one and two by themselves.
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_promises_hold_on_a_lesser_processor(processor: str, sts_folder: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    chosen = ["-m", "every_processor", "-k", "not (float64 or unicode or beyond)"]
    options = ["-q", "-n0", "-p", "no:cacheprovider", "-p", "no:randomly", *chosen]
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.every_processor" in path.read_text("utf-8")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, sorted(files))],
        cwd=ROOT, env=inherited | PROCESSORS[processor] | THREADS, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
