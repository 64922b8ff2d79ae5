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
from collections.abc import Callable
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from minisbert import bert, pooling, tracing
from minisbert.drawing import (
    bar,
    call,
    cosine_chart,
    decimal,
    direction,
    escaped,
    flow_picture,
    fraction,
    grid,
    heat,
    html_table,
    legend,
    math_block,
    mi,
    mo,
    norm,
    piece,
    shortened,
    signs,
    source,
    sub,
    sum_over,
    sum_picture,
)
from minisbert.encoder import SentenceEncoder
from minisbert.tokenizer import WordPiece

if TYPE_CHECKING:
    from minisbert.tracing import SentenceTrace, Trace

Named = list[tuple[str, "SentenceTrace"]]

SHOWN = 48
"""Of a token's vector, so many numbers are drawn."""

ATTENTION_BYTES = 1 << 19
"""All heads are in the page while their weights, a byte each, fit into this; of longer sentences it holds each layer's average."""

LONG_TEXT = 200
"""Letters; a longer text is quoted in smaller type."""

LARGEST_TABLE = 1 << 12
"""Up to so many cells the pairs of tokens are a table with its numbers, beyond a picture."""


def render(trace: Trace) -> str:
    """The page: a whole HTML document."""
    template = (Path(__file__).parent / "page.html").read_text("utf-8")
    script = template.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sentences: Named = [("a", trace.a)] + ([("b", trace.b)] if trace.b is not None else [])
    steps = [
        _tokens_step(trace, sentences),
        _embeddings_step(sentences),
        _layers_step(trace, sentences),
        _pooling_step(trace, sentences),
        _vector_step(trace, sentences),
    ]
    if trace.b is not None:
        steps += [_cosine_step(trace), _pairs_step(trace, trace.b)]
    if trace.corpus:
        steps.append(_neighbours_step(trace, sentences))
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


# Formulas

Q_K = "<mrow><mi>Q</mi><msup><mi>K</mi><mi>T</mi></msup></mrow>"
EMBEDDING = math_block(mi("x"), mo("="), call("LayerNorm", mi("w"), mo("+"), mi("p"), mo("+"), mi("s")))
ATTENTION = math_block(call("softmax", fraction(Q_K, "<msqrt><mi>d</mi></msqrt>")), mi("V"))
LAYER = math_block(mi("x"), mo("←"), call("LayerNorm", mi("x"), mo("+"), call("Attention", mi("x")))) + math_block(
    mi("x"), mo("←"), call("LayerNorm", mi("x"), mo("+"), call("FFN", mi("x")))
)
POOL = math_block(mi("s"), mo("="), sum_over(mi("i")), sub("w", mi("i")), sub("h", mi("i")))
COSINE = math_block(
    call("cos", mi("u"), mo(","), mi("v")), mo("="), fraction(f"{mi('u')}{mo('·')}{mi('v')}", norm("u") + norm("v"))
)
PAIRS = math_block(
    call("cos", mi("u"), mo(","), mi("v")),
    mo("="),
    sum_over(mi("i")),
    sum_over(mi("j")),
    fraction(f"{sub('u', mi('i'))}{mo('·')}{sub('v', mi('j'))}", norm("u") + norm("v")),
)


def _how(formula: str, shape: str, paper: str, *sources: str) -> str:
    """How it is computed: beside every step."""
    return (
        f'<aside class="how"><div class="formula">{formula}</div><dl><dt>Shape</dt><dd><code>{shape}</code></dd>'
        f"<dt>Paper</dt><dd>{paper}</dd></dl>{''.join(sources)}</aside>"
    )


def _step(identity: str, title: str, plain: str, body: str, how: str, kind: str = "") -> tuple[str, str]:
    """One step of the way: what it is, what it did with these sentences, and how."""
    html = (
        f'<section class="step {kind}" id="{identity}" aria-labelledby="{identity}-title"><header><span class="n" '
        f'aria-hidden="true">{{number}}</span><h2 id="{identity}-title">{title}</h2></header><p class="plain">{plain}</p><div '
        f'class="body">{body}</div>{how}'
        "</section>"
    )
    return f'<a href="#{identity}">{title}</a>', html


