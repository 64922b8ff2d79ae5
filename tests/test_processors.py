"""What must hold on every processor: tests of parity, bits and scores, once more with the instruction sets of lesser ones.

They are those marked `every_processor`, but for the slower half in float64, and for texts that are a matter of the tokenizer alone.
`pytest -m every_processor` under the same variables runs them all.

Which instructions PyTorch, oneDNN and MKL use is decided by environment variables when they first compute, so each run is a
process. On a machine that has less, a variable that asks for more changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import Programs

ROOT = Path(__file__).parent.parent

PROCESSORS = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX", "MKL_ENABLE_INSTRUCTIONS": "AVX"},
    "sse4": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}

# What oneDNN calls these instruction sets. A processor that has less may report a later one of the list.
NAMES = {"avx2": "Intel AVX2", "avx": "Intel AVX", "sse4": "Intel SSE4.1"}

# One thread, since three of these processes may share two cores with others. The tests of bits set both one and two by themselves.
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

CHOSEN = ["-m", "every_processor", "-k", "not (float64 or unicode or beyond)"]
OPTIONS = ["-q", "-n0", *(f"-pno:{name}" for name in ("cacheprovider", "randomly", "hypothesispytest")), *CHOSEN]


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    """Forks of a process that has imported what most of the tests need, and has computed nothing."""
    programs = Programs("pytest", "torch", "transformers.models.bert.modeling_bert", "sentence_transformers", **THREADS)
    yield programs
    programs.close()


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_promises_hold_on_a_lesser_processor(processor: str, programs: Programs, sts_folder: Path) -> None:
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.every_processor" in path.read_text("utf-8")]
    variables = PROCESSORS[processor]
    code = f"""
import os, pytest, torch
os.chdir({str(ROOT)!r})
capability = torch.backends.cpu.get_cpu_capability()
assert capability in ({variables["ATEN_CPU_CAPABILITY"].upper()!r}, "DEFAULT"), capability
with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):  # oneDNN prints its instruction set
    torch.ops.mkldnn._linear_pointwise(torch.ones(8, 8), torch.ones(8, 8), None, "none", [], "")
for name in [name for name in os.environ if name.startswith("PYTEST_")]:
    del os.environ[name]
raise SystemExit(pytest.main({[*OPTIONS, *map(str, sorted(files))]!r}))
"""
    done = programs.run(code, seconds=900, **variables)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    (found,) = re.findall(r"cpu,isa:(.*)", done.stdout)
    assert found in list(NAMES.values())[list(NAMES).index(processor) :]
    assert "skipped" not in done.stdout
