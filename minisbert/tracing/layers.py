"""The step of the page that shows attention and feed-forward, layer by layer, with the values of the trace."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from minisbert import bert
from minisbert.tracing.formulas import ATTENTION, BIASED_ATTENTION, LAYER, call, math_block, mi, mo, sub
from minisbert.tracing.html import bar, decimal, escaped, folded, html_table, legend, piece, shortened, source
from minisbert.tracing.pairs import Traced
from minisbert.tracing.pictures import flow_picture, grid, heat, signs
from minisbert.tracing.record import SentenceTrace, attention_weights
from minisbert.tracing.steps import Named, Step, how_computed, is_mark, sentence_badge, step_html

SCORES_SHOWN = 5 << 16
"""The most scores for which the page holds every head; for longer sentences it holds each layer's average."""


def heads_are_shown(sentences: Named) -> bool:
    """Whether the page holds every head, or the average of each layer."""
    return sum(one.attention.numel() for _, one in sentences) <= SCORES_SHOWN


def telling_heads(sentences: Named) -> Tensor:
    """[layers, heads]: how strongly words attend to words that are not next to them, the mean over words of the largest weight.

    Special tokens, punctuation, the word itself and its neighbours do not count: a head that rests on [SEP], or that attends to the
    token before wherever it is, tells little about this sentence.
    """
    found = []
    for _, one in sentences:
        words = [i for i, mark in enumerate(is_mark(one)) if not mark]
        if len(words) < 2:
            words = list(range(len(one.tokens)))
        between = one.attention.float()[..., words, :][..., words]  # [layers, heads, words, words]
        at = torch.tensor(words)
        apart = (at[:, None] - at).abs()  # [words, words]
        others = between * (apart > (1 if len(words) > 3 else 0))
        found.append(others.amax(dim=3).mean(dim=2))
    return torch.stack(found).mean(dim=0)


def _moved(one: SentenceTrace) -> Tensor:
    """[layers, tokens]: how far each layer turned each token's vector, as 1 − cosine of before and after."""
    return 1 - F.cosine_similarity(one.hidden[:-1].double(), one.hidden[1:].double(), dim=2)


def layers_step(trace: Traced, sentences: Named) -> Step:
    """Attention and feed-forward, layer by layer."""
    config = trace.encoder.bert.config
    layers, count = config.num_hidden_layers, config.num_attention_heads
    overview, boxes = [], []
    for name, one in sentences:
        moved = _moved(one)
        names = [f"layer {number}" for number in range(1, layers + 1)]
        cell = 26 if len(one.tokens) <= 16 else 16
        picture = heat(moved / moved.max().clamp(min=1e-9))
        caption = f"How far each layer moved each token of “{shortened(one.text, 120)}”"
        numbers = html_table(
            "1 − cosine of a token's vector before and after the layer",
            ["layer", *(piece(token) for token in one.tokens)],
            ([str(number), *(decimal(value) for value in row)] for number, row in enumerate(moved.tolist(), start=1)),
        )
        overview.append(
            f'<figure class="sentence">{sentence_badge(name, sentences)}{grid(caption, picture, names, one.tokens, cell)}'
            f"{folded('The values', numbers)}</figure>"
        )
    telling = telling_heads(sentences)
    first = int(telling.amax(dim=1).argmax())
    for number in range(layers):
        so_far = ""
        if trace.b is not None:
            so_far = f'<span class="so-far">cosine so far <b>{decimal(trace.layer_cosines[number + 1].item())}</b></span>'
        most = [
            f"{sentence_badge(name, sentences)} {piece(one.tokens[int(_moved(one)[number].argmax())])}" for name, one in sentences
        ]
        head = int(telling[number].argmax()) if heads_are_shown(sentences) else -1
        views = "".join(_layer(name, one, number, head, sentences) for name, one in sentences)
        boxes.append(
            f'<details class="layer" id="layer-{number + 1}" data-layer="{number}"{" open" if number == first else ""}><summary>'
            f"<b>Layer {number + 1}</b> <span>moved most: {' '.join(most)}</span>{so_far}</summary>"
            f'{_picker(sentences, number, head)}<div class="pair">{views}</div></details>'
        )
    chosen = (
        "Each layer shows its most telling head: the one in which words attend most strongly to words that are not next to them. "
        f"Layer {first + 1}, the most telling, is open. {'A and B show the same head. ' if len(sentences) > 1 else ''}"
        if heads_are_shown(sentences)
        else "The text is long: this page holds the average of the heads of each layer. "
    )
    click = "Click a token to see its query, the keys, the scores and the softmax. " if heads_are_shown(sentences) else ""
    hint = (
        f'<p class="hint">{chosen}<span class="js-only">{click}With the keyboard: Tab to a picture, ↑ ↓ choose a token, ← → '
        'another one, Enter pins, Esc releases.</span></p><p class="js-only"><button type="button" id="all-layers">Open all layers'
        "</button></p>"
    )
    return step_html(
        "layers",
        ("Layers", f"{layers} × {count} heads"),
        "Through the layers",
        f"Each token now takes information from the others. Each of the {layers} layers does the same two things, with weights of "
        "its own. After the last layer, the vector of a word depends on the whole sentence.",
        f'<h3>Attention, layer by layer</h3>{hint}<div class="layers">{"".join(boxes)}</div><h3>How far each layer moved each '
        f'token</h3><div class="pair moves">{"".join(overview)}</div><p class="note">1 − cosine of the token\'s vector before and '
        "after the layer. Full colour is the largest move of the sentence.</p>",
        _hows(trace, sentences),
        "wide",
    )


