"""The steps of the page that compare: the cosine, what each pair of tokens adds to it, the nearest texts of a corpus."""

from __future__ import annotations

from torch import Tensor

from minisbert.tracing.answer import pair_colour, ramp, together_and_apart
from minisbert.tracing.formulas import COSINE, PAIRS
from minisbert.tracing.html import bar, decimal, escaped, folded, html_table, piece, shortened, source
from minisbert.tracing.pairs import Traced, contributions, pair_matrix
from minisbert.tracing.pictures import cosine_chart, grid, signs
from minisbert.tracing.record import SentenceTrace, layer_neighbours
from minisbert.tracing.steps import STRONGEST, Named, Step, how_computed, is_mark, sentence_badge, step_html, strongest

LARGEST_TABLE = 1 << 12
"""Up to this number of cells, all pairs of tokens are shown as a table of values; above it, as a picture."""


def cosine_step(trace: Traced) -> Step:
    """The cosine of the two sentence vectors, after each layer and at the end."""
    values = trace.layer_cosines.tolist()
    table = html_table(
        "The cosine after each layer",
        ["after", "cosine"],
        ([f"layer {number}" if number else "the embeddings", decimal(value, 6)] for number, value in enumerate(values)),
    )
    return step_html(
        "cosine",
        ("Cosine", decimal(trace.cosine)),
        "The cosine, layer by layer",
        "How similar would the two be if the model ended after this layer? Only the vectors of the last layer were trained to be "
        "compared. Before it, any two sentences are often close, so look at how the cosine changes rather than at its size.",
        f'<figure>{cosine_chart(values)}<figcaption class="note">After the embeddings (emb.) and after layers 1 to '
        f"{len(values) - 1}.</figcaption>{folded('The values', table)}</figure>",
        how_computed(
            COSINE,
            f"[{len(values)}], a cosine after each",
            "Reimers &amp; Gurevych 2019, Sentence-BERT, section 3",
            source(vars(Traced)["layer_cosines"].func, "Trace.layer_cosines", "cosine_similarity"),
        ),
    )


def pairs_step(trace: Traced, b: SentenceTrace) -> Step:
    """What each pair of tokens adds to the cosine."""
    title, label = "Every pair of tokens", ("Pairs", f"{len(trace.a.tokens)} × {len(b.tokens)}")
    how = how_computed(
        PAIRS,
        f"[{len(trace.a.tokens)}, {len(b.tokens)}], tokens of A and tokens of B",
        "by linearity of the pooling; Reimers &amp; Gurevych 2019, Sentence-BERT, section 3",
        source(pair_matrix, "pair_matrix", "scale", "ours @"),
        source(contributions, "contributions", "given = torch.cat"),
    )
    try:
        matrix = trace.pair_matrix
    except ValueError as error:
        return step_html("pairs", label, title, escaped(str(error)), "", how, "wide")
    a, pairs = trace.a, matrix.numel()
    rows, columns = strongest(matrix.abs().sum(dim=1)), strongest(matrix.abs().sum(dim=0))
    some = len(rows) < len(a.tokens) or len(columns) < len(b.tokens)
    heat = _matrix(trace.a, b, matrix, rows, columns, "pair-matrix")
    full = f"the colour is full at twice an even share of a cosine of 1 (2/{pairs})"
    if some and pairs <= LARGEST_TABLE:
        whole = _matrix(trace.a, b, matrix, [*range(len(a.tokens))], [*range(len(b.tokens))], "whole-matrix")
        heat += folded(f"Show all {len(a.tokens)} × {len(b.tokens)} tokens", whole)
    elif some:
        whole = grid("What each pair of tokens adds to the cosine", signs(matrix, 2 / pairs), a.tokens, b.tokens, 8)
        heat += folded(f"Show all {len(a.tokens)} × {len(b.tokens)} tokens", whole)
    return step_html(
        "pairs",
        label,
        title,
        "Pooling is linear, so the cosine is exactly a sum over all pairs of tokens, one of A and one of B. "
        f"{together_and_apart(matrix)}",
        f'<output class="say" id="matrix-say" aria-live="polite">Each cell is what a pair adds to the cosine or takes away.<span '
        'class="js-only"> Point at a cell or a token, or Tab to the table and use the arrow keys; a click or Enter pins it, Esc '
        f'releases it.</span></output><div class="beside"><div>{heat}<p class="note '
        f'legend">{ramp(2 / pairs, full)}</p></div>'
        f'<div class="tops">{_top(trace.a, b, matrix, 1)}{_top(trace.a, b, matrix, -1)}</div></div>',
        how,
        "wide",
    )


