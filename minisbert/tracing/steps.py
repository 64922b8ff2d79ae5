"""The steps of the page for each sentence: what each one says and shows, with the values of the trace."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from minisbert import bert, pooling
from minisbert.inference.engine import finish
from minisbert.tokenizer import TextTokenizer
from minisbert.tracing.formulas import EMBEDDING, EMBEDDING_WITHOUT_SEGMENTS, POOL, call, fraction, math_block, mi, mo, norm, sub
from minisbert.tracing.html import bar, decimal, direction, escaped, folded, html_table, legend, piece, source
from minisbert.tracing.pairs import Traced, contributions
from minisbert.tracing.pictures import signs, sum_picture
from minisbert.tracing.record import SentenceTrace


def sentence_badge(name: str, sentences: Named) -> str:
    """Marks which sentence is shown, where there are two."""
    return f'<span class="badge {name}">{name.upper()}</span>' if len(sentences) > 1 else ""


Named = list[tuple[str, SentenceTrace]]

SHOWN = 48
"""How many dimensions of a token's vector are drawn."""

STRONGEST = 15
"""How many tokens of a long sentence are shown at first."""


def is_mark(one: SentenceTrace) -> list[bool]:
    """[tokens]: which tokens are special tokens or punctuation, so that they have no letter or digit of the text."""
    inside = [any(map(str.isalnum, one.text[start:stop])) for start, stop in one.offsets.tolist()]
    return [word < 0 or not letters for word, letters in zip(one.word_of.tolist(), inside, strict=True)]


def strongest(strength: Tensor, count: int = STRONGEST) -> list[int]:
    """[tokens] → the tokens of the largest values, in the order of the sentence."""
    return sorted(strength.topk(min(count, len(strength))).indices.tolist())


PIECES = {
    "WordPiece": (
        "another word is cut into the longest pieces that are in it, and a piece that continues a word begins with ##",
        "the longest piece that fits, then the longest of what is left, …",
        "Devlin et al. 2019, BERT, section 3; Wu et al. 2016, section 4.1",
    ),
    "Unigram": (
        "another word is cut into the pieces that are most probable together, and ▁ stands for the space before a word",
        "of all ways to cut the text, the one whose pieces have the largest product of probabilities",
        "Kudo 2018, Subword Regularization, section 3.2",
    ),
    "BPE": (
        "another word is merged from its bytes, most frequent pairs first, and Ġ stands for the space before a word",
        "the bytes of a word; then merge the pair that comes first in the list of merges, and again, …",
        "Sennrich et al. 2016, section 3.2; Radford et al. 2019, GPT-2, section 2.2",
    ),
}
"""By the kind of tokenizer: how a word is cut, the rule, the paper."""


def how_computed(formula: str, shape: str, paper: str, *sources: str) -> str:
    """How it is computed: beside every step."""
    return (
        f'<div class="how"><div class="formula">{formula}</div><dl><dt>Shape</dt><dd><code>{shape}</code></dd><dt>Paper</dt>'
        f"<dd>{paper}</dd></dl>{''.join(sources)}</div>"
    )


class Step(NamedTuple):
    """One step of the way: its place in the strip that is the navigation, and its section."""

    link: str
    html: str


def step_html(identity: str, label: tuple[str, str], title: str, plain: str, body: str, how: str, kind: str = "") -> Step:
    """One step: what it is, what it did with these sentences, and how. The label is its name in the strip and its value there."""
    html = (
        f'<section class="step {kind}" id="{identity}" aria-labelledby="{identity}-title"><header><span class="n" '
        f'aria-hidden="true">{{number}}</span><h2 id="{identity}-title" tabindex="-1">{title}</h2></header><p class="plain">{plain}'
        f'</p><div class="body">{body}</div>{how}</section>'
    )
    return Step(f'<a href="#{identity}"><b>{label[0]}</b><small>{label[1]}</small></a>', html)


def token_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], strength: Tensor) -> str:
    """A table with a row a token; of many tokens the strongest first, and all of them behind."""
    if len(rows) <= STRONGEST:
        return html_table(caption, head, rows, "did")
    some = html_table(f"{caption}: the {STRONGEST} strongest tokens", head, [rows[i] for i in strongest(strength)], "did")
    return some + folded(f"Show all {len(rows)} tokens", html_table(caption, head, rows, "did"))


