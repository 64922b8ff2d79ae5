"""Mutation tests: changes code in every small way that mutmut knows, one at a time, and shows the changes that no test notices.

    python scripts/mutation.py                                        the files that pyproject.toml names, in half an hour
    python scripts/mutation.py minisbert/pooling.py --seconds 300     one file, for five minutes; run it again to go on

[tool.mutmut] in pyproject.toml names the files (`only_mutate`) and the tests (`pytest_add_cli_args_test_selection`). mutmut writes
the mutants into a copy of the project. This program runs them, because a fork costs less than a new process that imports torch:

1.  A process with one thread collects the tests once. Forks of it do all that follows.
2.  The first fork runs all tests without a mutation. It notes how long each takes, which fail (they are left out), and which
    functions each calls. What a fixture calls counts for every test that uses the fixture.
3.  A fork for each mutant runs tests that call the mutated function: those that killed other mutants of it, those of the file's own
    test file, then the quickest, together up to `--limit` seconds. It ends at the first test that fails or takes far too long.

The results are added to a file in the working folder. A mutant that was killed is not run again while its function reads the same;
a survivor is, whenever the code or the tests have changed. To start over, delete the folder.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MUTANT_UNDER_TEST": ""}  # threads do not survive a fork

import pytest
from mutmut.configuration import config
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.mutation.trampoline import get_mutant_under_test, set_mutant_under_test
from mutmut.state import state

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("minisbert", "tests", "scripts", "README.md", "CONTRIBUTING.md", "pyproject.toml")
WORK = Path(tempfile.gettempdir()) / "minisbert-mutation"
MEMORY = 6 << 30
"""A fork may take that many bytes more than its parent: some mutants ask for all there are."""

Json = dict[str, Any]


def copy_project(work: Path) -> Path:
    """A copy of the project, in a folder of its own for each state of it; copies of other states are removed."""
    paths = [path for name in COPIED for path in (ROOT / name, *sorted((ROOT / name).rglob("*")))]
    files = [path for path in paths if path.is_file() and "__pycache__" not in path.parts]
    digest = hashlib.sha256(b"".join(str(path.relative_to(ROOT)).encode() + path.read_bytes() for path in files)).hexdigest()[:12]
    tree = work / f"tree-{digest}"
    for other in work.glob("tree-*"):
        if other != tree:
            shutil.rmtree(other)
    for path in files:
        target = tree / path.relative_to(ROOT)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    return tree


def make_mutants(tree: Path, file: str) -> list[Json]:
    """Writes all mutants of a file over it, in the copy, and describes each one; `key` tells what its function reads like."""
    index = tree / f"{file}.mutants"
    if index.exists():
        return list(json.loads(index.read_text("utf-8")))
    mutated = mutate_file_contents(file, (ROOT / file).read_text("utf-8"))
    (tree / file).write_text(mutated.code, "utf-8")
    lines = mutated.code.splitlines()
    rows = []
    for name in mutated.mutant_names:
        function = name.partition("__mutmut_")[0]
        spans = {label: mutated.line_span_by_function_name[label] for label in (f"{function}__mutmut_orig", name)}
        before, after = (
            [line.replace(label, function) for line in lines[span.start - 1 : span.end]] for label, span in spans.items()
        )
        diff = [line for line in difflib.unified_diff(before, after, n=0, lineterm="") if not line.startswith(("---", "+++", "@@"))]
        module = file.removesuffix(".py").replace("/", ".")
        key = hashlib.sha256("\n".join([*before, *after]).encode()).hexdigest()[:16]
        rows.append({"name": f"{module}.{name}", "function": f"{module}.{function}", "file": file, "key": key, "diff": diff})
    index.write_text(json.dumps(rows), "utf-8")
    return rows


class Runner:
    """The plugin of pytest that takes the place of its loop over the tests."""

    def __init__(self, tree: Path, mutants: list[Json], arguments: argparse.Namespace) -> None:
        self.tree, self.mutants, self.arguments = tree, mutants, arguments
        self.results = tree.parent / "results.jsonl"
        self.verdicts: dict[str, Json] = {}  # by key; a later line of the file stands above an earlier one
        if self.results.exists():
            self.verdicts = {row["key"]: row for row in map(json.loads, self.results.read_text("utf-8").splitlines())}
        self.pipe = -1
        self.failing: set[str] = set()
        self.seconds: dict[str, float] = {}
        self.covers: defaultdict[str, list[str]] = defaultdict(list)
        self.of_fixture: defaultdict[str, set[str]] = defaultdict(set)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[Any]:
        """What a fixture calls counts for all its tests."""
        before = set(state()._stats)
        state()._stats.clear()
        try:
            return (yield)
        finally:
            self.of_fixture[fixturedef.argname] |= state()._stats
            state()._stats.update(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The first test that fails kills the mutant."""
        if report.when == "call":
            self.seconds[report.nodeid] = report.duration
        if report.failed and get_mutant_under_test() != "stats":
            os.write(self.pipe, report.nodeid.encode())
            os._exit(1)
        self.failing |= {report.nodeid} if report.failed else set()

    def pytest_runtest_teardown(self, item: pytest.Function) -> None:
        """In the fork without a mutation: which functions the test called."""
        for function in state()._stats.union(*(self.of_fixture[name] for name in item.fixturenames)):
            self.covers[function].append(item.nodeid)
        state()._stats.clear()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """The steps 2 and 3 above."""
        items = {item.nodeid: item for item in session.items}
        measured = self.tree / "tests.json"
        if not measured.exists():
            print(f"{len(items)} tests without a mutation …", flush=True)
            self.fork("stats", session.items, measured)
        failing, self.seconds, covers = json.loads(measured.read_text("utf-8"))
        if failing:
            print("left out, because they fail without a mutation in the copy:", *failing, sep="\n    ")
        killers: defaultdict[str, list[str]] = defaultdict(list)
        for row in self.verdicts.values():
            killers[row["function"]].append(row["test"])
        end = time.monotonic() + self.arguments.seconds
        for mutant in filter(self.due, self.mutants):
            if time.monotonic() > end:
                break
            function = mutant["function"]
            nodes = self.chosen([test for test in covers.get(function, []) if test not in failing], mutant["file"])
            first = [test for test in dict.fromkeys(reversed(killers[function])) if test in nodes][:5]
            outcome, test = "survived", ""
            if nodes:
                outcome, test = self.fork(mutant["name"], [items[node] for node in dict.fromkeys(first + nodes)])
            killers[function].append(test)
            self.verdicts[mutant["key"]] = mutant | {"outcome": outcome, "test": test, "tree": self.tree.name}
            with self.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.verdicts[mutant["key"]]) + "\n")
        return True

    def due(self, mutant: Json) -> bool:
        """Whether a mutant has to run, or to run again."""
        verdict = self.verdicts.get(mutant["key"])
        return verdict is None or (verdict["outcome"] == "survived" and verdict["tree"] != self.tree.name)

    def chosen(self, tests: list[str], file: str) -> list[str]:
        """The file's own tests, then the quickest, together up to the limit; file by file, because they share fixtures."""
        own = f"test_{Path(file).name}::"
        left, nodes = self.arguments.limit, []
        for test in sorted(tests, key=lambda test: (own not in test, self.seconds[test])):
            left -= self.seconds[test]
            if left >= 0 or not nodes:
                nodes.append(test)
        cost: defaultdict[str, float] = defaultdict(float)
        for test in nodes:
            cost[test.partition("::")[0]] += self.seconds[test]
        return sorted(nodes, key=lambda test: (own not in test, cost[test.partition("::")[0]], test.partition("::")[0]))

    def fork(self, mutant: str, items: list[pytest.Item], measured: Path | None = None) -> tuple[str, str]:
        """Runs tests in a process of their own: "killed", "timeout" or "survived", and the test that failed."""
        scratch = self.tree.parent / "scratch"
        scratch.mkdir(exist_ok=True)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self.pipe = writer
                self.run(mutant, items, scratch)
                if measured:
                    measured.write_text(json.dumps([sorted(self.failing), self.seconds, self.covers]), "utf-8")
                os._exit(0)
            finally:
                os._exit(3)  # an error that pytest lets through
        os.close(writer)
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # what the tests started
            shutil.rmtree(scratch, ignore_errors=True)
        with os.fdopen(reader) as pipe:
            test = pipe.read()
        outcome = "timeout" if -code in (signal.SIGPROF, signal.SIGALRM) else "killed" if code else "survived"
        return outcome, test

    def run(self, mutant: str, items: list[pytest.Item], scratch: Path) -> None:
        """Inside the fork."""
        os.setsid()
        items[0].config.pluginmanager.unregister(name="terminalreporter")
        os.environ |= {"TMPDIR": str(scratch), "PYTEST_DEBUG_TEMPROOT": str(scratch)}
        tempfile.tempdir = str(scratch)
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        set_mutant_under_test(mutant)
        for item, following in zip(items, [*items[1:], None], strict=True):
            usual = self.seconds.get(item.nodeid, 20.0)
            signal.setitimer(signal.ITIMER_PROF, 8 + 15 * usual)  # of processor time: a loop without end
            signal.alarm(60 + int(30 * usual))  # of the clock: a wait without end
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def report(runner: Runner) -> None:
    """The diffs of the survivors, and the table."""
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for mutant in runner.mutants:
        outcome = "not run" if runner.due(mutant) else runner.verdicts[mutant["key"]]["outcome"]
        table[mutant["file"]][outcome] += 1
        if outcome == "survived":
            print(f"\n{mutant['name']}", *(line[:1] + " " + line[1:].strip() for line in mutant["diff"]), sep="\n    ")
    print("\n| | mutants | killed | of these by timeout | survivors | not run |\n|---|---|---|---|---|---|")
    for file, counts in table.items():
        killed = counts["killed"] + counts["timeout"]
        print(f"| `{file}` | {counts.total()} | {killed} | {counts['timeout']} | {counts['survived']} | {counts['not run']} |")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Runs the tests on mutants of the code.")
    parser.add_argument("files", nargs="*", metavar="FILE", help="from the project's root; default: those of pyproject.toml")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds that the tests of a mutant may take (default: 10)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many seconds")
    parser.add_argument("--work", type=Path, default=WORK, help=f"the working folder (default: {WORK})")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    if work.is_relative_to(ROOT):
        parser.error(f"--work: found {work}, expected a folder outside {ROOT}")
    tree = copy_project(work)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    sys.path.insert(0, str(tree))
    files = config().only_mutate  # those of the command line too: what a folder has once, it keeps
    mutants = [mutant for file in dict.fromkeys([*files, *arguments.files]) for mutant in make_mutants(tree, file)]
    runner = Runner(tree, [mutant for mutant in mutants if mutant["file"] in (arguments.files or files)], arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options = ["--rootdir=.", "-q", "--tb=native", *config().pytest_add_cli_args, *config().pytest_add_cli_args_test_selection]
    if any(map(runner.due, runner.mutants)) and arguments.seconds > 0:
        pytest.main(options, plugins=[runner])
    report(runner)


if __name__ == "__main__":
    main()