def _top(a: SentenceTrace, b: SentenceTrace, matrix: Tensor, sign: int) -> str:
    """The ten pairs that add the most, or that take away the most."""
    order = (sign * matrix.flatten()).argsort(descending=True).tolist()[:10]
    found = [(at, value) for at in order if (value := matrix.flatten()[at].item()) * sign > 0]
    title = "What pulls together" if sign > 0 else "What pulls apart"
    if not found:
        return f"<div><h3>{title}</h3><p>No pair of tokens {'adds anything' if sign > 0 else 'takes anything away'}.</p></div>"
    largest = matrix.abs().max().item()
    table = html_table(
        f"The pairs that {'add' if sign > 0 else 'take away'} most",
        ["A", "B", "adds" if sign > 0 else "takes away"],
        [
            [piece(a.tokens[at // len(b.tokens)]), piece(b.tokens[at % len(b.tokens)]), bar(value, largest, decimal(value, 4))]
            for at, value in found
        ],
        "did",
    )
    return f"<div><h3>{title}</h3>{table}</div>"


def _matrix(a: SentenceTrace, b: SentenceTrace, matrix: Tensor, rows: list[int], columns: list[int], identity: str) -> str:
    """The pairs as a table with its sums; what rows and columns are left out is summed up in one of each, so that all is there."""
    pairs, marks = matrix.numel(), (is_mark(a), is_mark(b))
    others = [len(a.tokens) - len(rows), len(b.tokens) - len(columns)]

    def mark(side: int, at: int) -> str:
        return ' class="mark"' if marks[side][at] else ""

    def line(name: str, row: Tensor, cells: str) -> str:
        rest = f'<td class="rest">{decimal((row.sum() - row[columns].sum()).item(), 4)}</td>' if others[1] else ""
        return f'<tr>{name}{cells}{rest}<td class="sum">{decimal(row.sum().item(), 4)}</td></tr>'

    body = ""
    for i in rows:
        cells = "".join(
            f'<td data-i="{i}" data-j="{j}" '
            f'class="{"less" if value < 0 else "more"}{" mark" if marks[0][i] or marks[1][j] else ""}" '
            f'style="--v:{pair_colour(value, pairs):.3f}"><span>{decimal(value, 4)}</span></td>'
            for j, value in zip(columns, matrix[i, columns].tolist(), strict=True)
        )
        body += line(f'<th scope="row" data-i="{i}"{mark(0, i)}>{piece(a.tokens[i])}</th>', matrix[i], cells)
    total = matrix.sum(dim=0)  # [tokens of b]
    if others[0]:
        left = total - matrix[rows].sum(dim=0)
        cells = "".join(f'<td class="rest">{decimal(value, 4)}</td>' for value in left[columns].tolist())
        body += line(f'<th scope="row" class="rest">{others[0]} others</th>', left, cells)
    head = "".join(f'<th scope="col" data-j="{j}"{mark(1, j)}><span>{piece(b.tokens[j])}</span></th>' for j in columns)
    head += f'<th scope="col" class="rest"><span>{others[1]} others</span></th>' if others[1] else ""
    sums = "".join(f'<td class="sum">{decimal(value, 4)}</td>' for value in total[columns].tolist())
    foot = line('<th scope="row" class="sum">sum</th>', total, sums)
    dense = " dense" if max(len(rows), len(columns)) > STRONGEST else " many" if len(columns) > 10 else ""
    which = f", the {len(rows)} × {len(columns)} strongest tokens" if any(others) else ""
    return (
        f'<div class="scroll"><table class="heat{dense}" id="{identity}" tabindex="0" aria-describedby="matrix-say"><caption>What '
        f'each pair of tokens adds to the cosine{which}</caption><thead><tr><th scope="col" class="corner">A ↓ B →</th>{head}'
        f'<th scope="col" class="sum">sum</th></tr></thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table></div>'
    )


def neighbours_step(trace: Traced, sentences: Named) -> Step:
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
        ours = one.text.strip()
        others = sum(1 for text in trace.corpus if text.strip() and (one.prompt + text).strip() != ours)
        table = html_table(f"The closest of {others} texts", ["after", "closest first"], rows, "near")
        figures.append(f'<div class="sentence">{sentence_badge(name, sentences)}{table}</div>')
    return step_html(
        "neighbours",
        ("Neighbours", f"{len(trace.corpus)} texts"),
        "The neighbours, layer by layer",
        "Which texts of the corpus would be closest to the sentence if the model ended after this layer? Blank lines and the "
        "sentence itself are left out.",
        f'<div class="pair">{"".join(figures)}</div>',
        how_computed(
            COSINE,
            shape,
            "Reimers &amp; Gurevych 2019, Sentence-BERT, section 4",
            source(layer_neighbours, "tracing.layer_neighbours", "cosine_similarity", "topk"),
        ),
        "wide",
    )
