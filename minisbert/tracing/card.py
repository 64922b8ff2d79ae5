"""The answer as one picture: both sentences coloured by what each token adds to the cosine, the cosine after each layer, and every
pair of tokens. An SVG that a browser, GitHub and a slide can show; it follows the reader's light or dark colours.

The picture in the README is made by

    python -c "import minisbert; pair = 'A man is eating food.', 'Someone is having a meal.'
    minisbert.trace(*pair, model='all-MiniLM-L6-v2').save_svg('scripts/trace.svg')"
"""

from __future__ import annotations

from pathlib import Path

from minisbert.tracing.answer import pair_colour, token_colour
from minisbert.tracing.html import decimal, escaped, shortened
from minisbert.tracing.pairs import Traced

MOST_TOKENS = 24
"""The most tokens of each sentence; a picture of more would be too small to read."""

LETTER = 9.6
"""The width of a letter in 16 px monospace type."""

STYLE = """
.paper { fill: #fbfaf6; } text { fill: #1d1c1a; font: 16px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.soft { fill: #5f5b54; font-size: 13px; } .big { font-size: 40px; font-weight: 600; } .small { font-size: 12px; }
.more { fill: #149688; } .less { fill: #e25c30; } .a { fill: #1f5fbf; } .b { fill: #a8480c; }
.name { fill: #fbfaf6; font-weight: 700; }
line, polyline { stroke: #dedad0; fill: none; } polyline { stroke: #7c5cf6; stroke-width: 2.5; } circle { fill: #7c5cf6; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #14161b; } text { fill: #eceae5; } .soft { fill: #b0ada6; } .more { fill: #2dbeac; } .less { fill: #f2784c; }
  .a { fill: #85b4ff; } .b { fill: #f2a06a; } .name { fill: #14161b; } line { stroke: #343842; } polyline { stroke: #a086ff; }
  circle { fill: #a086ff; }
}
"""


def render(trace: Traced) -> str:
    """The picture as text."""
    matrix, b = trace.pair_matrix, trace.second("svg")
    for name, one in ("a", trace.a), ("b", b):
        if len(one.tokens) > MOST_TOKENS:
            raise ValueError(
                f"svg: {name} has {len(one.tokens)} tokens, expected at most {MOST_TOKENS}. Take a shorter sentence, or save_html."
            )
    left, width = 48.0, 0.0
    drawn = []
    for name, one, given, y in ("a", trace.a, matrix.sum(dim=1), 78), ("b", b, matrix.sum(dim=0), 122):
        drawn.append(f'<rect class="{name}" x="16" y="{y - 18}" width="24" height="25" rx="6"/>')
        drawn.append(f'<text class="name" x="28" y="{y}" text-anchor="middle">{name.upper()}</text>')
        x = left
        for token, value in zip(one.tokens, given.tolist(), strict=True):
            text = shortened(token, 14)
            wide = LETTER * len(text)
            drawn.append(_tint(x, y - 19, wide + 8, 27, value, token_colour(value, len(given))) + _text(x + 4, y, text, wide))
            x += wide + 12
        width = max(width, x)
    cell, top, labels = 46, 366, 8 + LETTER * max(len(shortened(token, 14)) for token in trace.a.tokens)
    width = max(width + 16, 16 + labels + cell * len(b.tokens) + 70, 560)
    values = trace.layer_cosines.tolist()
    answer = (
        f'<text class="soft" x="16" y="180">cosine</text><text class="big" x="16" y="222">{decimal(trace.cosine, 4)}</text>'
        + _chart(values, 210, 164, width - 30)
    )
    drawn.append(answer)
    pairs = matrix.numel()
    for j, token in enumerate(b.tokens):
        x = 16 + labels + cell * (j + 0.5)
        drawn.append(
            f'<text class="small" transform="translate({x + 4:.1f} {top - 6}) rotate(-45)">{escaped(shortened(token, 14))}</text>'
        )
    for i, (token, row) in enumerate(zip(trace.a.tokens, matrix.tolist(), strict=True)):
        y = top + 28 * i
        text = shortened(token, 14)
        drawn.append(_text(16 + labels - 8 - LETTER * len(text), y + 19, text, LETTER * len(text)))
        for j, value in enumerate(row):
            x = 16 + labels + cell * j
            drawn.append(_tint(x, y, cell - 3, 25, value, pair_colour(value, pairs)))
            drawn.append(
                f'<text class="small" x="{x + cell / 2 - 1.5:.1f}" y="{y + 17}" text-anchor="middle">{decimal(value)}</text>'
            )
        drawn.append(f'<text class="soft" x="{16 + labels + cell * len(row) + 8:.1f}" y="{y + 17}">{decimal(sum(row))}</text>')
    bottom = top + 28 * len(trace.a.tokens) + 24
    total = f"What each pair of tokens adds: all {pairs} sum to {decimal(matrix.sum().item(), 4)}"
    drawn.append(f'<text class="soft" x="16" y="{bottom}">{total}</text>')
    model = Path(trace.encoder.model).name
    label = f"Cosine {decimal(trace.cosine, 4)} of “{trace.a.text}” and “{b.text}”, with what each token and each pair adds"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {bottom + 18}" width="{width:.0f}" '
        f'height="{bottom + 18}" role="img" aria-label="{escaped(label)}"><!-- minisbert trace --><title>{escaped(label)}</title>'
        f'<style>{STYLE}</style><rect class="paper" width="100%" height="100%" rx="12"/><text class="soft" x="16" y="34">'
        f"minisbert trace · {escaped(model)}</text>{''.join(drawn)}</svg>\n"
    )


def _tint(x: float, y: float, width: float, height: float, value: float, strength: float) -> str:
    return (
        f'<rect class="{"less" if value < 0 else "more"}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="4" '
        f'opacity="{0.6 * strength:.3f}"/>'
    )


def _text(x: float, y: float, text: str, width: float) -> str:
    """Squeezed or stretched to its width, whatever monospace type there is."""
    return f'<text x="{x:.1f}" y="{y:.1f}" textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs">{escaped(text)}</text>'


def _chart(values: list[float], left: float, top: float, right: float) -> str:
    """The cosine after the embeddings and after each layer."""
    height, lowest = 80, min(0.0, *values)
    step = (right - left - 20) / max(1, len(values) - 1)
    points = [(left + 10 + step * k, top + 14 + (1 - value) / (1 - lowest) * height) for k, value in enumerate(values)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/><text class="small" x="{x:.1f}" y="{y - 9:.1f}" text-anchor="middle">'
        f'{decimal(value, 2)}</text><text class="soft" x="{x:.1f}" y="{top + height + 34}" '
        f'text-anchor="middle">{k or "emb."}</text>'
        for k, (value, (x, y)) in enumerate(zip(values, points, strict=True))
    )
    zero = top + 14 + height / (1 - lowest)
    return (
        f'<line x1="{left}" x2="{right:.1f}" y1="{zero:.1f}" y2="{zero:.1f}"/><polyline points="{line}"/>{marks}'
        f'<text class="soft" x="{left:.1f}" y="{top - 8}">cosine after each layer</text>'
    )
