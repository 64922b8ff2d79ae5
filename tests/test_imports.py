"""The arrows between the rooms of the package point down only, and importing it costs what `import torch` costs.

The imports are read from the source with `ast`, those inside functions included; those for the type checker alone do not count.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "minisbert"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))

# A room → the rooms it may import, besides errors.py. A new module gets its row here, at the place where it belongs: what it may
# import stands above it.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "arguments": set(),
    "migration": set(),
    "forks": set(),
    "workers": {"forks"},
    "config": set(),
    "hub": set(),
    "batching": set(),
    "similarity": set(),
    "bert": {"config"},
    "pooling": {"config", "batching"},
    "wordpiece": {"config"},
    "pickled": {"config"},
    "weights": {"config", "bert", "pickled"},
    "save": {"config", "weights"},
    "onednn": {"bert"},
    "engine": {"batching", "bert", "workers"},
    "reports": {"wordpiece"},
    "results": {"batching", "bert"},
    "stream": {"reports"},
    "info": {"config"},
    "encoder": {
        *("arguments", "forks", "config", "batching", "similarity", "bert", "pooling", "wordpiece", "onednn", "save", "migration"),
        *("engine", "reports", "results", "stream", "info"),
    },
    "loading": {"encoder", "hub", "config", "wordpiece", "bert", "pooling", "weights", "onednn", "forks"},
    "tracing": {"encoder", "forks", "workers", "batching", "bert", "engine", "pooling", "page"},
    "drawing": set(),
    # Tracing and its page know each other: one draws the other.
    "page": {"drawing", "encoder", "bert", "pooling", "wordpiece", "tracing"},
    "integrations": {"encoder"},
    "__init__": {"migration", "similarity", "bert", "pooling", "wordpiece", "encoder", "loading", "tracing"},
    "files": {"arguments"},
    "cli": {"__init__", "page", "files"},
    "__main__": {"cli"},
}
TOGETHER = {"tracing", "page"}

RUN_TIME = {"torch", "safetensors", "huggingface_hub", "tokenizers"}


def imports(module: str, *, top_level: bool = False) -> Iterator[str]:
    """The dotted names that a module of the package imports; with `top_level` those that its own import runs."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        or (top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            # `from minisbert import tracing` imports the module of that name; `from minisbert import __version__` only minisbert.
            yield from (name if node.module == "minisbert" and name.split(".")[1] in MODULES else node.module for name in names)


def rooms(module: str) -> set[str]:
    """The rooms that a module imports."""
    own = {name for name in imports(module) if name.split(".")[0] == "minisbert"}
    return {name.split(".")[1] if "." in name else "__init__" for name in own}


def test_every_module_has_a_row_in_the_table() -> None:
    assert set(MODULES) <= set(MAY_IMPORT), "a new room: say in MAY_IMPORT what it may import"


def test_the_table_itself_has_only_arrows_that_point_down() -> None:
    above: set[str] = set()
    for room, allowed in MAY_IMPORT.items():
        assert allowed - above <= (TOGETHER if room in TOGETHER else set()), room
        above.add(room)


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_what_stands_below_it(module: str) -> None:
    assert rooms(module) <= MAY_IMPORT[module] | {"errors"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_the_four_packages_at_its_top_and_others_only_where_an_extra_installs_them(module: str) -> None:
    at_the_top = {name.split(".")[0] for name in imports(module, top_level=True)}
    anywhere = {name.split(".")[0] for name in imports(module)}
    standard = sys.stdlib_module_names | {"minisbert"}
    assert at_the_top - standard <= RUN_TIME - {"huggingface_hub"}, "huggingface_hub is imported when the hub is asked"
    assert anywhere - standard <= RUN_TIME | extras()


def extras() -> set[str]:
    """The packages of the extras that are for users: not those for tests and development."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    groups = re.findall(r"^([\w-]+) = \[(.*?)\]$", section, re.MULTILINE | re.DOTALL)
    lists = {name: set(re.findall(r'"([\w-]+)', packages)) for name, packages in groups}
    assert {"test", "dev", "numpy"} <= set(lists)
    return {package.replace("-", "_") for name, packages in lists.items() if name not in ("test", "dev") for package in packages}


def test_the_run_time_packages_are_exactly_those_that_are_installed_with_it() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    section = re.search(r"^dependencies = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r'"([\w-]+)', section[1])) == RUN_TIME
    assert {name.split(".")[0] for module in MODULES for name in imports(module)} >= RUN_TIME


def test_the_reader_of_imports_sees_what_it_should() -> None:
    assert "huggingface_hub" in {name.split(".")[0] for name in imports("hub")}
    assert "huggingface_hub" not in {name.split(".")[0] for name in imports("hub", top_level=True)}
    assert rooms("__main__") == {"cli"}
    assert "encoder" not in rooms("cli"), "its import is for the type checker"
    assert {"bert", "encoder"} <= rooms("__init__")


def test_importing_the_package_imports_beside_torch_only_what_is_needed_every_time_and_no_numpy() -> None:
    code = (
        "import sys, torch\n"
        "sys.modules['numpy'] = None  # an import of it fails\n"
        "before = set(sys.modules)\n"
        "import minisbert\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})\n"
        "print(minisbert.load('all-MiniLM-L6-v2').encode('a man').shape)"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    imported, shape = result.stdout.splitlines()
    assert set(imported.split()) - sys.stdlib_module_names == {"minisbert", "safetensors", "tokenizers"}
    assert not set(imported.split()) & {"asyncio", "concurrent", "http", "multiprocessing", "sqlite3", "unittest", "urllib", "xml"}
    assert shape == "torch.Size([384])"


def test_the_model_stays_a_file_that_one_can_hold_in_mind() -> None:
    assert len((PACKAGE / "bert.py").read_text("utf-8").splitlines()) <= 260