def _badge(name: str, sentences: Named) -> str:
    return f'<span class="badge {name}">{name.upper()}</span>' if len(sentences) > 1 else ""


# The steps


def _head(trace: Trace, sentences: Named, steps: list[str]) -> str:
    config, encoder = trace.encoder.bert.config, trace.encoder
    title = "How a sentence becomes a vector" if trace.b is None else "How similar are these two, and why?"
    quotes = ""
    for name, one in sentences:
        kind = f"{name} long" if len(one.text) > LONG_TEXT else name
        text = escaped(one.text) or "<i>(an empty text)</i>"
        quotes += f'<blockquote class="{kind}">{_badge(name, sentences)}<p><bdi>{text}</bdi></p></blockquote>'
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
        f"{name} · {config.num_hidden_layers} layers of {config.num_attention_heads} heads · {config.hidden_size} numbers a "
        f"token · {len(trace.a.embedding)} a sentence · {str(encoder.dtype).removeprefix('torch.')}"
    )
    items = "".join(f"<li>{step}</li>" for step in steps)
    return (
        f'<header class="top"><p class="kicker">minisbert trace</p><h1>{title}</h1>{quotes}{answer}<p '
        f'class="facts">{facts}</p><nav aria-label="The steps"><ol>{items}</ol></nav></header>'
    )


def _tokens_step(trace: Trace, sentences: Named) -> tuple[str, str]:
    unknown = trace.encoder.tokenizer.tokenizer.model.unk_token
    figures = []
    for name, one in sentences:
        spans = [*zip(one.word_of.tolist(), one.tokens, one.offsets.tolist(), one.ids.tolist(), strict=True)]
        words = []
        for _, group in groupby(enumerate(spans), key=lambda item: item[1][0] if item[1][0] >= 0 else -1 - item[0]):
            pieces = [span for _, span in group]
            special = pieces[0][0] < 0
            text = "" if special else one.text[pieces[0][2][0] : pieces[-1][2][1]]
            chips = "".join(
                f'<span class="piece{" unknown" if token == unknown else ""}">{piece(token)}<small>{number}</small></span>'
                for _, token, _, number in pieces
            )
            above = "<span class='written'>added</span>" if special else f'<span class="written"><bdi>{escaped(text)}</bdi></span>'
            words.append(
                f'<li class="word{" special" if special else ""}">{above}<span class="pieces"{direction(text)}>{chips}</span></li>'
            )
        cut = ""
        if one.cut:
            pieces_cut = " ".join(f'<s class="piece">{piece(token)}</s>' for token in one.cut[:200])
            more = f" and {len(one.cut) - 200} more" if len(one.cut) > 200 else ""
            cut = (
                f'<p class="cut"><strong>{len(one.cut)} pieces were cut</strong>, beyond the limit of '
                f"{trace.encoder.max_seq_length} tokens. The model never saw: {pieces_cut}{more}</p>"
            )
        note = f'<p class="note">It begins with the prompt of this model, “{escaped(one.prompt)}”.</p>' if one.prompt else ""
        if unknown in one.tokens:
            note += f'<p class="note">{escaped(unknown)} stands for what no piece of the vocabulary can spell.</p>'
        figures.append(
            f'<div class="sentence">{_badge(name, sentences)}<ol class="words" aria-label="Words and their '
            f'pieces">{"".join(words)}</ol>'
            f"{cut}{note}</div>"
        )
    counts = " and ".join(str(len(one.tokens)) for _, one in sentences)
    return _step(
        "tokens",
        "Text to word pieces",
        "The model knows no words, only pieces of a fixed vocabulary. A word that is in it stays whole; another is cut into "
        "the longest pieces that are, and a piece that continues a word begins with ##. Each piece is from here on a number, "
        "and two marks frame it all.",
        "".join(figures),
        _how(
            "<p>the longest piece that fits, then the longest of what is left, …</p>",
            f"text → [tokens], here {counts}",
            "Devlin et al. 2019, BERT, section 3; Wu et al. 2016, section 4.1",
            source(WordPiece.__call__, "WordPiece.__call__"),
        ),
    )


