"""The steps of the page that compare: the cosine, what each pair of tokens adds to it, the nearest texts of a corpus."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from minisbert.tracing.html import (
    bar,
    call,
    cosine_chart,
    decimal,
    escaped,
    fraction,
    grid,
    html_table,
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
)
from minisbert.tracing.pairs import Traced, contributions, pair_matrix
from minisbert.tracing.record import SentenceTrace, layer_neighbours
from minisbert.tracing.steps import Named, how_computed, sentence_badge, step_html

LARGEST_TABLE = 1 << 12
"""Up to so many cells the pairs of tokens are a table with its numbers, beyond a picture."""
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


def cosine_step(trace: Traced) -> tuple[str, str]:
    """The cosine of the two sentence vectors, after each layer and at the end."""
    values = trace.layer_cosines.tolist()
    table = html_table(
        "The cosine after each layer",
        ["after", "cosine"],
        ([f"layer {number}" if number else "the embeddings", decimal(value, 6)] for number, value in enumerate(values)),
    )
    return step_html(
        "cosine",
        "The cosine, layer by layer",
        "How similar would the two be if the model had ended here? Only the last layer was trained to be compared. In the "
        "layers before, any two sentences are often close to each other, so watch how the number moves more than how large it "
        "is.",
        f'<figure>{cosine_chart(values)}<figcaption class="note">After the embeddings (emb.) and after layers 1 to '
        f"{len(values) - 1}.</figcaption><details><summary>The numbers</summary>{table}</details></figure>",
        how_computed(
            COSINE,
            f"[{len(values)}], a cosine after each",
            "Reimers &amp; Gurevych 2019, Sentence-BERT, section 3",
            source(_getter(Traced, "layer_cosines"), "Trace.layer_cosines"),
        ),
    )


def _getter(cls: type, name: str) -> Callable[..., object]:
    return cls.__dict__[name].func


def pairs_step(trace: Traced, b: SentenceTrace) -> tuple[str, str]:
    """What each pair of tokens adds to the cosine."""
    title = "Every pair of tokens: the exact answer"
    how = how_computed(
        PAIRS,
        f"[{len(trace.a.tokens)}, {len(b.tokens)}], tokens of A and tokens of B",
        "by linearity of the pooling; Reimers &amp; Gurevych 2019, Sentence-BERT, section 3",
        source(pair_matrix, "pair_matrix"),
        source(contributions, "contributions"),
    )
    try:
        matrix = trace.pair_matrix
    except ValueError as error:
        return step_html("pairs", title, escaped(str(error)), "", how)
    a, cosine = trace.a, trace.cosine
    rows, columns = matrix.sum(dim=1), matrix.sum(dim=0)
    largest = matrix.abs().max().item() or 1.0  # of a vector of zeros all are 0

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
                f"{decimal(100 * matrix.flatten()[at].item() / cosine, 1)} %" if cosine else "–",  # a vector of zeros
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
    return step_html(
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


def neighbours_step(trace: Traced, sentences: Named) -> tuple[str, str]:
    """The nearest texts of the corpus after each layer."""
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
        figures.append(f'<div class="sentence">{sentence_badge(name, sentences)}{table}</div>')
    return step_html(
        "neighbours",
        "The neighbours, layer by layer",
        "Among the texts of a corpus, which are closest to the sentence, if the model had ended after that layer? Early layers "
        "find the same words, late ones the same meaning.",
        "".join(figures),
        how_computed(
            COSINE,
            shape,
            "Reimers &amp; Gurevych 2019, Sentence-BERT, section 4",
            source(layer_neighbours, "tracing.layer_neighbours"),
        ),
    )


def pair_matrix_of(trace: Traced) -> Tensor | None:
    """The pair matrix, or None where the model has none."""
    try:
        return trace.pair_matrix
    except ValueError:  # there is one sentence only, or the cosine is no sum over tokens
        return None
