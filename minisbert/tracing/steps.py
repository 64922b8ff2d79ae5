"""The steps of the page for each sentence: what each one says and shows, with the values of the trace."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional as F

from minisbert import bert, pooling
from minisbert.inference.engine import finish
from minisbert.tokenizer import WordPiece
from minisbert.tracing.html import (
    bar,
    call,
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
from minisbert.tracing.pairs import Traced, contributions
from minisbert.tracing.record import SentenceTrace, attention_weights


def sentence_badge(name: str, sentences: Named) -> str:
    """Marks which sentence is shown, where there are two."""
    return f'<span class="badge {name}">{name.upper()}</span>' if len(sentences) > 1 else ""


Named = list[tuple[str, SentenceTrace]]

SHOWN = 48
"""Of a token's vector, so many numbers are drawn."""

ATTENTION_BYTES = 1 << 19
"""All heads are in the page while their weights, a byte each, fit into this; of longer sentences it holds each layer's average."""

LONG_TEXT = 200
"""Letters; a longer text is quoted in smaller type."""


# Formulas

Q_K = "<mrow><mi>Q</mi><msup><mi>K</mi><mi>T</mi></msup></mrow>"
EMBEDDING = math_block(mi("x"), mo("="), call("LayerNorm", mi("w"), mo("+"), mi("p"), mo("+"), mi("s")))
ATTENTION = math_block(call("softmax", fraction(Q_K, "<msqrt><mi>d</mi></msqrt>")), mi("V"))
LAYER = math_block(mi("x"), mo("←"), call("LayerNorm", mi("x"), mo("+"), call("Attention", mi("x")))) + math_block(
    mi("x"), mo("←"), call("LayerNorm", mi("x"), mo("+"), call("FFN", mi("x")))
)
POOL = math_block(mi("s"), mo("="), sum_over(mi("i")), sub("w", mi("i")), sub("h", mi("i")))


def how_computed(formula: str, shape: str, paper: str, *sources: str) -> str:
    """How it is computed: beside every step."""
    return (
        f'<aside class="how"><div class="formula">{formula}</div><dl><dt>Shape</dt><dd><code>{shape}</code></dd>'
        f"<dt>Paper</dt><dd>{paper}</dd></dl>{''.join(sources)}</aside>"
    )


def step_html(identity: str, title: str, plain: str, body: str, how: str, kind: str = "") -> tuple[str, str]:
    """One step of the way: what it is, what it did with these sentences, and how."""
    html = (
        f'<section class="step {kind}" id="{identity}" aria-labelledby="{identity}-title"><header><span class="n" '
        f'aria-hidden="true">{{number}}</span><h2 id="{identity}-title">{title}</h2></header><p class="plain">{plain}</p><div '
        f'class="body">{body}</div>{how}'
        "</section>"
    )
    return f'<a href="#{identity}">{title}</a>', html


def tokens_step(trace: Traced, sentences: Named) -> tuple[str, str]:
    """The word pieces of each sentence, and what was cut off."""
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
            f'<div class="sentence">{sentence_badge(name, sentences)}<ol class="words" aria-label="Words and their '
            f'pieces">{"".join(words)}</ol>'
            f"{cut}{note}</div>"
        )
    counts = " and ".join(str(len(one.tokens)) for _, one in sentences)
    return step_html(
        "tokens",
        "Text to word pieces",
        "The model knows no words, only pieces of a fixed vocabulary. A word that is in it stays whole; another is cut into "
        "the longest pieces that are, and a piece that continues a word begins with ##. Each piece is from here on a number, "
        "and two marks frame it all.",
        "".join(figures),
        how_computed(
            "<p>the longest piece that fits, then the longest of what is left, …</p>",
            f"text → [tokens], here {counts}",
            "Devlin et al. 2019, BERT, section 3; Wu et al. 2016, section 4.1",
            source(WordPiece.__call__, "WordPiece.__call__"),
        ),
    )