def _hows(trace: Traced, sentences: Named) -> str:
    """The formulas of a layer."""
    config = trace.encoder.bert.config
    hidden, inner, count = config.hidden_size, config.intermediate_size, config.num_attention_heads
    biased = trace.a.attention_bias is not None
    activation = {"gelu": "GELU", "gelu_new": "GELU", "gelu_pytorch_tanh": "GELU", "relu": "ReLU", "silu": "SiLU"}[
        config.hidden_act
    ]
    feed_forward = math_block(
        call(activation, mi("x"), sub("W", "<mn>1</mn>"), mo("+"), sub("b", "<mn>1</mn>")),
        sub("W", "<mn>2</mn>"),
        mo("+"),
        sub("b", "<mn>2</mn>"),
    )
    return (
        f"{_bias(sentences) if biased else ''}"
        f'<div class="hows"><div><h3>Attention</h3><p>In each of {count} heads, a token compares its query with the key of every '
        "token of its sentence. The softmax turns these scores into weights that add up to 1, and the token takes the weighted "
        "mean of the values.</p>"
        + how_computed(
            BIASED_ATTENTION if biased else ATTENTION,
            f"[tokens, {hidden}] → [{count} heads, tokens, tokens] → [tokens, {hidden}]",
            "Vaswani et al. 2017, section 3.2, equation 1",
            source(attention_weights, "attention_weights", "scores", "softmax"),
            source(bert.attend, "attend", "scaled_dot_product_attention"),
            source(bert.SelfAttention.forward, "SelfAttention.forward", "query, key, value", "attend(", "self.out("),
        )
        + "</div><div><h3>Feed-forward</h3><p>Each token is then transformed alone: into a wider vector, through a nonlinearity, "
        f"and back. {100 * inner / (inner + 2 * hidden):.0f} % of a layer's weights are here.</p>"
        + how_computed(
            feed_forward,
            f"[tokens, {hidden}] → [tokens, {inner}] → [tokens, {hidden}]",
            "Vaswani et al. 2017, section 3.3; Hendrycks &amp; Gimpel 2016",
            source(bert.FeedForward.forward, "FeedForward.forward", "self.down("),
        )
        + "</div><div><h3>Add and normalize</h3><p>Each step adds its output to its input, and the sum is normalized. So a token's "
        "vector changes a little at a time.</p>"
        + how_computed(
            LAYER,
            f"[tokens, {hidden}] → [tokens, {hidden}]",
            "Vaswani et al. 2017, section 3.1",
            source(bert.Layer.forward, "Layer.forward", "self.attention(", "self.feed_forward("),
        )
        + "</div></div>"
    )


def _bias(sentences: Named) -> str:
    """What MPNet adds to all scores of attention."""
    figures = ""
    for name, one in sentences:
        if one.attention_bias is None:
            continue
        average = one.attention_bias.float().mean(dim=0)  # [tokens, tokens]
        caption = f"The bias B for “{shortened(one.text, 120)}”, average of the heads"
        matrix = grid(caption, signs(average, average.abs().max().item()), one.tokens, one.tokens, 14)
        figures += f'<figure class="sentence">{sentence_badge(name, sentences)}{matrix}</figure>'
    return (
        '<div id="bias"><h3>A bias for the distance</h3><p>This model adds a learned scalar to each score before the softmax. Each '
        "head has one for each distance to the left and to the right; large distances share one. It is the same in all layers and "
        f'for all sentences.</p><p class="note">{legend()}</p><div class="pair">{figures}</div>'
        + how_computed(
            math_block(sub("B", mi("ij")), mo("="), sub("b", call("bucket", mi("j"), mo("−"), mi("i")))),
            "[tokens] → [heads, tokens, tokens]",
            "Song et al. 2020, MPNet; Raffel et al. 2020, T5, section 2.1",
            source(bert.RelativeBias.forward, "RelativeBias.forward", "bucket", "far ="),
        )
        + "</div>"
    )


