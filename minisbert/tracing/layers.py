"""The step of the page that shows attention and feed-forward, layer by layer, with the values of the trace."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from minisbert import bert
from minisbert.tracing.html import (
    bar,
    call,
    decimal,
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
    piece,
    shortened,
    signs,
    source,
    sub,
)
from minisbert.tracing.pairs import Traced
from minisbert.tracing.record import SentenceTrace, attention_weights
from minisbert.tracing.steps import Named, how_computed, sentence_badge, step_html

ATTENTION_BYTES = 1 << 19
"""All heads are in the page while their weights, a byte each, fit into this; of longer sentences it holds each layer's average."""

Q_K = "<mrow><mi>Q</mi><msup><mi>K</mi><mi>T</mi></msup></mrow>"
SCORES = fraction(Q_K, "<msqrt><mi>d</mi></msqrt>")
ATTENTION = math_block(call("softmax", SCORES), mi("V"))
BIASED_ATTENTION = math_block(call("softmax", SCORES, mo("+"), mi("B")), mi("V"))
LAYER = math_block(mi("x"), mo("←"), call("LayerNorm", mi("x"), mo("+"), call("Attention", mi("x")))) + math_block(
    mi("x"), mo("←"), call("LayerNorm", mi("x"), mo("+"), call("FFN", mi("x")))
)


def heads_are_shown(sentences: Named) -> bool:
    """Whether the page holds every head, or the average of each layer."""
    return sum(one.attention.numel() for _, one in sentences) <= ATTENTION_BYTES


def _moved(one: SentenceTrace) -> Tensor:
    """[layers, tokens]: how far each layer turned each token's vector, as 1 − cosine of before and after."""
    return 1 - F.cosine_similarity(one.hidden[:-1].double(), one.hidden[1:].double(), dim=2)


def layers_step(trace: Traced, sentences: Named) -> tuple[str, str]:
    """Attention and feed-forward, layer by layer."""
    config = trace.encoder.bert.config
    layers, count = config.num_hidden_layers, config.num_attention_heads
    biased = trace.a.attention_bias is not None
    overview, tables = [], []
    for name, one in sentences:
        moved = _moved(one)
        names = [f"layer {number}" for number in range(1, layers + 1)]
        cell = 26 if len(one.tokens) <= 16 else 16
        picture = heat(moved / moved.max().clamp(min=1e-9))
        overview.append(
            f'<figure class="sentence">{sentence_badge(name, sentences)}'
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
        most = [
            f"{sentence_badge(name, sentences)} {piece(one.tokens[int(_moved(one)[number].argmax())])}" for name, one in sentences
        ]
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
        + how_computed(
            BIASED_ATTENTION if biased else ATTENTION,
            f"[tokens, {hidden}] → [{count} heads, tokens, tokens] → [tokens, {hidden}]",
            "Vaswani et al. 2017, section 3.2, equation 1",
            source(attention_weights, "attention_weights"),
            source(bert.attend, "attend"),
            source(bert.SelfAttention.forward, "SelfAttention.forward"),
        )
        + (_bias(sentences) if biased else "")
        + "</div><div><h3>Feed-forward: think alone</h3><p>Then each token is transformed by itself: into a wider vector, "
        f"through a nonlinearity, and back. {100 * inner / (inner + 2 * hidden):.0f} % of a layer's weights are here.</p>"
        + how_computed(
            feed_forward,
            f"[tokens, {hidden}] → [tokens, {inner}] → [tokens, {hidden}]",
            "Vaswani et al. 2017, section 3.3; Hendrycks &amp; Gimpel 2016",
            source(bert.FeedForward.forward, "FeedForward.forward"),
        )
        + "<h3>Add, and bring to scale</h3><p>Both steps only add something to the vector that came in, and the sum is "
        "normalized. So a token stays itself, and is changed a little.</p>"
        + how_computed(
            LAYER,
            f"[tokens, {hidden}] → [tokens, {hidden}]",
            "Vaswani et al. 2017, section 3.1",
            source(bert.Layer.forward, "Layer.forward"),
        )
        + "</div></div>"
    )
    return step_html(
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


def _bias(sentences: Named) -> str:
    """What MPNet adds to all scores of attention."""
    figures = ""
    for name, one in sentences:
        if one.attention_bias is None:
            continue
        average = one.attention_bias.float().mean(dim=0)  # [tokens, tokens]
        caption = f"The bias B for “{shortened(one.text, 120)}”, average of the heads"
        picture = signs(average, average.abs().max().item())
        matrix = grid(caption, picture, one.tokens, one.tokens, 14)
        figures += f'<figure class="sentence">{sentence_badge(name, sentences)}{matrix}</figure>'
    return (
        "<h3>A bias for the distance</h3><p>This model adds a learned number to each score, before the softmax: one for each head "
        "and for each distance to the left or right, where far distances share one. It is the same in all layers and sentences. "
        f"{legend()}</p>{figures}"
        + how_computed(
            math_block(sub("B", mi("ij")), mo("="), sub("b", call("bucket", mi("j"), mo("−"), mi("i")))),
            "[tokens] → [heads, tokens, tokens]",
            "Song et al. 2020, MPNet; Raffel et al. 2020, T5, section 2.1",
            source(bert.RelativeBias.forward, "RelativeBias.forward"),
        )
    )


def _layer(name: str, one: SentenceTrace, number: int, sentences: Named) -> str:
    """One sentence in one layer."""
    weights = one.attention[number].float()  # [heads, tokens, tokens]
    average = weights.mean(dim=0)
    tokens = len(one.tokens)
    cell = 24 if tokens <= 12 else 16 if tokens <= 24 else 14 if tokens <= 64 else 6
    picker, shown = "", average
    if heads_are_shown(sentences):
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
        f'<div class="attention" data-sentence="{name}" data-layer="{number}"><p class="quote">{sentence_badge(name, sentences)} '
        f"<bdi>{escaped(shortened(one.text, 120))}</bdi></p>{picker}"
        f'<div class="look" role="group" tabindex="0" aria-describedby="{described}" aria-label="Attention in layer '
        f"{number + 1}, sentence "
        f'{name.upper()}: up and down choose a token, left and right a head">{flow_picture(one.tokens, average)}{picture}</div>'
        f'<output class="say" id="{described}" aria-live="polite">Left: who looks, right: at whom. The more, the thicker.</output>'
        f"<details><summary>What the layer did to each token</summary>{table}"
        '<p class="note">“Adds”: the length of what is added, in lengths of what it is added to. “Moved”: 1 − cosine of before and '
        "after.</p></details></div>"
    )