def tokens_step(trace: Traced, sentences: Named) -> Step:
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
            f'<div class="sentence">{sentence_badge(name, sentences)}<ol class="words" aria-label="Words and their pieces">'
            f"{''.join(words)}</ol>{cut}{note}</div>"
        )
    size = trace.encoder.bert.config.vocab_size
    counts = " and ".join(str(len(one.tokens)) for _, one in sentences)
    return step_html(
        "tokens",
        ("Tokens", counts.replace(" and ", " + ")),
        "Text to tokens",
        f"The model has a fixed vocabulary of {size:,} tokens. A word that is in it stays whole; {pieces_are}. From here on, "
        "each token is an id. The tokenizer adds special tokens at both ends.",
        "".join(figures),
        how_computed(
            f"<p>{rule}</p>",
            f"text → [tokens], here {counts}",
            paper,
            source(TextTokenizer.__call__, "TextTokenizer.__call__", "encode_batch", "content = content[", "ids.append"),
        ),
    )


def embeddings_step(sentences: Named) -> Step:
    """The embeddings of each token, three or two, and their normalized sum."""
    figures = []
    segments = sentences[0][1].token_type is not None
    count = "three" if segments else "two"
    for name, one in sentences:
        parts = [("token", one.word), ("position", one.position)]
        if one.token_type is not None:
            parts.append(("segment", one.token_type))
        parts.append(("normalized sum", one.embedded))
        shown = min(SHOWN, one.word.shape[1])
        caption = f"The first {shown} values of each token's {count} vectors, and of their normalized sum"
        drawn = [(title, part[:, :SHOWN]) for title, part in parts]
        picture = sum_picture(caption, one.tokens[:STRONGEST], [(title, part[:STRONGEST]) for title, part in drawn])
        if len(one.tokens) > STRONGEST:
            whole = sum_picture(f"{caption}, of all tokens", one.tokens, drawn)
            picture += folded(f"Show all {len(one.tokens)} tokens", whole, "all")
        lengths = html_table(
            "How long each of the vectors is",
            ["token", *(title for title, _ in parts)],
            ([piece(token), *(decimal(part[i].norm().item()) for _, part in parts)] for i, token in enumerate(one.tokens)),
        )
        figures.append(
            f'<figure class="sentence">{sentence_badge(name, sentences)}{picture}'
            f"{folded('The lengths of these vectors', lengths)}</figure>"
        )
    hidden = sentences[0][1].word.shape[1]
    return step_html(
        "embeddings",
        ("Vectors", f"{hidden} a token"),
        f"{count.capitalize()} vectors are added",
        f"Each token looks up a vector of {hidden} dimensions for what it is"
        + (", " if segments else " and ")
        + "another for its position"
        + (", and a third for its segment, which is always the first here" if segments else "")
        + ". Their sum is normalized. This vector does not depend on the other tokens: a word has the same one in every sentence.",
        "".join(figures)
        + f'<p class="note">The first {min(SHOWN, hidden)} of {hidden} dimensions, a row a token. {legend()} The first {count} '
        "pictures share one scale.</p>",
        how_computed(
            EMBEDDING if segments else EMBEDDING_WITHOUT_SEGMENTS,
            f"[tokens] → [tokens, {hidden}]",
            "Devlin et al. 2019, BERT, section 3, figure 2",
            source(bert.Embeddings.forward, "Embeddings.forward", "self.word(", "self.norm("),
        ),
    )


MODES = {
    "mean": ("the average of its tokens' vectors", "mean pooling: each weight is 1/n"),
    "mean_sqrt_len_tokens": ("the sum of its tokens' vectors, divided by √n", "each weight is 1/√n"),
    "weightedmean": ("an average of its tokens' vectors in which later ones count more", "each weight grows with the position"),
    "cls": ("the vector of its first token", "the first weight is 1, the others are 0"),
    "lasttoken": ("the vector of its last token", "the last weight is 1, the others are 0"),
    "max": ("in each dimension the largest value among its tokens' vectors", "no weights: the largest wins"),
}


WEIGHT_LINES = {
    "mean": "count",
    "mean_sqrt_len_tokens": "count",
    "weightedmean": "weights ",
    "cls": "some",
    "lasttoken": "flip(1)",
}
"""A part of the line of `token_weights` that computes each mode."""


