"""The pieces that the page of a trace is put together from: text, tables, pictures, source code and formulas, as HTML.

They know numbers and letters, and nothing of a trace. Whatever text they are given comes out as text, never as HTML. The looks
are in `page.html`.

Pictures of many numbers are PNGs whose colour stays and whose opacity is the number, so they suit a light and a dark page.
"""

from __future__ import annotations

import base64
import inspect
import io
import keyword
import struct
import textwrap
import tokenize
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

import torch
from torch import Tensor

PACKAGE = Path(__file__).parent.parent

LONGEST_OPEN = 20
"""Source of more lines than this is folded away, to be opened."""

Colour = tuple[int, int, int]
HEAT: Colour = (124, 92, 246)
POSITIVE: Colour = (20, 150, 136)
NEGATIVE: Colour = (226, 92, 48)


# Text


def escaped(text: str) -> str:
    """Any text, to stand between tags or in a quoted attribute; control characters are shown by their pictures."""
    return escape("".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else "␡" if c == "\x7f" else c for c in text))


def shortened(text: str, length: int) -> str:
    """A text of at most so many letters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _label(token: str) -> str:
    return escaped(shortened(token, 12))


def _columns(text: str) -> int:
    """How many letters' widths a text takes."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shortened(text, 12))


def piece(token: str) -> str:
    """A word piece, its ## paler than its letters."""
    mark = "<i>##</i>" if token.startswith("##") and len(token) > 2 else ""
    return f'<bdi class="t">{mark}{escaped(token.removeprefix("##") if mark else token)}</bdi>'


def direction(text: str) -> str:
    """The attribute that lets the pieces of a word follow one another as its letters do."""
    first = next((kind for kind in map(unicodedata.bidirectional, text) if kind in ("L", "R", "AL")), "L")
    return "" if first == "L" else ' dir="rtl"'


