"""What happened in a training run, step by step, and a plot of it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from minisbert.files.writing import write_whole


@dataclass(frozen=True)
class Step:
    """One step of the optimizer.

    Attributes:
        number: from 1.
        loss: the mean over the step's examples, before the step.
        learning_rate: with which it was taken.
        gradient_norm: of all parameters together, before clipping.
        tokens: how many were computed.
        seconds: how long it took.
    """

    number: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate` after a step.

    Attributes:
        step: the number of steps taken.
        measures: by name; the first one decides which step is the best.
    """

    step: int
    measures: dict[str, float]

    @property
    def value(self) -> float:
        """The measure that decides."""
        return next(iter(self.measures.values()))


@dataclass
class History:
    """A training run.

    Attributes:
        steps: every step, those before an interruption included.
        evaluations: in the order of the steps.
    """

    steps: list[Step] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    @property
    def best(self) -> Evaluation | None:
        """The evaluation with the largest value, the first of equals, NaN never; None if there is none."""
        numbers = [evaluation for evaluation in self.evaluations if not math.isnan(evaluation.value)]
        return max(numbers, key=lambda evaluation: evaluation.value, default=None)

    def save_svg(self, path: str | os.PathLike[str]) -> None:
        """Draws the loss and the evaluations over the steps as an SVG.

        Args:
            path: of the .svg file to write.

        Raises:
            ValueError: if there is no step to draw.
            ValueError, OSError: if it cannot be written.
            FileExistsError: if the file there is not such a drawing.
        """
        if not self.steps:
            raise ValueError("save_svg: found no steps, expected at least one.")
        last = self.steps[-1].number
        losses = [(step.number, step.loss) for step in self.steps]
        panels = [_panel("loss", last, [("#bbb", losses), ("#06c", _smoothed(losses))])]
        if self.evaluations:
            name = next(iter(self.evaluations[0].measures))
            panels.append(_panel(name, last, [("#c30", [(each.step, each.value) for each in self.evaluations])]))
        body = "".join(f'<g transform="translate(0,{index * HEIGHT})">{panel}</g>' for index, panel in enumerate(panels))
        text = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT * len(panels)}" font-family="sans-serif" '
            f'font-size="12">{MARK}<rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
        )
        write_whole(path, text, lambda head: MARK.encode() in head)


MARK = "<desc>A training run of minisbert</desc>"
"""Marks a file as one that `save_svg` wrote, so that it may be replaced."""

WIDTH, HEIGHT = 640, 220
LEFT, TOP, RIGHT, BOTTOM = 60, 30, 620, 190
"""The edges of a panel's axes, in the units of the drawing."""

Points = Sequence[tuple[float, float]]


def _smoothed(points: Points, windows: int = 40) -> list[tuple[float, float]]:
    """The mean of each point and its predecessors, a fortieth of the run."""
    width = max(1, len(points) // windows)
    recent = [[y for _, y in points[max(0, end - width) : end]] for end in range(1, len(points) + 1)]
    return [(x, sum(some) / len(some)) for (x, _), some in zip(points, recent, strict=True)]


def _panel(title: str, last: int, lines: Sequence[tuple[str, Points]]) -> str:
    """One pair of axes with its lines: steps from 0 to `last` to the right, values upwards."""
    values = [y for _, points in lines for _, y in points]
    low, high = min(values), max(values)
    if high == low:
        low, high = low - 0.5, high + 0.5

    def place(x: float, y: float) -> str:
        return f"{LEFT + (RIGHT - LEFT) * x / last:.1f},{BOTTOM - (BOTTOM - TOP) * (y - low) / (high - low):.1f}"

    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = BOTTOM - (BOTTOM - TOP) * share
        parts.append(f'<path d="M{LEFT},{y}H{RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{low + (high - low) * share:.4g}</text>')
        x = LEFT + (RIGHT - LEFT) * share
        parts.append(f'<text x="{x}" y="{BOTTOM + 16}" text-anchor="middle">{last * share:g}</text>')
    for colour, points in lines:
        path = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(points) < 50:
            parts.extend(
                f'<circle cx="{at[0]}" cy="{at[1]}" r="2.5" fill="{colour}"/>' for at in (place(x, y).split(",") for x, y in points)
            )
    return "".join(parts)