def _embeddings_step(sentences: Named) -> tuple[str, str]:
    figures = []
    for name, one in sentences:
        parts = [("word", one.word), ("place", one.position), ("segment", one.token_type), ("normalized sum", one.embedded)]
        shown = min(SHOWN, one.word.shape[1])
        caption = f"The first {shown} numbers of each token's three vectors, and of their normalized sum"
        picture = sum_picture(caption, one.tokens, [(title, part[:, :SHOWN]) for title, part in parts])
        lengths = html_table(
            "How long each of the vectors is",
            ["token", "word", "place", "segment", "normalized sum"],
            ([piece(token), *(decimal(part[i].norm().item()) for _, part in parts)] for i, token in enumerate(one.tokens)),
        )
        figures.append(
            f'<figure class="sentence">{_badge(name, sentences)}{picture}<details><summary>The lengths of these vectors</summary>'
            f"{lengths}</details></figure>"
        )
    hidden = sentences[0][1].word.shape[1]
    return _step(
        "embeddings",
        "Three vectors that add up",
        f"Each piece looks up {hidden} numbers for what it is, {hidden} for where it stands and {hidden} for the segment it "
        "belongs to, always the first here. They are added and brought to one scale. This vector does not yet know its "
        "neighbours: a word means the same in every sentence.",
        "".join(figures)
        + f'<p class="note">The first {min(SHOWN, hidden)} of {hidden} numbers, a row a token. {legend()} The first three '
        "pictures have one scale.</p>",
        _how(
            EMBEDDING,
            f"[tokens] → [tokens, {hidden}]",
            "Devlin et al. 2019, BERT, section 3, figure 2",
            source(bert.Embeddings.forward, "Embeddings.forward"),
        ),
    )


def _heads_shown(sentences: Named) -> bool:
    """Whether the page holds every head, or the average of each layer."""
    return sum(one.attention.numel() for _, one in sentences) <= ATTENTION_BYTES


def _moved(one: SentenceTrace) -> Tensor:
    """[layers, tokens]: how far each layer turned each token's vector, as 1 − cosine of before and after."""
    return 1 - F.cosine_similarity(one.hidden[:-1].double(), one.hidden[1:].double(), dim=2)


