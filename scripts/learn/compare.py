"""Compares what a learner's function gave with what is right, and with what each usual mistake would have given."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import mistakes
import torch
from rungs import Case, Step
from torch import Tensor

ROUNDING = 1e-9
"""Relative to the largest value; a smaller difference is rounding. The smallest usual mistake, √2 as 1.41421, makes 1e-6."""


def difference(found: Any, expected: Any, keep: Tensor | None = None) -> float:
    """The largest difference, relative to the largest value; infinity if the two cannot be compared.

    Args:
        found: what the learner's function gave.
        expected: a tensor, or a list of texts or integers.
        keep: which of the values are compared; None: all.
    """
    if not isinstance(expected, Tensor):
        plain = isinstance(found, list) and all(isinstance(one, (str, int)) for one in found)
        return 0.0 if plain and found == expected else float("inf")
    if not isinstance(found, Tensor) or found.shape != expected.shape or not found.dtype.is_floating_point:
        return float("inf")
    if keep is not None:
        found, expected = found[keep], expected[keep]
    off = (found - expected).abs() / expected.nan_to_num().abs().max()
    off = off.masked_fill(found.isnan() & expected.isnan(), 0)  # only a usual mistake gives NaN, and is recognized by it
    return float(off.nan_to_num(float("inf"), posinf=float("inf")).max()) if off.numel() else 0.0


def tidy(found: Any, expected: Any, axes: Sequence[str]) -> Any:
    """Several forms of a result as one: a list of states as one tensor, a tuple as a list."""
    if isinstance(expected, list):
        return list(found) if isinstance(found, (list, tuple)) else found
    if "state" in axes and isinstance(found, (list, tuple)) and found and all(isinstance(one, Tensor) for one in found):
        alike = len({one.shape for one in found}) == 1
        return torch.stack([one.detach() for one in found]) if alike else found
    return found.detach() if isinstance(found, Tensor) else found


def wrong_kind(found: Any, expected: Any) -> str:
    """What is wrong with the type, "" if nothing."""
    kind = type(found).__name__
    if found is None:
        return "the function returned None. Is the `return` missing?"
    if isinstance(expected, list):
        return "" if isinstance(found, list) else f"found {found!r:.60} ({kind}), expected a list, {brief(expected, 8)}."
    if isinstance(found, (list, tuple)):
        shapes = list(dict.fromkeys(str(list(one.shape)) if isinstance(one, Tensor) else type(one).__name__ for one in found))
        rest = (
            " torch.stack makes one of many."
            if len(shapes) == 1 and expected.dim() and shapes[0] == str(list(expected.shape[1:]))
            else " Return that one alone."
            if str(list(expected.shape)) in shapes
            else ""
        )
        return f"found a {kind} of {', '.join(shapes) or 'nothing'}, expected one tensor {list(expected.shape)}.{rest}"
    if not isinstance(found, Tensor):
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


def values_off(found: Any, case: Case, axes: Sequence[str]) -> list[str]:
    """Where the values differ, by how much, and what the differences have in common."""
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


def likely_cause(step: Step, cases: Sequence[Case], results: Sequence[Any]) -> str:
    """What to say about the usual mistake, or the two, that give exactly these results in every case; "" if there are none."""
    for wrong in (*combinations(step.mistakes, 1), *combinations(step.mistakes, 2)):
        if gives(step, frozenset(wrong), cases, results):
            hints = [mistakes.hint(name) for name in wrong]
            return hints[0] if len(hints) == 1 else "\n    - ".join(["two usual mistakes together:", *hints])
    return ""


def gives(step: Step, wrong: frozenset[str], cases: Sequence[Case], results: Sequence[Any]) -> bool:
    """Whether these mistakes give these results in every case, and not always what is right."""
    telling = False
    for case, found in zip(cases, results, strict=True):
        if not fits_so_far(step, wrong, case, found):
            return False
        mistaken = mistaken_result(step, wrong, case, case.arguments)
        same_shape = case.keep is not None and isinstance(mistaken, Tensor) and mistaken.shape == case.keep.shape
        if difference(found, mistaken, case.keep if same_shape else None) > ROUNDING:
            return False
        telling = telling or difference(mistaken, case.expected, case.keep) > ROUNDING
    return telling


def mistaken_result(step: Step, wrong: frozenset[str], case: Case, arguments: Sequence[Any]) -> Any:
    """What these mistakes make of the arguments; None for two mistakes whose shapes or names do not go together."""
    try:
        with torch.no_grad():
            return tidy(step.plain(*arguments, wrong=wrong), case.expected, step.axes)
    except (RuntimeError, KeyError):
        return None


def fits_so_far(step: Step, wrong: frozenset[str], case: Case, found: Any) -> bool:
    """False if a stack of one layer already differs: most mistakes need not be computed through all layers."""
    if "reversed" in wrong or step.axes[:1] != ("state",) or getattr(found, "shape", None) != case.expected.shape:
        return True
    one_layer = {"num_hidden_layers": 1}
    first = [value | one_layer if isinstance(value, dict) and "hidden_size" in value else value for value in case.arguments]
    keep = None if case.keep is None else case.keep[:2]
    return difference(found[:2], mistaken_result(step, wrong, case, first), keep) <= ROUNDING


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


def what_differs(found: Any, case: Case, axes: Sequence[str]) -> tuple[list[str], bool]:
    """What is wrong with a result, and whether that is clear without a likely cause."""
    expected = case.expected
    if kind := wrong_kind(found, expected):
        return [kind], True
    if isinstance(expected, list):
        return [f"found    {brief(found)}", f"expected {brief(expected)}"], False
    if found.shape != expected.shape:
        lines = wrong_shape(found, expected)
        return lines, len(lines) > 1
    return values_off(found, case, axes), False


NAN_PADDING = (
    "the values of the real tokens are right, but those of the padding are NaN. In the next layer all would be, since 0 · NaN is NaN.\n  "
    "Likely cause: the rows of the padding are masked as well, and a softmax over nothing but −∞ is 0/0. Mask the columns only."
)


def judge(step: Step, cases: Sequence[Case], results: Sequence[Any]) -> tuple[bool, str]:
    """Compares all results: whether they are right, and what to say, about the first case that is off if one is."""
    results = [tidy(found, case.expected, step.axes) for found, case in zip(results, cases, strict=True)]
    largest = 0.0
    for number, (case, found) in enumerate(zip(cases, results, strict=True), start=1):
        about = f"case {number} of {len(cases)}, {case.about}:"
        off = difference(found, case.expected, case.keep)
        if off <= ROUNDING and getattr(found, "dtype", torch.float64) == torch.float64:
            largest = max(largest, off)
            if isinstance(found, Tensor) and bool(found.isnan().any()):
                return False, f"{about}\n  {NAN_PADDING}"
            continue
        lines, clear = what_differs(found, case, step.axes)
        if cause := likely_cause(step, cases, results):
            lines.append(f"Likely cause: {cause}")
        elif not clear:
            lines.append(f"It is none of the usual mistakes; go through {step.file}.md again.")
        return False, "\n  ".join([about, *lines])
    tried = "1 case" if len(cases) == 1 else f"{len(cases)} cases"
    return True, f"{tried}, the largest difference {largest:.0e}." if largest else f"{tried}, all equal."


def brief(items: Sequence[Any], most: int = 20) -> str:
    """A list, or its beginning and the number of the other items."""
    return repr(list(items)) if len(items) <= most else f"{list(items[:most])!r} and {len(items) - most} more"
