"""The head of the page: the answer first. Both sentences, coloured by what each token adds to the cosine, and the cosine."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from minisbert.bert import BertConfig
from minisbert.checkpoint.families import FAMILIES
from minisbert.tracing.html import decimal, escaped, piece, shortened
from minisbert.tracing.pairs import Traced
from minisbert.tracing.record import SentenceTrace
from minisbert.tracing.steps import Named, Step, is_mark, sentence_badge

LONG_TEXT = 160
"""Characters; a longer text is set in smaller type."""


def token_colour(value: float, tokens: int) -> float:
    """How strong the colour of a token is, 0 to 1: full at an even share of a cosine of 1. The same scale on every page."""
    return min(1.0, abs(value) * tokens)


def pair_colour(value: float, pairs: int) -> float:
    """How strong the colour of a pair is, 0 to 1: full at twice an even share of a cosine of 1. The same scale on every page."""
    return min(1.0, abs(value) * pairs / 2)


def pair_matrix_of(trace: Traced) -> Tensor | None:
    """The pair matrix, or None where the model has none."""
    try:
        return trace.pair_matrix
    except ValueError:  # there is one sentence only, or the cosine is no sum over tokens
        return None


def ramp(full: float, what: str) -> str:
    """The legend of a fixed scale of colours."""
    return (
        f'<span class="ramp" role="img" aria-label="From {decimal(-full, 4)} over 0 to {decimal(full, 4)}"></span> '
        f"<span>takes away <b>{decimal(-full, 4)}</b> … <b>{decimal(full, 4)}</b> adds: {what}. The scale is the same on "
        "every page.</span>"
    )


def together_and_apart(matrix: Tensor) -> str:
    """What the pairs add and what they take away, and that this is the cosine."""
    total = decimal(matrix.sum().item(), 4)
    more, less = matrix[matrix > 0], matrix[matrix < 0]
    if not len(less):
        return f"All {len(more)} pairs of tokens add to it: together {total}."
    return (
        f"{len(more)} pairs of tokens pull together, {decimal(more.sum().item(), 4)}; {len(less)} pull apart, "
        f"{decimal(less.sum().item(), 4)}. The sum is {total}."
    )


def coloured(name: str, one: SentenceTrace, given: Tensor, sentences: Named) -> str:
    """The text, each token coloured by what it adds; special tokens stand at the ends."""
    marks, at = is_mark(one), 0
    shown: list[str] = []
    sides = ["", ""]
    for i, (token, value, span) in enumerate(zip(one.tokens, given.tolist(), one.offsets.tolist(), strict=True)):
        special = one.word_of[i] < 0
        kind = "tok special mark" if special else "tok mark" if marks[i] else "tok"
        start, stop = span
        # Tokens of byte-level BPE may share a letter, such as an emoji: the letter stands with the first.
        text = piece(token) if special else escaped(one.text[start:stop]) if start >= at else "·"
        html = (
            f'<span class="{kind}" data-i="{i}" style="--v:{token_colour(value, len(given)):.3f}" '
            f'data-sign="{"less" if value < 0 else "more"}">{text}</span>'
        )
        if special:
            sides[len(shown) > 0] += html
            continue
        shown.append(escaped(one.text[at:start]) + html)
        at = max(at, stop)
    rest = one.text[at:]
    cut = f'<s class="beyond">{escaped(shortened(rest, 300))}</s>' if one.cut else escaped(rest)
    kind = f"{name} long" if len(one.text) > LONG_TEXT else name
    return (
        f'<p class="spoken {kind}" data-side="{name}">{sentence_badge(name, sentences)} {sides[0]} '
        f'<bdi class="text">{"".join(shown)}{cut}</bdi> {sides[1]}</p>'
    )


def head(trace: Traced, sentences: Named, facts: list[str]) -> str:
    """What stands at the top."""
    title = "How a sentence becomes a vector" if trace.b is None else "How similar are these two, and why?"
    matrix = pair_matrix_of(trace)
    told, answer = "", ""
    if matrix is None or trace.b is None:
        for name, one in sentences:
            kind = f"{name} long" if len(one.text) > LONG_TEXT else name
            text = escaped(one.text) or "<i>(an empty text)</i>"
            told += f'<p class="spoken {kind}">{sentence_badge(name, sentences)} <bdi class="text">{text}</bdi></p>'
    else:
        told = coloured("a", trace.a, matrix.sum(dim=1), sentences) + coloured("b", trace.b, matrix.sum(dim=0), sentences)
    if trace.b is not None:
        cosine = trace.cosine
        answer = (
            f'<p class="answer"><span>cosine</span> <output id="answer" data-value="{cosine!r}">{decimal(cosine, 6)}</output> '
            f'<span class="meter" aria-hidden="true"><span style="left:{50 + 50 * cosine:.2f}%"></span></span><small>−1 '
            "opposite · 0 unrelated · 1 the same direction</small></p>"
        )
    if matrix is not None and trace.b is not None:
        tokens = min(matrix.shape)
        share = f"1/{matrix.shape[0]}" if len(set(matrix.shape)) == 1 else f"1/{matrix.shape[0]} in A, 1/{matrix.shape[1]} in B"
        equal = ", and in the mean each counts as much as a word" if trace.encoder.pooling.modes == ("mean",) else ""
        full = f"the colour is full at an even share of a cosine of 1 ({share})"
        answer += (
            f'<output class="say big" id="pair-say" aria-live="polite">{together_and_apart(matrix)}<span class="js-only"> Point '
            "at a token, or use Tab and ← →, to see its partners in the other sentence; a click or Enter pins it, Esc releases it."
            f'</span></output><p class="note legend">{ramp(1 / tokens, full)}</p><p class="note fading"><button type="button" '
            'id="fade" class="js-only" aria-pressed="false">Fade special tokens and punctuation</button> They count too, and can '
            f"be dark, because attention has mixed the whole sentence into their vectors{equal}.</p>"
        )
    return (
        f'<header class="top" id="text"><p class="kicker">minisbert trace</p><h1 tabindex="-1">{title}</h1>'
        f'<div class="spoken-pair">{told}</div>{answer}<p class="facts">{" · ".join(facts)}</p></header>'
    )


def trained_here(folder: Path) -> list[str]:
    """How `minisbert.train` made the model of this folder, from the state that it keeps beside it; nothing for other models."""
    from safetensors import safe_open

    file = folder.with_name(f"{folder.name}.training") / "state.safetensors"
    if not folder.is_absolute() or not file.exists():
        return []
    with safe_open(file, framework="pt") as state:
        history = json.loads((state.metadata() or {})["about"])["history"]
    steps, said = history["steps"], ""
    if not steps:
        return []
    if history["evaluations"]:
        name, value = next(iter(history["evaluations"][-1]["measures"].items()))
        said = f", {name} {decimal(value, 4)}"
    first, last = (decimal(step["loss"], 4) for step in (steps[0], steps[-1]))
    return [escaped(f"trained by minisbert: {len(steps)} steps, loss {first} → {last}{said}")]


def facts(trace: Traced) -> list[str]:
    """What the model is, in a line."""
    config, encoder = trace.encoder.bert.config, trace.encoder
    return [
        escaped(Path(encoder.model).name if Path(encoder.model).is_absolute() else encoder.model),
        _family(config),
        f"{config.num_hidden_layers} layers of {config.num_attention_heads} heads",
        f"{config.hidden_size} dimensions a token",
        f"{len(trace.a.embedding)} a sentence",
        str(encoder.dtype).removeprefix("torch."),
        *trained_here(Path(encoder.model)),
    ]


def strip(trace: Traced, steps: list[Step]) -> str:
    """The way from text to cosine: always in sight, and the navigation."""
    letters = " + ".join(str(len(one.text)) for one in (trace.a, trace.b) if one is not None)
    links = [f'<a href="#text"><b>Text</b><small>{letters} characters</small></a>', *(step.link for step in steps)]
    items = "".join(f"<li>{link}</li>" for link in links)
    return f'<nav class="strip-nav" aria-label="From text to cosine"><ol>{items}</ol></nav>'


def _family(config: BertConfig) -> str:
    """What the model is, and in what it differs from BERT."""
    differences = [f"positions from {config.position_offset}"] if config.position_offset else []
    if not config.type_vocab_size:
        differences.append("no segments")
    if config.relative_attention_num_buckets:
        differences.append("a bias for the distance of two tokens")
    return FAMILIES[config.model_type].name + (f" (as BERT, but {', '.join(differences)})" if differences else "")
