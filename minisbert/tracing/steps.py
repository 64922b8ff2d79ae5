"""The steps of the page for each sentence: what each one says and shows, with the values of the trace."""

from __future__ import annotations

from itertools import groupby

import torch
from torch.nn import functional as F

from minisbert import bert, pooling
from minisbert.inference.engine import finish
from minisbert.tokenizer import TextTokenizer
from minisbert.tracing.html import (
    bar,
    call,
    decimal,
    direction,
    escaped,
    fraction,
    html_table,
    legend,
    math_block,
    mi,
    mo,
    norm,
    piece,
    signs,
    source,
    sub,
    sum_over,
    sum_picture,
)
from minisbert.tracing.pairs import Traced, contributions
from minisbert.tracing.record import SentenceTrace


def sentence_badge(name: str, sentences: Named) -> str:
    """Marks which sentence is shown, where there are two."""
    return f'<span class="badge {name}">{name.upper()}</span>' if len(sentences) > 1 else ""


Named = list[tuple[str, SentenceTrace]]

SHOWN = 48
"""Of a token's vector, so many numbers are drawn."""

LONG_TEXT = 200
"""Letters; a longer text is quoted in smaller type."""


# Formulas

EMBEDDING = math_block(mi("x"), mo("="), call("LayerNorm", mi("w"), mo("+"), mi("p"), mo("+"), mi("s")))
EMBEDDING_WITHOUT_SEGMENTS = math_block(mi("x"), mo("="), call("LayerNorm", mi("w"), mo("+"), mi("p")))
POOL = math_block(mi("s"), mo("="), sum_over(mi("i")), sub("w", mi("i")), sub("h", mi("i")))


PIECES = {
    "WordPiece": (
        "another is cut into the longest pieces that are, and a piece that continues a word begins with ##",
        "the longest piece that fits, then the longest of what is left, …",
        "Devlin et al. 2019, BERT, section 3; Wu et al. 2016, section 4.1",
    ),
    "Unigram": (
        "another is cut into the pieces that are most probable together, and ▁ stands for the space before a word",
        "of all ways to cut the text, the one whose pieces have the largest product of probabilities",
        "Kudo 2018, Subword Regularization, section 3.2",
    ),
    "BPE": (
        "another is put together from its bytes, by the merges that were most frequent in training; Ġ stands for a space",
        "the bytes of a word; then merge the pair that comes first in the list of merges, and again, …",
        "Sennrich et al. 2016, section 3.2; Radford et al. 2019, GPT-2, section 2.2",
    ),
}
"""By the kind of tokenizer: how a word is cut, the rule, the paper."""


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
    tokenizer = trace.encoder.tokenizer
    unknown = tokenizer.names.get("unk_token") or getattr(tokenizer.tokenizer.model, "unk_token", None)
    pieces_are, rule, paper = PIECES[type(tokenizer.tokenizer.model).__name__]
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
        if unknown is not None and unknown in one.tokens:
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
        f"The model knows no words, only pieces of a fixed vocabulary. A word that is in it stays whole; {pieces_are}. "
        "Each piece is from here on a number, and two marks frame it all.",
        "".join(figures),
        how_computed(
            f"<p>{rule}</p>",
            f"text → [tokens], here {counts}",
            paper,
            source(TextTokenizer.__call__, "TextTokenizer.__call__"),
        ),
    )


def embeddings_step(sentences: Named) -> tuple[str, str]:
    """The embeddings of each token, three or two, and their normalized sum."""
    figures = []
    segments = sentences[0][1].token_type is not None
    count = "three" if segments else "two"
    for name, one in sentences:
        parts = [("word", one.word), ("place", one.position)]
        if one.token_type is not None:
            parts.append(("segment", one.token_type))
        parts.append(("normalized sum", one.embedded))
        shown = min(SHOWN, one.word.shape[1])
        caption = f"The first {shown} numbers of each token's {count} vectors, and of their normalized sum"
        picture = sum_picture(caption, one.tokens, [(title, part[:, :SHOWN]) for title, part in parts])
        lengths = html_table(
            "How long each of the vectors is",
            ["token", *(title for title, _ in parts)],
            ([piece(token), *(decimal(part[i].norm().item()) for _, part in parts)] for i, token in enumerate(one.tokens)),
        )
        figures.append(
            f'<figure class="sentence">{sentence_badge(name, sentences)}{picture}'
            f"<details><summary>The lengths of these vectors</summary>{lengths}</details></figure>"
        )
    hidden = sentences[0][1].word.shape[1]
    return step_html(
        "embeddings",
        f"{count.capitalize()} vectors that add up",
        f"Each piece looks up {hidden} numbers for what it is"
        + (", " if segments else " and ")
        + f"{hidden} for where it stands"
        + (f" and {hidden} for the segment it belongs to, always the first here" if segments else "")
        + ". They are added and brought to one scale. This vector does not yet know its neighbours: a word means the same in every "
        "sentence.",
        "".join(figures)
        + f'<p class="note">The first {min(SHOWN, hidden)} of {hidden} numbers, a row a token. {legend()} The first {count} '
        "pictures have one scale.</p>",
        how_computed(
            EMBEDDING if segments else EMBEDDING_WITHOUT_SEGMENTS,
            f"[tokens] → [tokens, {hidden}]",
            "Devlin et al. 2019, BERT, section 3, figure 2",
            source(bert.Embeddings.forward, "Embeddings.forward"),
        ),
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
            nonlinearity = type(head.activation).__name__
            inside = dense if nonlinearity == "Identity" else (call(nonlinearity, *dense),)
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