def decimal(value: float, digits: int = 3) -> str:
    """With a real minus sign, and none before a zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if not float(text) else text.replace("-", "−")


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table whose cells are HTML already; the first column names the row."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><caption>{caption}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def bar(value: float, largest: float, text: str) -> str:
    """A number, and beside it a bar that is full at the largest."""
    width = min(1.0, abs(value) / largest) if largest else 0.0
    side = " less" if value < 0 else ""
    return f'<span class="bar{side}" style="--w:{width:.3f}">{text}</span>'


def legend() -> str:
    """What the two colours of `signs` mean."""
    return '<span class="key more">more than 0</span> <span class="key less">less than 0</span>'


# Pictures


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


# A weight's opacity grows faster than the weight, so that small ones are seen; page.html does the same.
HEAT_PALETTE = [(HEAT, round(255 * (level / 255) ** 0.7)) for level in range(256)]
SIGN_PALETTE = [(NEGATIVE, 2 * (128 - level) - (level == 0)) for level in range(128)] + [
    (POSITIVE, 2 * (level - 128)) for level in range(128, 256)
]


def _rows(values: Tensor) -> list[bytes]:
    return [bytes(row) for row in values.to(torch.uint8).tolist()]


def heat(weights: Tensor) -> str:
    """[rows, columns] of 0 to 1, as a picture."""
    return _png(_rows((weights.float() * 255).round().clamp(0, 255)), HEAT_PALETTE)


def signs(values: Tensor, largest: float) -> str:
    """[rows, columns] of numbers of either sign, as a picture; from `largest` on the colour is full."""
    return _png(_rows((values.float() / max(largest, 1e-30) * 127 + 128).round().clamp(0, 255)), SIGN_PALETTE)


def _size(width: float, height: float) -> str:
    """The attributes of an SVG of this size, which the style sheet may enlarge."""
    return f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" style="--wide:{width:g}"'


def grid(name: str, picture: str, rows: Sequence[str], columns: Sequence[str], cell: int, kind: str = "") -> str:
    """A picture with a label at every row and every column, as SVG."""
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
"""Tokens; beyond, the picture of who looks at whom scrolls within the page."""

FLOW_ROW, FLOW_WIDTH = 22, 300
"""The height of a token and the width, in the picture of who looks at whom; page.html draws into it."""


def flow_picture(tokens: Sequence[str], weights: Tensor) -> str:
    """Who looks at whom: curves from each token, on the left, to the three that it takes most from, on the right."""
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
    """Pictures of [tokens, numbers] side by side: those that are added, in one scale, and what comes of it, in its own."""
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
    """The cosine after the embeddings and after each layer, as a line."""
    lowest = min(0.0, *values)
    width, height, left, bottom, top = 640, 260, 48, 36, 22
    span = (width - left - 30) / max(1, len(values) - 1)

    def y(value: float) -> float:
        return top + (1 - value) / (1 - lowest) * (height - top - bottom)

    points = [(left + 14 + span * number, y(value)) for number, value in enumerate(values)]
    marks = "".join(
        f'<line class="rule" x1="{left}" x2="{width}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/><text x="{left - 8}" '
        f'y="{y(tick):.1f}" '
        f'text-anchor="end" dominant-baseline="central">{decimal(tick, 2 if tick % 0.5 else 1)}</text>'
        for tick in (-1, -0.5, 0, 0.25, 0.5, 0.75, 1)
        if tick >= lowest
    )
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{z:.1f}" r="{6 if number == len(values) - 1 else 4}"/><text class="value" x="{x:.1f}" '
        f'y="{z - 12:.1f}" '
        f'text-anchor="middle">{decimal(value, 2)}</text><text x="{x:.1f}" y="{height - 12}" '
        f'text-anchor="middle">{number or "emb."}</text>'
        for number, (value, (x, z)) in enumerate(zip(values, points, strict=True))
    )
    line = " ".join(f"{x:.1f},{z:.1f}" for x, z in points)
    return (
        '<div class="scroll"><svg class="chart" role="img" aria-label="The cosine after each layer, from '
        f"{decimal(values[0])} to "
        f'{decimal(values[-1])}" {_size(width, height)} font-size="13">{marks}'
        f'<polyline points="{line}"/>{dots}</svg></div>'
    )


# Source code


def _code(text: str) -> str:
    """A piece of a line of code, which may be broken behind a parenthesis."""
    return escaped(text).replace("(", "(<wbr>")


def source(function: Callable[..., object], name: str) -> str:
    """The lines of a function as they are installed, without its docstring, with their numbers."""
    try:
        lines, first = inspect.getsourcelines(function)
        file = Path(inspect.getfile(function)).relative_to(PACKAGE).as_posix()
    except OSError:
        return f'<p class="note">The source of {escaped(name)} is not installed here.</p>'
    code = textwrap.dedent("".join(lines))
    marks: dict[int, list[tuple[int, int, str]]] = {}
    hidden: set[int] = set()
    before = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        (line, start), (end_line, stop) = token.start, token.end
        kind = {tokenize.COMMENT: "c", tokenize.STRING: "s"}.get(token.type, "k" if keyword.iskeyword(token.string) else "")
        if token.type == tokenize.STRING and before in (tokenize.INDENT, tokenize.NEWLINE):
            hidden |= set(range(line, end_line + 1))  # a docstring
        elif kind and line == end_line:
            marks.setdefault(line, []).append((start, stop, kind))
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            before = token.type
    shown = []
    for number, text in enumerate(code.splitlines(), start=1):
        if number in hidden:
            continue
        at, html = 0, ""
        for start, stop, kind in marks.get(number, []):
            html += f'{_code(text[at:start])}<span class="{kind}">{escaped(text[start:stop])}</span>'
            at = stop
        indent = len(text) - len(text.lstrip())
        shown.append(f'<span class="line" style="--i:{indent}" data-n="{first + number - 1}">{html}{_code(text[at:])}\n</span>')
    state = " open" if len(shown) <= LONGEST_OPEN else ""
    return (
        f'<details class="source"{state}><summary><code>{escaped(name)}</code> '
        f"<span>minisbert/{escaped(file)}, line {first}</span></summary>"
        f'<pre tabindex="0" aria-label="Source of {escaped(name)}"><code>{"".join(shown)}</code></pre></details>'
    )


# Formulas, in MathML


def mi(name: str) -> str:
    """A variable."""
    return f"<mi>{name}</mi>"


def mo(sign: str) -> str:
    """An operator."""
    return f"<mo>{sign}</mo>"


def sub(base: str, index: str) -> str:
    """A variable with an index."""
    return f"<msub><mi>{base}</mi><mrow>{index}</mrow></msub>"


def call(name: str, *inside: str) -> str:
    """A function of something."""
    return (
        f'<mrow><mi mathvariant="normal">{name}</mi><mo stretchy="false">(</mo>{"".join(inside)}<mo stretchy="false">)</mo></mrow>'
    )


def fraction(above: str, below: str) -> str:
    """One above the other."""
    return f"<mfrac><mrow>{above}</mrow><mrow>{below}</mrow></mfrac>"


def norm(name: str) -> str:
    """The length of a vector."""
    return f"<mrow><mo>‖</mo><mi>{name}</mi><mo>‖</mo></mrow>"


def sum_over(index: str) -> str:
    """∑ over an index."""
    return f"<munder><mo>∑</mo><mrow>{index}</mrow></munder>"


def math_block(*parts: str) -> str:
    """A formula in a line of its own."""
    return f'<math display="block">{"".join(parts)}</math>'