def _layers_step(trace: Trace, sentences: Named) -> tuple[str, str]:
    config = trace.encoder.bert.config
    layers, count = config.num_hidden_layers, config.num_attention_heads
    overview, tables = [], []
    for name, one in sentences:
        moved = _moved(one)
        names = [f"layer {number}" for number in range(1, layers + 1)]
        cell = 26 if len(one.tokens) <= 16 else 16
        picture = heat(moved / moved.max().clamp(min=1e-9))
        overview.append(
            f'<figure class="sentence">{_badge(name, sentences)}'
            + grid(f"How far each layer moved each token of “{one.text}”", picture, names, one.tokens, cell)
            + "<details><summary>The numbers</summary>"
            + html_table(
                "1 − cosine of a token's vector before and after the layer",
                ["layer", *(piece(token) for token in one.tokens)],
                ([str(number), *(decimal(value) for value in row)] for number, row in enumerate(moved.tolist(), start=1)),
            )
            + "</details></figure>"
        )
    for number in range(layers):
        so_far = ""
        if trace.b is not None:
            so_far = f'<span class="so-far">cosine so far <b>{decimal(trace.layer_cosines[number + 1].item())}</b></span>'
        most = [f"{_badge(name, sentences)} {piece(one.tokens[int(_moved(one)[number].argmax())])}" for name, one in sentences]
        tables.append(
            f'<details class="layer" id="layer-{number + 1}"{"" if number else " open"}><summary><b>Layer {number + 1}</b> '
            "<span>moved "
            f'most: {" ".join(most)}</span>{so_far}</summary><div class="pair">'
            f"{''.join(_layer(name, one, number, sentences) for name, one in sentences)}</div></details>"
        )
    hint = (
        '<p class="hint js-only">Point at a token, or tab to a picture and use the arrow keys: up and down choose a token, left '
        "and right "
        'a head, Esc lets go. <button type="button" id="all-layers">Open all layers</button></p>'
    )
    hidden, inner = config.hidden_size, config.intermediate_size
    activation = {"gelu": "GELU", "gelu_new": "GELU", "gelu_pytorch_tanh": "GELU", "relu": "ReLU", "silu": "SiLU"}[
        config.hidden_act
    ]
    feed_forward = math_block(
        call(activation, mi("x"), sub("W", "<mn>1</mn>"), mo("+"), sub("b", "<mn>1</mn>")),
        sub("W", "<mn>2</mn>"),
        mo("+"),
        sub("b", "<mn>2</mn>"),
    )
    how = (
        '<div class="hows"><div><h3>Attention: look at the others</h3><p>Each token asks every token of its sentence how much it '
        f"matters to it, in {count} heads at once, and takes so much of each. The weights of one head add up to 1.</p>"
        + _how(
            ATTENTION,
            f"[tokens, {hidden}] → [{count} heads, tokens, tokens] → [tokens, {hidden}]",
            "Vaswani et al. 2017, section 3.2, equation 1",
            source(tracing.attention_weights, "attention_weights"),
            source(bert.attend, "attend"),
            source(bert.SelfAttention.forward, "SelfAttention.forward"),
        )
        + "</div><div><h3>Feed-forward: think alone</h3><p>Then each token is transformed by itself: into a wider vector, "
        f"through a bend, and back. {100 * inner / (inner + 2 * hidden):.0f} % of a layer's weights are here.</p>"
        + _how(
            feed_forward,
            f"[tokens, {hidden}] → [tokens, {inner}] → [tokens, {hidden}]",
            "Vaswani et al. 2017, section 3.3; Hendrycks &amp; Gimpel 2016",
            source(bert.FeedForward.forward, "FeedForward.forward"),
        )
        + "<h3>Add, and bring to scale</h3><p>Both steps only add something to the vector that came in, and the sum is "
        "normalized. So a token stays itself, and is changed a little.</p>"
        + _how(
            LAYER,
            f"[tokens, {hidden}] → [tokens, {hidden}]",
            "Vaswani et al. 2017, section 3.1",
            source(bert.Layer.forward, "Layer.forward"),
        )
        + "</div></div>"
    )
    return _step(
        "layers",
        "Through the layers",
        f"Now the tokens learn about each other. Each of the {layers} layers does the same two things, with weights of its own; "
        "after the last one, the vector of a word tells what it means in this very sentence.",
        f'{how}<h3>How far each layer moved each token</h3><div class="pair moves">{"".join(overview)}</div><p '
        'class="note">Full colour is the largest move of the sentence. Open a layer to see why.</p><h3>Layer by '
        f'layer</h3>{hint}<div class="layers">{"".join(tables)}</div>',
        "",
        "wide",
    )


