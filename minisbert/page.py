"""A trace as a page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minisbert.tracing import Trace


def render(trace: Trace) -> str:
    """The page."""
    return f"<!DOCTYPE html><html lang='en'><meta charset='utf-8'><title>minisbert</title><pre>{escape(repr(trace))}</pre></html>\n"


def in_a_frame(page: str) -> str:
    """The page in a frame of its own, for a notebook."""
    return f'<iframe sandbox="allow-scripts" title="minisbert trace" srcdoc="{escape(page)}"></iframe>'
