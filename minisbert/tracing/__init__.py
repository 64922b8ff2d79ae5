"""What happens to a sentence inside the model, as tensors and as a page: `minisbert.trace`.

    record.py   hooks record the outputs of the model's parts while a sentence is encoded
    pairs.py    how much each pair of tokens adds to the cosine
    page.py     the trace as an HTML page: `answer.py` is its head, `steps.py`, `layers.py` and `comparison.py` say what each step
                shows; `html.py`, `formulas.py` and `pictures.py` have the pieces; `page.html`, `page.css`, `page.js` are the frame
    card.py     the answer as one SVG picture
    serve.py    the page at an address of this machine, with a form for other sentences

The folder is not called `trace`, because `minisbert.trace` is the function. It imports encoder, files, inference, checkpoint,
bert, pooling and tokenizer. It is imported by cli and, when it is used, by `minisbert.trace`.

Notation as in `bert.py`; here `tokens` are those of one sentence, special tokens included, and `dim` is the width of its vector.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from minisbert.encoder import SentenceEncoder
from minisbert.errors import warn
from minisbert.files.writing import write_whole
from minisbert.inference.inputs import check_text
from minisbert.inference.threads import in_default_state
from minisbert.tracing.pairs import Traced
from minisbert.tracing.record import Neighbours, SentenceTrace, corpus_texts, layer_neighbours, trace_sentence

__all__ = ["Neighbours", "SentenceTrace", "Trace", "trace"]


class Trace(Traced):
    """The trace of one sentence or of two, from `minisbert.trace`. A notebook shows it as the page that `save_html` writes.

    Attributes:
        a: the first sentence.
        b: the second, or None.
        encoder: the encoder that was traced.
        corpus: the texts among which neighbours were looked for; empty without a corpus.
    """

    def html(self) -> str:
        """The page: one self-contained HTML document that needs no network."""
        from minisbert.tracing.page import render

        return in_default_state(lambda: render(self))

    def save_html(self, path: str | os.PathLike[str]) -> None:
        """Writes the page. A double click opens it in a browser, and it needs no network.

        Raises:
            FileExistsError: if the file there is not such a page.
            ValueError: if it cannot be written there.
        """
        write_whole(path, self.html(), is_page)

    def svg(self) -> str:
        """The answer as one SVG picture: what each token and each pair of tokens adds to the cosine.

        Raises:
            ValueError: as for `pair_matrix`, or if the sentences have more than 24 tokens.
        """
        from minisbert.tracing.card import render

        return in_default_state(lambda: render(self))

    def save_svg(self, path: str | os.PathLike[str]) -> None:
        """Writes the picture that `svg` gives.

        Raises:
            FileExistsError: if the file there is not such a picture.
            ValueError: as for `svg`, or if it cannot be written there.
        """
        write_whole(path, self.svg(), is_card)

    def _repr_html_(self) -> str:
        from minisbert.tracing.page import in_a_frame

        return in_a_frame(self.html())


def is_page(head: bytes) -> bool:
    """Whether `save_html` wrote a file with this beginning."""
    return b'<meta name="generator" content="minisbert">' in head


def is_card(head: bytes) -> bool:
    """Whether `save_svg` wrote a file with this beginning."""
    return head.startswith(b"<svg ") and b"<!-- minisbert trace -->" in head


def trace(encoder: SentenceEncoder, a: str, b: str | None = None, corpus: Sequence[str] | None = None) -> Trace:
    """`minisbert.trace` for an encoder."""
    given = [check_text(a, "a"), *([check_text(b, "b")] if b is not None else [])]
    texts = corpus_texts(corpus)
    sentences = [in_default_state(partial(trace_sentence, encoder, text)) for text in given]
    for name, sentence in zip("ab", sentences, strict=False):
        if sentence.cut:
            warn(
                f"{name}: {len(sentence.cut)} of its {len(sentence.tokens) + len(sentence.cut)} tokens are beyond the limit of "
                f"{encoder.max_seq_length} and were cut. The model never saw them."
            )
    if texts:
        found = in_default_state(lambda: layer_neighbours(encoder, sentences, texts))
        sentences = [replace(sentence, neighbours=neighbours) for sentence, neighbours in zip(sentences, found, strict=True)]
    return Trace(encoder, sentences[0], sentences[1] if b is not None else None, texts)