def _layer(name: str, one: SentenceTrace, number: int, sentences: Named) -> str:
    """One sentence in one layer."""
    weights = one.attention[number].float()  # [heads, tokens, tokens]
    average = weights.mean(dim=0)
    tokens = len(one.tokens)
    cell = 24 if tokens <= 12 else 16 if tokens <= 24 else 14 if tokens <= 64 else 6
    picker, shown = "", average
    if _heads_shown(sentences):
        sheet = heat(torch.cat([*weights], dim=1))  # the heads, side by side
        group = f"head-{number}-{name}"
        choices = "".join(
            f'<label class="head"><input type="radio" name="{group}" value="{head}"><span class="thumb" style="--h:{head}"></span>'
            f"<small>{head + 1}</small></label>"
            for head in range(len(weights))
        )
        picker = (
            f'<fieldset class="heads" style="--sheet:url({sheet});--heads:{len(weights)}"><legend>The heads: each row is a token '
            "that "
            f'looks, each column one it looks at</legend><label class="head mean"><input type="radio" name="{group}" value="-1" '
            f"checked><span>average</span></label>{choices}</fieldset>"
        )
    else:
        picker = (
            '<p class="note">The sentence is long: this page holds the average of the heads, full colour at its largest weight.</p>'
        )
        shown = average / average.max()
    picture = grid(f"Attention in layer {number + 1}, average of the heads", heat(shown), one.tokens, one.tokens, cell, "matrix")
    before = one.hidden[number].double()
    attended = one.attention_out[number].double().norm(dim=1) / before.norm(dim=1)
    fed = one.feed_forward_out[number].double().norm(dim=1) / one.after_attention[number].double().norm(dim=1)
    moved = _moved(one)[number]
    rows = []
    for i, token in enumerate(one.tokens):
        strongest = average[i].topk(min(3, tokens))
        looks = ", ".join(
            f"{piece(one.tokens[j])} {100 * weight:.0f} %"
            for weight, j in zip(strongest.values.tolist(), strongest.indices.tolist(), strict=True)
        )
        bars = [bar(value[i].item(), value.max().item(), decimal(value[i].item(), 2)) for value in (attended, fed)]
        rows.append([piece(token), looks, *bars, bar(moved[i].item(), moved.max().item(), decimal(moved[i].item()))])
    table = html_table(
        "What the layer did to each token",
        ["token", "looks at (average)", "attention adds", "feed-forward adds", "moved"],
        rows,
        "did",
    )
    described = f"say-{number}-{name}"
    return (
        f'<div class="attention" data-sentence="{name}" data-layer="{number}"><p class="quote">{_badge(name, sentences)} '
        f"<bdi>{escaped(shortened(one.text, 120))}</bdi></p>{picker}"
        f'<div class="look" role="group" tabindex="0" aria-describedby="{described}" aria-label="Attention in layer '
        f"{number + 1}, sentence "
        f'{name.upper()}: up and down choose a token, left and right a head">{flow_picture(one.tokens, average)}{picture}</div>'
        f'<output class="say" id="{described}" aria-live="polite">Left: who looks, right: at whom. The more, the thicker.</output>'
        f"<details><summary>What the layer did to each token</summary>{table}"
        '<p class="note">“Adds”: the length of what is added, in lengths of what it is added to. “Moved”: 1 − cosine of before and '
        "after.</p></details></div>"
    )


MODES = {
    "mean": ("the average of its tokens' vectors", "mean pooling: each weight is 1/n"),
    "mean_sqrt_len_tokens": ("the sum of its tokens' vectors, divided by √n", "each weight is 1/√n"),
    "weightedmean": ("an average of its tokens' vectors in which later ones count more", "each weight grows with its place"),
    "cls": ("the vector of its first token", "the first weight is 1, the others are 0"),
    "lasttoken": ("the vector of its last token", "the last weight is 1, the others are 0"),
    "max": ("in each place the largest number among its tokens' vectors", "no weights: the largest wins"),
}


def _pooling_step(trace: Trace, sentences: Named) -> tuple[str, str]:
    figures = []
    for name, one in sentences:
        weights = one.pooling_weights.double()
        columns = ["token", "weight"]
        cells = [[bar(w, weights.max().item(), decimal(w, 4)) for w in weights.tolist()]]
        try:
            given = tracing.shares(trace.encoder, one)
        except ValueError:
            pass
        else:
            total = given.sum(dim=0)
            part = (given @ total) / total.square().sum()  # [tokens], which sum to 1
            columns.append("share of the vector")
            cells.append([bar(p, part.abs().max().item(), f"{decimal(100 * p, 1)} %") for p in part.tolist()])
        table = html_table(
            "How much each token counts, and how much of the sentence vector it is",
            columns,
            ([piece(token), *row] for token, row in zip(one.tokens, zip(*cells, strict=True), strict=True)),
            "did",
        )
        figures.append(f'<div class="sentence">{_badge(name, sentences)}{table}</div>')
    modes = trace.encoder.pooling.modes
    what = ", and beside it ".join(MODES[mode][0] for mode in modes)
    formula = math_block(sub("s", mi("k")), mo("="), sub("max", mi("i")), sub("h", mi("i"))) if modes == ("max",) else POOL
    return _step(
        "pooling",
        "Pooling: many vectors become one",
        f"The sentence's vector is {what}. The share says how much of it points the way the whole vector points: the shares add "
        "up to 100 %.",
        f'<div class="pair">{"".join(figures)}</div>',
        _how(
            formula + f"<p>{'; '.join(MODES[mode][1] for mode in modes)}</p>",
            f"[tokens, {trace.encoder.bert.config.hidden_size}] → [{trace.encoder.dimension}]",
            "Reimers &amp; Gurevych 2019, Sentence-BERT, section 3",
            source(pooling.token_weights, "token_weights"),
            source(pooling.pool, "pool"),
        ),
    )


