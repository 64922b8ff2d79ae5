"""A trace as a page: one HTML file, to be opened by a double click, read, projected and printed.

What each step says and shows, with the values of the trace, is in `answer.py`, `steps.py`, `layers.py` and `comparison.py`.
Without JavaScript it is a whole document. The frame around it is `page.html`, its looks are `page.css`, its interactive parts are
`page.js`. The page may load nothing: its Content-Security-Policy forbids it, and runs no script but the one whose hash it names,
whatever stands in the sentences.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from importlib.resources import files

import torch
from torch import Tensor

from minisbert.tracing.answer import facts, head, pair_matrix_of, strip
from minisbert.tracing.comparison import cosine_step, neighbours_step, pairs_step
from minisbert.tracing.html import escaped, shortened
from minisbert.tracing.layers import heads_are_shown, layers_step
from minisbert.tracing.pairs import Traced
from minisbert.tracing.steps import Named, embeddings_step, pooling_step, tokens_step, vector_step

BYTES_SHOWN = 5 << 17
"""The most bytes of queries, keys and scores in the page; above it, the page shows scores and softmax only."""


def render(trace: Traced) -> str:
    """The page: a whole HTML document."""
    template, style, script = (
        files("minisbert.tracing").joinpath(f"page.{kind}").read_text("utf-8")  # the package may lie in a zip file
        for kind in ("html", "css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sentences: Named = [("a", trace.a)] + ([("b", trace.b)] if trace.b is not None else [])
    steps = [
        tokens_step(trace, sentences),
        embeddings_step(sentences),
        layers_step(trace, sentences),
        pooling_step(trace, sentences),
        vector_step(trace, sentences),
    ]
    if trace.b is not None:
        steps += [cosine_step(trace), pairs_step(trace, trace.b)]
    if trace.corpus:
        steps.append(neighbours_step(trace, sentences))
    parts = {
        "csp": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'",
        "title": escaped(" · ".join(shortened(one.text, 40) for _, one in sentences)),
        "style": style,
        "strip": strip(trace, steps),
        "head": head(trace, sentences, facts(trace)),
        "steps": "\n".join(step.html.replace("{number}", str(number), 1) for number, step in enumerate(steps, start=1)),
        # The one character that could end the element it stands in.
        "data": json.dumps(_data(trace, sentences), ensure_ascii=True).replace("<", "\\u003c"),
        "script": script,
    }
    # All at once, so that a sentence with {{title}} in it stays what it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda name: parts[name[1]], template)


def in_a_frame(page: str) -> str:
    """The page in a frame of its own, for a notebook: it cannot reach the notebook, nor anything else."""
    return (
        '<iframe sandbox="allow-scripts" title="minisbert trace" style="width:100%;height:45rem;border:1px solid #8888" '
        f'srcdoc="{escape(page)}"></iframe>'
    )


def _data(trace: Traced, sentences: Named) -> dict[str, object]:
    """What the interactive parts need: tokens, scores of attention, queries and keys, pairs; see the head of `page.js`."""
    data: dict[str, object] = {}
    matrix = pair_matrix_of(trace)
    if matrix is not None:
        data["pairs"] = _base64(matrix.to(torch.float32))
    shown = heads_are_shown(sentences)
    few = sum(one.query.numel() + one.key.numel() + 2 * one.attention.numel() for _, one in sentences) <= BYTES_SHOWN
    for name, one in sentences:
        _, heads, _, head_dim = one.query.shape
        own: dict[str, object] = {"tokens": [shortened(token, 40) for token in one.tokens]}
        own |= {"heads": heads if shown else 1, "d": head_dim}
        data[name] = own
        if not shown:
            average = one.attention.float().mean(dim=1)  # [layers, tokens, tokens]
            own |= {"attention": _base64((average * 255).round().to(torch.uint8))}
            continue
        scores = one.query.float() @ one.key.float().transpose(-1, -2) * head_dim**-0.5  # [layers, heads, tokens, tokens]
        own |= {"scores": _scaled(scores, torch.int16)}
        if one.attention_bias is not None:
            own |= {"bias": _scaled(one.attention_bias.float()[None], torch.int16)}
        if few:
            own |= {"queries": _scaled(one.query.float(), torch.int8), "keys": _scaled(one.key.float(), torch.int8)}
    return data


def _scaled(values: Tensor, dtype: torch.dtype) -> dict[str, object]:
    """[layers, ...] → integers, and for each layer the factor that scales them back."""
    most = torch.iinfo(dtype).max
    steps = values.flatten(1).abs().amax(dim=1).clamp(min=1e-9) / most  # [layers]
    whole = (values / steps.view(-1, *[1] * (values.ndim - 1))).round().to(dtype)
    return {"steps": steps.tolist(), "values": _base64(whole)}


def _base64(values: Tensor) -> str:
    """The bytes of a tensor, the lowest byte of each value first, row by row."""
    return base64.b64encode(bytes(values.contiguous().flatten().view(torch.uint8).tolist())).decode()
