"""The pictures of the page of a trace: values as colours, attention as curves, the cosine after each layer.

They are SVG. Pictures of many values are PNGs inside, whose opacity is the value and whose colour is constant, so they suit a light
and a dark page.
"""

from __future__ import annotations

import base64
import struct
import unicodedata
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from minisbert.tracing.html import decimal, escaped, shortened

Colour = tuple[int, int, int]
HEAT: Colour = (124, 92, 246)
POSITIVE: Colour = (20, 150, 136)
NEGATIVE: Colour = (226, 92, 48)


def _label(token: str) -> str:
    return escaped(shortened(token, 12))


def _columns(text: str) -> int:
    """The width of a text, in letters."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shortened(text, 12))


def _png(rows: Sequence[bytes], palette: Sequence[tuple[Colour, int]]) -> str:
    """One byte a pixel, each a row of the palette (colour, opacity), as a data: address."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colours = bytes(part for colour, _ in palette for part in colour)
    opacities = bytes(opacity for _, opacity in palette)
    image = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0))
        + chunk(b"PLTE", colours)
        + chunk(b"tRNS", opacities)
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows), 9))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(image).decode()


# A weight's opacity grows faster than the weight, so that small ones are seen; page.js does the same.
HEAT_PALETTE = [(HEAT, round(255 * (level / 255) ** 0.7)) for level in range(256)]
SIGN_PALETTE = [(NEGATIVE, 2 * (128 - level) - (level == 0)) for level in range(128)] + [
    (POSITIVE, 2 * (level - 128)) for level in range(128, 256)
]


def _rows(values: Tensor) -> list[bytes]:
    return [bytes(row) for row in values.to(torch.uint8).tolist()]


def heat(weights: Tensor, shades: int = 256) -> str:
    """[rows, columns] of 0 to 1 as a picture; fewer shades make a smaller file."""
    levels = (weights.float().clamp(0, 1) * (shades - 1)).round() / (shades - 1)
    return _png(_rows((levels * 255).round()), HEAT_PALETTE)


def signs(values: Tensor, largest: float) -> str:
    """[rows, columns] of positive and negative values as a picture; the colour is full from `largest` on."""
    return _png(_rows((values.float() / max(largest, 1e-30) * 127 + 128).round().clamp(0, 255)), SIGN_PALETTE)


def _size(width: float, height: float) -> str:
    """The attributes of an SVG of this size, which the style sheet may enlarge."""
    return f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" style="--wide:{width:g}"'


def grid(name: str, picture: str, rows: Sequence[str], columns: Sequence[str], cell: int, kind: str = "") -> str:
    """An SVG picture with a label for every row and every column."""
    left = 8 + round(7.3 * max(map(_columns, rows)))
    top = 8 + round(7.3 * max(map(_columns, columns)))
    width, height = left + cell * len(columns) + 4, top + cell * len(rows) + 4
    size = min(12, cell - 1)
    texts = [
        f'<text x="{left - 6}" y="{top + cell * (i + 0.5):g}" text-anchor="end" dominant-baseline="central">{_label(row)}</text>'
        for i, row in enumerate(rows)
    ] + [
        f'<text transform="translate({left + cell * (i + 0.5):g} {top - 6}) rotate(-90)" dominant-baseline="central">'
        f"{_label(column)}</text>"
        for i, column in enumerate(columns)
    ]
    return (
        f'<div class="scroll"><svg class="grid {kind}" role="img" aria-label="{escaped(name)}" {_size(width, height)} '
        f'font-size="{size}" data-left="{left}" data-top="{top}" data-cell="{cell}">{"".join(texts)}'
        f'<rect class="frame" x="{left}" y="{top}" width="{cell * len(columns)}" height="{cell * len(rows)}"/>'
        f'<image href="{picture}" x="{left}" y="{top}" width="{cell * len(columns)}" height="{cell * len(rows)}" '
        'preserveAspectRatio="none"/></svg></div>'
    )


TALLEST_FLOW = 32
"""The most tokens that the picture of attention shows at once; of more tokens, it scrolls within the page."""

FLOW_ROW, FLOW_WIDTH = 22, 300
"""The height of a token and the width of the picture of attention; page.js draws into it."""


def flow_picture(tokens: Sequence[str], weights: Tensor) -> str:
    """Attention [tokens, tokens] as curves from each token, on the left, to the three with its largest weights, on the right."""
    height = FLOW_ROW * len(tokens)
    curves = []
    for i, row in enumerate(weights):
        strongest = row.topk(min(3, len(row)))
        for weight, j in zip(strongest.values.tolist(), strongest.indices.tolist(), strict=True):
            if weight >= 0.02:
                y, z = FLOW_ROW * (i + 0.5), FLOW_ROW * (j + 0.5)
                curves.append(
                    f'<path d="M102 {y:g}C150 {y:g} 150 {z:g} 198 {z:g}" stroke-width="{0.6 + 5 * weight:.1f}" '
                    f'opacity="{min(1, 0.15 + weight):.2f}"/>'
                )
    sides = []
    for side, x, anchor in ("from", 96, "end"), ("to", 204, "start"):
        texts = "".join(
            f'<text x="{x}" y="{FLOW_ROW * (i + 0.5):g}" text-anchor="{anchor}" dominant-baseline="central">{_label(token)}</text>'
            for i, token in enumerate(tokens)
        )
        sides.append(f'<g class="{side}">{texts}</g>')
    picture = (
        f'<svg class="flow" role="img" aria-label="The three tokens that each token takes most from" '
        f'{_size(FLOW_WIDTH, height)} font-size="12"><g class="curves">{"".join(curves)}</g>'
        f"{''.join(sides)}</svg>"
    )
    return picture if len(tokens) <= TALLEST_FLOW else f'<div class="scroll tall">{picture}</div>'