def _vector_step(trace: Trace, sentences: Named) -> tuple[str, str]:
    largest = max(one.embedding.abs().max().item() for _, one in sentences)
    digits = 17 if trace.a.embedding.dtype == torch.float64 else 9  # so many that each number is exactly that of encode()
    figures = []
    for name, one in sentences:
        values = one.embedding.double()
        numbers = " ".join(f"{value:.{digits}g}" for value in values.tolist())
        figures.append(
            f'<figure class="sentence">{_badge(name, sentences)}<div class="strip" role="group" tabindex="0" '
            f'data-vector="{name}" aria-label="The {len(values)} numbers of sentence {name.upper()}: left and right choose one" '
            f'aria-describedby="number-{name}"><img src="{signs(one.embedding[None], largest)}" alt=""><span '
            f'class="cursor"></span></div><output class="say" id="number-{name}" aria-live="polite">{len(values)} numbers from '
            f"{decimal(values.min().item(), 4)} to {decimal(values.max().item(), 4)}; length "
            f"{decimal(values.norm().item(), 4)}</output>"
            f'<details><summary>All {len(values)} numbers</summary><p class="numbers" '
            f'data-embedding="{name}">{numbers}</p></details></figure>'
        )
    products = ""
    if trace.b is not None:
        a, b = (F.normalize(one.embedding.double(), dim=0) for one in (trace.a, trace.b))
        product = a * b
        products = (
            '<figure class="sentence"><span class="badge both">A × B</span><div class="strip"><img alt="" '
            f'src="{signs(product[None], product.abs().max().item())}"></div><figcaption class="say">Place by place, A times B: '
            f"where both have the same sign it is more than 0. At length 1, these {len(product)} products add up to the cosine, "
            f"{decimal(trace.cosine, 6)}.</figcaption></figure>"
        )
    formulas, sources = [], [source(SentenceEncoder.finish, "SentenceEncoder.finish")]
    for head in trace.encoder.heads:
        if isinstance(head, pooling.Dense):
            dense = (mi("W"), mi("s"), *((mo("+"), mi("b")) if head.linear.bias is not None else ()))
            bend = type(head.activation).__name__
            inside = dense if bend == "Identity" else (call(bend, *dense),)
            formulas.append(math_block(mi("s"), mo("←"), *((mi("s"), mo("+")) if head.residual is not None else ()), *inside))
        elif isinstance(head, pooling.LayerNorm):
            formulas.append(math_block(mi("s"), mo("←"), call("LayerNorm", mi("s"))))
        else:
            formulas.append(math_block(mi("s"), mo("←"), fraction(mi("s"), norm("s"))))
        sources.append(source(type(head).forward, f"{type(head).__name__}.forward"))
    plain = (
        f"These {len(trace.a.embedding)} numbers are what encode() returns: the meaning of the sentence, as the model sees it. "
        "No single one means anything; the direction of all of them does."
    )
    if len(trace.encoder.heads) and isinstance(trace.encoder.heads[-1], pooling.Normalize):
        plain += " This model scales its vectors to length 1."
    return _step(
        "vector",
        "The vector",
        plain,
        f'{"".join(figures)}{products}<p class="note">{legend()}</p>',
        _how(
            "".join(formulas) + math_block(mi("v"), mo("="), mi("s")),
            f"[{trace.encoder.pooling.dimension}] → [{len(trace.a.embedding)}]",
            "Reimers &amp; Gurevych 2019, Sentence-BERT, section 3",
            *dict.fromkeys(sources),
        ),
    )