def embeddings_step(sentences: Named) -> tuple[str, str]:
    """The three embeddings of each token, and their normalized sum."""
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
            f'<figure class="sentence">{sentence_badge(name, sentences)}{picture}'
            f"<details><summary>The lengths of these vectors</summary>{lengths}</details></figure>"
        )
    hidden = sentences[0][1].word.shape[1]
    return step_html(
        "embeddings",
        "Three vectors that add up",
        f"Each piece looks up {hidden} numbers for what it is, {hidden} for where it stands and {hidden} for the segment it "
        "belongs to, always the first here. They are added and brought to one scale. This vector does not yet know its "
        "neighbours: a word means the same in every sentence.",
        "".join(figures)
        + f'<p class="note">The first {min(SHOWN, hidden)} of {hidden} numbers, a row a token. {legend()} The first three '
        "pictures have one scale.</p>",
        how_computed(
            EMBEDDING,
            f"[tokens] → [tokens, {hidden}]",
            "Devlin et al. 2019, BERT, section 3, figure 2",
            source(bert.Embeddings.forward, "Embeddings.forward"),
        ),
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
            ATTENTION,
            f"[tokens, {hidden}] → [{count} heads, tokens, tokens] → [tokens, {hidden}]",
            "Vaswani et al. 2017, section 3.2, equation 1",
            source(attention_weights, "attention_weights"),
            source(bert.attend, "attend"),
            source(bert.SelfAttention.forward, "SelfAttention.forward"),
        )
        + "</div><div><h3>Feed-forward: think alone</h3><p>Then each token is transformed by itself: into a wider vector, "
        f"through a bend, and back. {100 * inner / (inner + 2 * hidden):.0f} % of a layer's weights are here.</p>"
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


MODES = {
    "mean": ("the average of its tokens' vectors", "mean pooling: each weight is 1/n"),
    "mean_sqrt_len_tokens": ("the sum of its tokens' vectors, divided by √n", "each weight is 1/√n"),
    "weightedmean": ("an average of its tokens' vectors in which later ones count more", "each weight grows with its place"),
    "cls": ("the vector of its first token", "the first weight is 1, the others are 0"),
    "lasttoken": ("the vector of its last token", "the last weight is 1, the others are 0"),
    "max": ("in each place the largest number among its tokens' vectors", "no weights: the largest wins"),
}


def pooling_step(trace: Traced, sentences: Named) -> tuple[str, str]:
    """How much each token counts in the sentence vector."""
    figures = []
    for name, one in sentences:
        weights = one.pooling_weights.double()
        columns = ["token", "weight"]
        cells = [[bar(w, weights.max().item(), decimal(w, 4)) for w in weights.tolist()]]
        try:
            given = contributions(trace.encoder, one)
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
        figures.append(f'<div class="sentence">{sentence_badge(name, sentences)}{table}</div>')
    modes = trace.encoder.pooling.modes
    what = ", and beside it ".join(MODES[mode][0] for mode in modes)
    formula = math_block(sub("s", mi("k")), mo("="), sub("max", mi("i")), sub("h", mi("i"))) if modes == ("max",) else POOL
    return step_html(
        "pooling",
        "Pooling: many vectors become one",
        f"The sentence's vector is {what}. The share says how much of it points the way the whole vector points: the shares add "
        "up to 100 %.",
        f'<div class="pair">{"".join(figures)}</div>',
        how_computed(
            formula + f"<p>{'; '.join(MODES[mode][1] for mode in modes)}</p>",
            f"[tokens, {trace.encoder.bert.config.hidden_size}] → [{trace.encoder.dimension}]",
            "Reimers &amp; Gurevych 2019, Sentence-BERT, section 3",
            source(pooling.token_weights, "token_weights"),
            source(pooling.pool, "pool"),
        ),
    )


def vector_step(trace: Traced, sentences: Named) -> tuple[str, str]:
    """The sentence vector, and what follows the pooling."""
    largest = max(one.embedding.abs().max().item() for _, one in sentences)
    digits = 17 if trace.a.embedding.dtype == torch.float64 else 9  # so many that each number is exactly that of encode()
    figures = []
    for name, one in sentences:
        values = one.embedding.double()
        numbers = " ".join(f"{value:.{digits}g}" for value in values.tolist())
        figures.append(
            f'<figure class="sentence">{sentence_badge(name, sentences)}<div class="strip" role="group" tabindex="0" '
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
    formulas, sources = [], [source(finish, "finish")]
    for head in trace.encoder.modules:
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
    if len(trace.encoder.modules) and isinstance(trace.encoder.modules[-1], pooling.Normalize):
        plain += " This model scales its vectors to length 1."
    return step_html(
        "vector",
        "The vector",
        plain,
        f'{"".join(figures)}{products}<p class="note">{legend()}</p>',
        how_computed(
            "".join(formulas) + math_block(mi("v"), mo("="), mi("s")),
            f"[{trace.encoder.pooling.dimension}] → [{len(trace.a.embedding)}]",
            "Reimers &amp; Gurevych 2019, Sentence-BERT, section 3",
            *dict.fromkeys(sources),
        ),
    )
