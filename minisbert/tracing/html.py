"""The building blocks of the page of a trace: text, tables and source code, as HTML.

They do not depend on a trace. Text of a user is always escaped. Styles are in `page.css`.
"""

from __future__ import annotations

import inspect
import io
import keyword
import textwrap
import tokenize
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


# Text


def escaped(text: str) -> str:
    """A text for HTML, between tags or in a quoted attribute. Control characters become visible symbols."""
    return escape("".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else "␡" if c == "\x7f" else c for c in text))


def shortened(text: str, length: int) -> str:
    """A text, shortened to at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def piece(token: str) -> str:
    """A word piece, with a paler ##."""
    mark = "<i>##</i>" if token.startswith("##") and len(token) > 2 else ""
    return f'<bdi class="t">{mark}{escaped(token.removeprefix("##") if mark else token)}</bdi>'


def direction(text: str) -> str:
    """The attribute for the writing direction of a word's pieces."""
    first = next((kind for kind in map(unicodedata.bidirectional, text) if kind in ("L", "R", "AL")), "L")
    return "" if first == "L" else ' dir="rtl"'


def decimal(value: float, digits: int = 3) -> str:
    """A decimal number with a minus sign (−), and none before a zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if not float(text) else text.replace("-", "−")


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table with cells of HTML; the first column has the names of the rows."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><caption>{caption}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def bar(value: float, largest: float, text: str) -> str:
    """A value with a bar, which is full for the largest value."""
    width = min(1.0, abs(value) / largest) if largest else 0.0
    side = " less" if value < 0 else ""
    return f'<span class="bar{side}" style="--w:{width:.3f}">{text}</span>'


def legend() -> str:
    """The legend of a picture of positive and negative values."""
    return '<span class="key more">more than 0</span> <span class="key less">less than 0</span>'


def folded(caption: str, html: str, kind: str = "") -> str:
    """HTML in a closed section, which a click opens."""
    return f'<details class="{kind}"><summary>{caption}</summary>{html}</details>'


# Source code


def _code(text: str) -> str:
    """A part of a line of code, which may break after a parenthesis."""
    return escaped(text).replace("(", "(<wbr>")


def source(function: Callable[..., object], name: str, *parts: str) -> str:
    """The installed source lines of a function that contain one of the parts, with their numbers, in a closed section."""
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
    numbered = [(number, text) for number, text in enumerate(code.splitlines(), start=1) if number not in hidden]
    wanted = [(number, text) for number, text in numbered if any(part in text for part in parts)] or numbered
    least = min(len(text) - len(text.lstrip()) for _, text in wanted if text.strip())
    shown = []
    for number, text in wanted:
        at, html = least, ""
        for start, stop, kind in marks.get(number, []):
            html += f'{_code(text[at:start])}<span class="{kind}">{escaped(text[start:stop])}</span>'
            at = stop
        indent = len(text) - len(text.lstrip()) - least
        shown.append(f'<span class="line" style="--i:{indent}" data-n="{first + number - 1}">{html}{_code(text[at:])}\n</span>')
    return (
        f'<details class="source"><summary>Code: <code>{escaped(name)}</code> '
        f"<span>minisbert/{escaped(file)}, line {first + wanted[0][0] - 1}</span></summary>"
        f'<pre tabindex="0" role="region" aria-label="Source of {escaped(name)}"><code>{"".join(shown)}</code></pre></details>'
    )