def _cosine_step(trace: Trace) -> tuple[str, str]:
    values = trace.layer_cosines.tolist()
    table = html_table(
        "The cosine after each layer",
        ["after", "cosine"],
        ([f"layer {number}" if number else "the embeddings", decimal(value, 6)] for number, value in enumerate(values)),
    )
    return _step(
        "cosine",
        "The cosine, layer by layer",
        "How similar would the two be if the model had ended here? Only the last layer was trained to be compared. In the "
        "layers before, any two sentences are often close to each other, so watch how the number moves more than how large it "
        "is.",
        f'<figure>{cosine_chart(values)}<figcaption class="note">After the embeddings (emb.) and after layers 1 to '
        f"{len(values) - 1}.</figcaption><details><summary>The numbers</summary>{table}</details></figure>",
        _how(
            COSINE,
            f"[{len(values)}], a cosine after each",
            "Reimers &amp; Gurevych 2019, Sentence-BERT, section 3",
            source(_getter(tracing.Trace, "layer_cosines"), "Trace.layer_cosines"),
        ),
    )


def _getter(cls: type, name: str) -> Callable[..., object]:
    return cls.__dict__[name].func


def _pairs_step(trace: Trace, b: SentenceTrace) -> tuple[str, str]:
    title = "Every pair of tokens: the exact answer"
    how = _how(
        PAIRS,
        f"[{len(trace.a.tokens)}, {len(b.tokens)}], tokens of A and tokens of B",
        "by linearity of the pooling; Reimers &amp; Gurevych 2019, Sentence-BERT, section 3",
        source(tracing.pair_matrix, "pair_matrix"),
        source(tracing.shares, "shares"),
    )
    try:
        matrix = trace.pair_matrix
    except ValueError as error:
        return _step("pairs", title, escaped(str(error)), "", how)
    a, cosine = trace.a, trace.cosine
    rows, columns = matrix.sum(dim=1), matrix.sum(dim=0)
    largest = matrix.abs().max().item()

    def spoken(name: str, one: SentenceTrace, given: Tensor) -> str:
        most = max(given.abs().max().item(), 1e-30)
        words = []
        for i, (token, value) in enumerate(zip(one.tokens, given.tolist(), strict=True)):
            join = "" if token.startswith("##") or i == 0 else " "
            words.append(
                f'{join}<span class="tok" data-i="{i}" style="--v:{abs(value) / most:.3f}" '
                f'data-sign="{"less" if value < 0 else "more"}">'
                f"{piece(token)}</span>"
            )
        return f'<p class="spoken {name}" data-side="{name}"><span class="badge {name}">{name.upper()}</span> {"".join(words)}</p>'

    order = matrix.flatten().argsort(descending=True).tolist()[:10]
    top = html_table(
        "The ten pairs that add the most",
        ["A", "B", "adds", "of the cosine"],
        (
            [
                piece(a.tokens[at // len(b.tokens)]),
                piece(b.tokens[at % len(b.tokens)]),
                bar(matrix.flatten()[at].item(), largest, decimal(matrix.flatten()[at].item(), 4)),
                f"{decimal(100 * matrix.flatten()[at].item() / cosine, 1)} %",
            ]
            for at in order
        ),
        "did",
    )
    if matrix.numel() <= LARGEST_TABLE:
        dense = " dense" if max(matrix.shape) > 12 else ""
        head = "".join(f'<th scope="col" data-j="{j}"><span>{piece(token)}</span></th>' for j, token in enumerate(b.tokens))
        body = "".join(
            f'<tr><th scope="row" data-i="{i}">{piece(token)}</th>'
            + "".join(
                f'<td data-i="{i}" data-j="{j}" class="{"less" if value < 0 else "more"}" style="--v:{abs(value) / largest:.3f}">'
                f"<span>{decimal(value, 4)}</span></td>"
                for j, value in enumerate(row)
            )
            + f'<td class="sum">{decimal(rows[i].item(), 4)}</td></tr>'
            for i, (token, row) in enumerate(zip(a.tokens, matrix.tolist(), strict=True))
        )
        foot = "".join(f'<td class="sum">{decimal(value, 4)}</td>' for value in columns.tolist())
        heat = (
            f'<div class="scroll"><table class="heat{dense}" id="pair-matrix" tabindex="0" '
            'aria-describedby="pair-say"><caption>What each pair of tokens adds to the cosine; the arrow keys choose a '
            'cell</caption><thead><tr><th scope="col" class="corner">A ↓ '
            "B →</th>"
            f'{head}<th scope="col" class="sum">sum</th></tr></thead><tbody>{body}</tbody><tfoot><tr><th scope="row" '
            f'class="sum">sum</th>{foot}<td class="sum total">{decimal(matrix.sum().item(), 4)}</td></tr></tfoot></table></div>'
        )
    else:
        heat = grid("What each pair of tokens adds to the cosine", signs(matrix, largest), a.tokens, b.tokens, 8)
    return _step(
        "pairs",
        title,
        "Pooling only adds, so the cosine is a sum over all pairs of tokens, one of A with one of B. No attribution method "
        f"guesses here: the {matrix.numel()} numbers below add up to {decimal(matrix.sum().item(), 6)}, the cosine itself. "
        "[CLS], [SEP] and a full stop count as well: after the last layer, their vectors too know the whole sentence.",
        f'<div class="spoken-pair">{spoken("a", a, rows)}{spoken("b", b, columns)}</div><output class="say big" id="pair-say" '
        f'aria-live="polite">Each token is coloured by all it adds. Point at one to see with whom.</output>{heat}<p '
        f'class="note"><span class="key more">adds</span> <span class="key less">takes away</span></p>{top}',
        how,
    )


def _neighbours_step(trace: Trace, sentences: Named) -> tuple[str, str]:
    figures = []
    shape = ""
    for name, one in sentences:
        if one.neighbours is None:
            continue
        shape = f"[{', '.join(map(str, one.neighbours.indices.shape))}], indices and cosines"
        rows = []
        for number, (indices, cosines) in enumerate(zip(*(part.tolist() for part in one.neighbours), strict=True)):
            texts = "".join(
                f"<li><bdi>{escaped(shortened(trace.corpus[index], 90))}</bdi> <small>{decimal(cosine)}</small></li>"
                for index, cosine in zip(indices, cosines, strict=True)
            )
            rows.append([f"layer {number}" if number else "embeddings", f"<ol>{texts}</ol>"])
        table = html_table(f"The closest of {len(trace.corpus)} texts", ["after", "closest first"], rows, "near")
        figures.append(f'<div class="sentence">{_badge(name, sentences)}{table}</div>')
    return _step(
        "neighbours",
        "The neighbours, layer by layer",
        "Among the texts of a corpus, which are closest to the sentence, if the model had ended after that layer? Early layers "
        "find the same words, late ones the same meaning.",
        "".join(figures),
        _how(
            COSINE,
            shape,
            "Reimers &amp; Gurevych 2019, Sentence-BERT, section 4",
            source(tracing.layer_neighbours, "tracing.layer_neighbours"),
        ),
    )


def _pair_matrix(trace: Trace) -> Tensor | None:
    try:
        return trace.pair_matrix
    except ValueError:  # there is one sentence only, or the cosine is no sum over tokens
        return None


def _data(trace: Trace, sentences: Named) -> dict[str, object]:
    """What the interactive parts need: tokens, attention as bytes (weight × 255, [layers, heads, tokens, tokens]), pairs."""
    data: dict[str, object] = {}
    matrix = _pair_matrix(trace)
    if matrix is not None and matrix.numel() <= LARGEST_TABLE:
        data["pairs"] = [[round(value, 8) for value in row] for row in matrix.tolist()]
    for name, one in sentences:
        weights = one.attention.float() if _heads_shown(sentences) else one.attention.float().mean(dim=1, keepdim=True)
        levels = bytes((weights * 255).round().to(torch.uint8).flatten().tolist())
        data[name] = {
            "tokens": [shortened(token, 40) for token in one.tokens],
            "heads": weights.shape[1],
            "attention": base64.b64encode(levels).decode(),
        }
    return data
