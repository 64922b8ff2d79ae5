"""The arrows between the parts of the package point down only, and importing it costs what `import torch` costs.

The imports are read from the source with `ast`: those inside functions count, and so do those for the type checker alone.
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

# A part, which is a file or a folder, → the parts that it may import, besides errors.py. What it may import stands above it.
MODEL = {"bert", "pooling", "tokenizer"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "tokenizer": set(),
    "pooling": set(),
    "checks": set(),
    "bert": {"checks"},
    "inference": MODEL,
    "checkpoint": MODEL | {"inference"},  # its threads: a fork waits until weights are read
    "util": {"inference"},
    "encoder": MODEL | {"inference", "checkpoint", "util"},
    "files": {"inference"},
    "tracing": MODEL | {"inference", "checkpoint", "encoder", "files"},
    "__init__": MODEL | {"inference", "checkpoint", "util", "encoder", "tracing"},
    "integrations": {"encoder", "__init__"},
    "train": MODEL | {"inference", "checkpoint", "util", "encoder", "files", "__init__"},
    "corpus": MODEL | {"inference", "checkpoint", "util", "encoder", "files", "__init__"},
    # Its commands are written as a user's program is, with `import minisbert`.
    "cli": {"__init__", "encoder", "inference", "checkpoint", "files", "tracing", "train", "corpus"},
    "__main__": {"cli"},
}

RUN_TIME = {"torch", "safetensors", "huggingface_hub", "tokenizers"}


def name_of(path: Path) -> str:
    """minisbert/inference/engine.py → inference.engine; minisbert/inference/__init__.py → inference."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
FOLDERS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


def imports(module: str, *, top_level: bool = False) -> Iterator[str]:
    """The dotted names that a module of the package imports; with `top_level` those that its own import runs."""
    tree = ast.parse(FILES[module].read_text("utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if top_level
        and (
            isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        )
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
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                # `from minisbert.inference import threads` imports the module of that name.
                yield full if full.removeprefix("minisbert.") in FILES and full.startswith("minisbert.") else str(node.module)


def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports, as `FILES` names them."""
    own = {name for name in imports(module) if name.split(".")[0] == "minisbert"}
    return {name.removeprefix("minisbert").removeprefix(".") or "__init__" for name in own} - {module}


def part(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def test_every_part_has_a_row_in_the_table() -> None:
    assert {part(module) for module in FILES} <= set(MAY_IMPORT), "a new part: say in MAY_IMPORT what it may import"


def test_the_table_itself_has_only_arrows_that_point_down() -> None:
    above: set[str] = set()
    for name, allowed in MAY_IMPORT.items():
        assert allowed <= above, name
        above.add(name)


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_only_what_stands_below_it(module: str) -> None:
    assert {part(name) for name in own_imports(module)} <= MAY_IMPORT[part(module)] | {"errors", part(module)}


def test_no_modules_import_each_other_in_a_circle() -> None:
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path, module))
        if module not in finished:
            for imported in own_imports(module):
                visit(imported, (*path, module))
            finished.add(module)

    for module in FILES:
        visit(module, ())


@pytest.mark.parametrize("module", FILES)
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
    assert {name.split(".")[0] for module in FILES for name in imports(module)} >= RUN_TIME


def test_the_reader_of_imports_sees_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "huggingface_hub" in {name.split(".")[0] for name in imports("checkpoint.hub")}
    assert "huggingface_hub" not in {name.split(".")[0] for name in imports("checkpoint.hub", top_level=True)}
    assert own_imports("__main__") == {"cli"}
    assert "encoder" in own_imports("cli.commands"), "its import is for the type checker, and is an arrow all the same"
    assert {"bert", "encoder"} <= own_imports("__init__")
    source = "if TYPE_CHECKING:\n    import a\nif not TYPE_CHECKING:\n    import b\n\ndef f():\n    import c\n"
    (tmp_path / "made_up.py").write_text(source)
    monkeypatch.setitem(FILES, "made_up", tmp_path / "made_up.py")
    assert set(imports("made_up")) == {"a", "b", "c"}
    assert set(imports("made_up", top_level=True)) == {"b"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_says_what_it_is_for_and_who_may_import_whom(folder: Path) -> None:
    doc = (ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or "").replace(".py", "")

    def named(pattern: str) -> set[str]:
        return {word for sentence in re.findall(pattern, doc) for word in re.findall(r"[a-z_]+", sentence)}

    imported = {name for module in FILES if part(module) == folder.name for name in map(part, own_imports(module))}
    importers = {part(module) for module in FILES if folder.name in map(part, own_imports(module))}
    assert imported - {"errors", "__init__", folder.name} <= named(r"It imports ([^.]*)\."), "what it imports"
    assert importers - {"__init__", folder.name} <= named(r"It is\s+imported by ([^.]*)\."), "who imports it"


def test_importing_the_package_imports_beside_torch_only_what_is_needed_every_time_and_no_numpy() -> None:
    code = (
        "import sys, torch\n"
        "sys.modules['numpy'] = None  # an import of it fails\n"
        "before = set(sys.modules)\n"
        "import minisbert; minisbert.SentenceEncoder\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})\n"
        "print(minisbert.load('all-MiniLM-L6-v2').encode('a man').shape)"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    imported, shape = result.stdout.splitlines()
    assert set(imported.split()) - sys.stdlib_module_names == {"minisbert", "safetensors", "tokenizers"}
    assert not set(imported.split()) & {"asyncio", "concurrent", "http", "multiprocessing", "sqlite3", "unittest", "urllib", "xml"}
    assert shape == "torch.Size([384])"


def test_neither_the_import_alone_nor_the_parser_of_the_command_imports_torch() -> None:
    code = (
        "import sys, minisbert\n"
        "from minisbert.cli import main\n"
        "for arguments in ['--help'], ['train', '--help'], ['corpus', '--help'], ['encode', '--nonsense'], ['nothing']:\n"
        "    try:\n"
        "        main(arguments)\n"
        "    except SystemExit:\n"
        "        assert 'torch' not in sys.modules, arguments\n"
        "assert main(['--version']) == 0 and set(minisbert.__all__) <= set(dir(minisbert)) and 'torch' not in sys.modules\n"
        "from minisbert import *\n"
        "assert all(name in globals() for name in minisbert.__all__) and minisbert.util.similarity is similarity"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def test_the_model_stays_a_file_that_one_can_hold_in_mind() -> None:
    assert lines(PACKAGE / "bert.py") <= 300


@pytest.mark.parametrize("module", FILES)
def test_no_file_is_longer_than_450_lines(module: str) -> None:
    assert lines(FILES[module]) <= 450