def sum_picture(name: str, tokens: Sequence[str], parts: Sequence[tuple[str, Tensor]]) -> str:
    """Pictures of [tokens, dimensions] side by side: the addends with one scale, and their sum with its own."""
    largest = max(part.abs().max().item() for _, part in parts[:-1])
    cell, left, width, top = 16, 96, 128, 24
    total, height = left + len(parts) * (width + 22), top + cell * len(tokens) + 2
    drawn = [
        f'<text x="{left - 6}" y="{top + cell * (i + 0.5):g}" text-anchor="end" dominant-baseline="central">{_label(token)}</text>'
        for i, token in enumerate(tokens)
    ]
    for number, (title, part) in enumerate(parts):
        x = left + number * (width + 22)
        last = number == len(parts) - 1
        scale = part.abs().max().item() if last else largest
        sign = "→" if last else "+" if number else ""
        drawn.append(
            f'<text x="{x + width / 2:g}" y="12" text-anchor="middle">{title}</text>'
            f'<text x="{x - 11}" y="12" text-anchor="middle">{sign}</text>'
            f'<rect class="frame" x="{x}" y="{top}" width="{width}" height="{cell * len(tokens)}"/>'
            f'<image href="{signs(part, scale)}" x="{x}" y="{top}" width="{width}" height="{cell * len(tokens)}" '
            'preserveAspectRatio="none"/>'
        )
    return (
        f'<div class="scroll"><svg class="grid" role="img" aria-label="{escaped(name)}" {_size(total, height)} font-size="12">'
        f"{''.join(drawn)}</svg></div>"
    )


def cosine_chart(values: Sequence[float]) -> str:
    """The cosine after the embeddings and after each layer: as a line on a wide screen, as bars on a phone."""
    name = f"The cosine after each layer, from {decimal(values[0])} to {decimal(values[-1])}"
    return f'<div class="charts">{_line(values, name)}{_bars(values, name)}</div>'


TICKS = (-1, -0.5, 0, 0.25, 0.5, 0.75, 1)


def _line(values: Sequence[float], name: str) -> str:
    lowest = min(0.0, *values)
    width, height, left, bottom, top = 640, 260, 48, 36, 22
    span = (width - left - 40) / max(1, len(values) - 1)

    def y(value: float) -> float:
        return top + (1 - value) / (1 - lowest) * (height - top - bottom)

    points = [(left + 16 + span * number, y(value)) for number, value in enumerate(values)]
    marks = "".join(
        f'<line class="rule" x1="{left}" x2="{width}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/><text x="{left - 8}" '
        f'y="{y(tick):.1f}" text-anchor="end" dominant-baseline="central">{decimal(tick, 2 if tick % 0.5 else 1)}</text>'
        for tick in TICKS
        if tick >= lowest
    )
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{z:.1f}" r="{6 if number == len(values) - 1 else 4}"/><text class="value" x="{x:.1f}" '
        f'y="{z - 12:.1f}" text-anchor="middle">{decimal(value, 2)}</text><text x="{x:.1f}" y="{height - 12}" '
        f'text-anchor="middle">{number or "emb."}</text>'
        for number, (value, (x, z)) in enumerate(zip(values, points, strict=True))
    )
    line = " ".join(f"{x:.1f},{z:.1f}" for x, z in points)
    return (
        f'<svg class="chart across" role="img" aria-label="{name}" {_size(width, height)} font-size="13">{marks}'
        f'<polyline points="{line}"/>{dots}</svg>'
    )


def _bars(values: Sequence[float], name: str) -> str:
    lowest = min(0.0, *values)
    width, row, left, right = 320, 28, 70, 60

    def x(value: float) -> float:
        return left + (value - lowest) / (1 - lowest) * (width - left - right)

    rows = "".join(
        f'<text x="0" y="{row * (number + 0.5):g}" dominant-baseline="central">{f"layer {number}" if number else "emb."}</text>'
        f'<rect x="{min(x(0), x(value)):.1f}" y="{row * number + 5}" width="{abs(x(value) - x(0)):.1f}" height="{row - 10}"/>'
        f'<text class="value" x="{width - right + 8}" y="{row * (number + 0.5):g}" dominant-baseline="central">'
        f"{decimal(value)}</text>"
        for number, value in enumerate(values)
    )
    return f'<svg class="chart down" role="img" aria-label="{name}" {_size(width, row * len(values))} font-size="14">{rows}</svg>'