def _picker(sentences: Named, number: int, chosen: int) -> str:
    """The heads of a layer, to choose from: each as a small picture of its weights, a sentence above the other."""
    if chosen < 0:
        return ""
    heads = sentences[0][1].attention.shape[1]
    sheets = "".join(
        f"--sheet-{name}:url({heat(torch.cat([*one.attention[number].float()], dim=1), shades=32)});" for name, one in sentences
    )
    choices = "".join(
        f'<label class="head"><input type="radio" name="head-{number}" value="{head}"{" checked" if head == chosen else ""}>'
        + "".join(f'<span class="thumb {name}" style="--h:{head}"></span>' for name, _ in sentences)
        + f"<small>{head + 1}</small></label>"
        for head in range(heads)
    )
    return (
        f'<fieldset class="heads" style="{sheets}--heads:{heads}"><legend>Heads of layer {number + 1}: a row is a token that '
        f"attends, a column a token that it attends to{'; A above, B below' if len(sentences) > 1 else ''}</legend>{choices}"
        f'<label class="head mean"><input type="radio" name="head-{number}" value="-1"><span>average</span></label></fieldset>'
    )


def _layer(name: str, one: SentenceTrace, number: int, head: int, sentences: Named) -> str:
    """One sentence in one layer."""
    weights = one.attention[number].float()  # [heads, tokens, tokens]
    average = weights.mean(dim=0)
    shown = average if head < 0 else weights[head]
    tokens = len(one.tokens)
    cell = 24 if tokens <= 12 else 16 if tokens <= 24 else 14 if tokens <= 64 else 6
    which = f"head {head + 1}" if head >= 0 else "average of the heads"
    colours = heat(shown if head >= 0 else average / average.max())
    picture = grid(f"Attention in layer {number + 1}, {which}", colours, one.tokens, one.tokens, cell, "matrix")
    before = one.hidden[number].double()
    attended = one.attention_out[number].double().norm(dim=1) / before.norm(dim=1)
    fed = one.feed_forward_out[number].double().norm(dim=1) / one.after_attention[number].double().norm(dim=1)
    moved = _moved(one)[number]
    rows = []
    for i, token in enumerate(one.tokens):
        most = average[i].topk(min(3, tokens))
        looks = ", ".join(
            f"{piece(one.tokens[j])} {100 * weight:.0f} %"
            for weight, j in zip(most.values.tolist(), most.indices.tolist(), strict=True)
        )
        bars = [bar(value[i].item(), value.max().item(), decimal(value[i].item(), 2)) for value in (attended, fed)]
        rows.append([piece(token), looks, *bars, bar(moved[i].item(), moved.max().item(), decimal(moved[i].item()))])
    table = html_table(
        f"What layer {number + 1} did to each token",
        ["token", "attends to (average)", "attention adds", "feed-forward adds", "moved"],
        rows,
        "did",
    )
    note = (
        '<p class="note">“Adds”: the length of what is added, divided by the length of what it is added to. “Moved”: 1 − cosine of '
        "before and after.</p>"
    )
    described = f"say-{number}-{name}"
    quote = f"<bdi>{escaped(shortened(one.text, 120))}</bdi>"
    return (
        f'<div class="attention" data-sentence="{name}" data-layer="{number}"><p class="quote">{sentence_badge(name, sentences)} '
        f'{quote}</p><div class="look" role="group" tabindex="0" aria-describedby="{described}" aria-label="Attention in layer '
        f'{number + 1}, sentence {name.upper()}: the arrow keys choose tokens">{flow_picture(one.tokens, shown)}{picture}</div>'
        f'<output class="say" id="{described}" aria-live="polite">{which.capitalize()}. Left: the token that attends; right: what '
        'it attends to. A thicker line is a larger weight.</output><div class="scores" tabindex="0" role="group" '
        'aria-label="Scores" hidden></div>'
        f"{folded(f'What layer {number + 1} did to each token', table + note)}</div>"
    )
