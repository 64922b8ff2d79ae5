"""A trace as a page: one HTML file, to be opened by a double click, read, projected and printed.

Here stands what each step says and shows, with the numbers of the trace; the pieces it is put together from are in `drawing.py`.
Without JavaScript it is a whole document. The frame around it, its looks and its interactive parts are `page.html`. The page may
load nothing: its Content-Security-Policy forbids it, and runs no script but the one whose hash it names, whatever stands in the
sentences.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from importlib.resources import files
from pathlib import Path

import torch

from minisbert.bert import BertConfig
from minisbert.checkpoint.families import FAMILIES
from minisbert.tracing.comparison import LARGEST_TABLE, cosine_step, neighbours_step, pair_matrix_of, pairs_step
from minisbert.tracing.html import (
    decimal,
    escaped,
    shortened,
)
from minisbert.tracing.layers import heads_are_shown, layers_step
from minisbert.tracing.pairs import Traced
from minisbert.tracing.steps import (
    LONG_TEXT,
    Named,
    embeddings_step,
    pooling_step,
    sentence_badge,
    tokens_step,
    vector_step,
)


def render(trace: Traced) -> str:
    """The page: a whole HTML document."""
    template = files("minisbert.tracing").joinpath("page.html").read_text("utf-8")  # the package may lie in a zip file
    script = template.rpartition("<script>")[2].partition("</script>")[0]
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
        "head": _head(trace, sentences, [title for title, _ in steps]),
        "steps": "\n".join(html.replace("{number}", str(number), 1) for number, (_, html) in enumerate(steps, start=1)),
        # The one character that could end the element it stands in.
        "data": json.dumps(_data(trace, sentences), ensure_ascii=True).replace("<", "\\u003c"),
    }
    # All at once, so that a sentence with {{title}} in it stays what it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda name: parts[name[1]], template)


def in_a_frame(page: str) -> str:
    """The page in a frame of its own, for a notebook: it cannot reach the notebook, nor anything else."""
    return (
        '<iframe sandbox="allow-scripts" title="minisbert trace" style="width:100%;height:45rem;border:1px solid #8888" '
        f'srcdoc="{escape(page)}"></iframe>'
    )


# The steps


def _head(trace: Traced, sentences: Named, steps: list[str]) -> str:
    config, encoder = trace.encoder.bert.config, trace.encoder
    title = "How a sentence becomes a vector" if trace.b is None else "How similar are these two, and why?"
    quotes = ""
    for name, one in sentences:
        kind = f"{name} long" if len(one.text) > LONG_TEXT else name
        text = escaped(one.text) or "<i>(an empty text)</i>"
        quotes += f'<blockquote class="{kind}">{sentence_badge(name, sentences)}<p><bdi>{text}</bdi></p></blockquote>'
    answer = ""
    if trace.b is not None:
        cosine = trace.cosine
        answer = (
            f'<p class="answer"><span>cosine</span> <output id="answer" data-value="{cosine!r}">{decimal(cosine, 6)}</output> '
            f'<span class="meter" aria-hidden="true"><span style="left:{50 + 50 * cosine:.2f}%"></span></span><small>−1 '
            "opposite · 0 unrelated · 1 the same "
            "direction</small></p>"
        )
    name = escaped(Path(encoder.model).name if Path(encoder.model).is_absolute() else encoder.model)
    facts = (
        f"{name} · {_family(config)} · {config.num_hidden_layers} layers of {config.num_attention_heads} heads · "
        f"{config.hidden_size} numbers a token · {len(trace.a.embedding)} a sentence · {str(encoder.dtype).removeprefix('torch.')}"
    )
    items = "".join(f"<li>{step}</li>" for step in steps)
    return (
        f'<header class="top"><p class="kicker">minisbert trace</p><h1>{title}</h1>{quotes}{answer}<p '
        f'class="facts">{facts}</p><nav aria-label="The steps"><ol>{items}</ol></nav></header>'
    )


def _family(config: BertConfig) -> str:
    """What the model is, and in what it differs from BERT."""
    differences = [f"positions from {config.position_offset}"] if config.position_offset else []
    if not config.type_vocab_size:
        differences.append("no segments")
    if config.relative_attention_num_buckets:
        differences.append("a bias for the distance of two tokens")
    return FAMILIES[config.model_type].name + (f" (as BERT, but {', '.join(differences)})" if differences else "")


def _data(trace: Traced, sentences: Named) -> dict[str, object]:
    """What the interactive parts need: tokens, attention as bytes (weight × 255, [layers, heads, tokens, tokens]), pairs."""
    data: dict[str, object] = {}
    matrix = pair_matrix_of(trace)
    if matrix is not None and matrix.numel() <= LARGEST_TABLE:
        data["pairs"] = [[round(value, 8) for value in row] for row in matrix.tolist()]
    for name, one in sentences:
        weights = one.attention.float() if heads_are_shown(sentences) else one.attention.float().mean(dim=1, keepdim=True)
        levels = bytes((weights * 255).round().to(torch.uint8).flatten().tolist())
        data[name] = {
            "tokens": [shortened(token, 40) for token in one.tokens],
            "heads": weights.shape[1],
            "attention": base64.b64encode(levels).decode(),
        }
    return data