def pooling_step(trace: Traced, sentences: Named) -> Step:
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
            columns.append("part of the vector")
            cells.append([bar(p, part.abs().max().item(), decimal(p, 3)) for p in part.tolist()])
            weights = part
        table = token_table(
            "Weight of each token, and its part of the sentence vector",
            columns,
            [[piece(token), *row] for token, row in zip(one.tokens, zip(*cells, strict=True), strict=True)],
            weights.abs(),
        )
        figures.append(f'<div class="sentence">{sentence_badge(name, sentences)}{table}</div>')
    modes = trace.encoder.pooling.modes
    what = ", followed by ".join(MODES[mode][0] for mode in modes)
    formula = math_block(sub("s", mi("k")), mo("="), sub("max", mi("i")), sub("h", mi("i"))) if modes == ("max",) else POOL
    return step_html(
        "pooling",
        ("Mean" if modes == ("mean",) else "Pooling", f"{trace.encoder.pooling.dimension} a text"),
        "Pooling: many vectors become one",
        f"The sentence vector is {what}."
        + (
            " A token's part says how far its vector points in the direction of the whole; the parts add up to 1. A part below 0 "
            "points the other way."
            if len(columns) > 2
            else ""
        ),
        f'<div class="pair">{"".join(figures)}</div>',
        how_computed(
            formula + f"<p>{'; '.join(MODES[mode][1] for mode in modes)}</p>",
            f"[tokens, {trace.encoder.bert.config.hidden_size}] → [{trace.encoder.dimension}]",
            "Reimers &amp; Gurevych 2019, Sentence-BERT, section 3",
            source(pooling.token_weights, "token_weights", *(WEIGHT_LINES[mode] for mode in modes if mode != "max")),
            source(pooling.pool, "pool", *(".amax(" if mode == "max" else "pooled.append((token" for mode in modes)),
        ),
    )


def vector_step(trace: Traced, sentences: Named) -> Step:
    """The sentence vector, and what follows the pooling."""
    largest = max(one.embedding.abs().max().item() for _, one in sentences)
    digits = 17 if trace.a.embedding.dtype == torch.float64 else 9  # enough to show each value exactly as encode() gives it
    figures = []
    for name, one in sentences:
        values = one.embedding.double()
        numbers = " ".join(f"{value:.{digits}g}" for value in values.tolist())
        figures.append(
            f'<figure class="sentence">{sentence_badge(name, sentences)}<div class="strip" role="group" tabindex="0" '
            f'data-vector="{name}" aria-label="The {len(values)} values of sentence {name.upper()}: left and right choose one" '
            f'aria-describedby="number-{name}"><img src="{signs(one.embedding[None], largest)}" alt=""><span '
            f'class="cursor"></span></div><output class="say" id="number-{name}" aria-live="polite">{len(values)} values from '
            f"{decimal(values.min().item(), 4)} to {decimal(values.max().item(), 4)}; length "
            f"{decimal(values.norm().item(), 4)}</output>"
            + folded(f"All {len(values)} values", f'<p class="numbers" data-embedding="{name}">{numbers}</p>')
            + "</figure>"
        )
    products = ""
    if trace.b is not None:
        a, b = (F.normalize(one.embedding.double(), dim=0) for one in (trace.a, trace.b))
        product = a * b
        products = (
            '<figure class="sentence"><span class="badge both">A × B</span><div class="strip"><img alt="The products as colours" '
            f'src="{signs(product[None], product.abs().max().item())}"></div><figcaption class="say">A times B, dimension by '
            f"dimension: above 0 where both have the same sign. With both scaled to length 1, the {len(product)} products add up "
            f"to the cosine, {decimal(trace.cosine, 6)}.</figcaption></figure>"
        )
    formulas, sources = [], [source(finish, "finish", "modules(", "pooled[:")]
    for module in trace.encoder.modules:
        if isinstance(module, pooling.Dense):
            dense = (mi("W"), mi("s"), *((mo("+"), mi("b")) if module.linear.bias is not None else ()))
            nonlinearity = type(module.activation).__name__
            inside = dense if nonlinearity == "Identity" else (call(nonlinearity, *dense),)
            formulas.append(math_block(mi("s"), mo("←"), *((mi("s"), mo("+")) if module.residual is not None else ()), *inside))
        elif isinstance(module, pooling.LayerNorm):
            formulas.append(math_block(mi("s"), mo("←"), call("LayerNorm", mi("s"))))
        else:
            formulas.append(math_block(mi("s"), mo("←"), fraction(mi("s"), norm("s"))))
        sources.append(source(type(module).forward, f"{type(module).__name__}.forward", "self.", "F.normalize"))
    plain = (
        f"encode() returns these {len(trace.a.embedding)} values. A single value has no meaning by itself; what counts is the "
        "direction of the vector."
    )
    if len(trace.encoder.modules) and isinstance(trace.encoder.modules[-1], pooling.Normalize):
        plain += " This model scales its vectors to length 1."
    return step_html(
        "vector",
        ("Vector", f"{len(trace.a.embedding)} dimensions"),
        "The sentence vector",
        plain,
        f'{"".join(figures)}{products}<p class="note">{legend()}</p>',
        how_computed(
            "".join(formulas) + math_block(mi("v"), mo("="), mi("s")),
            f"[{trace.encoder.pooling.dimension}] → [{len(trace.a.embedding)}]",
            "Reimers &amp; Gurevych 2019, Sentence-BERT, section 3",
            *dict.fromkeys(sources),
        ),
    )
