"""The shape and the files of bert-base-nli-mean-tokens: 12 layers of 768, the real vocabulary, 128 tokens, random weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from parity.compare import check_states, check_vectors
from parity.conftest import Both

LIMIT = 128
CHOICES: dict[str, Callable[[list[str]], list[str]]] = {
    "sentences": lambda sentences: [*sentences[::400], ""],
    "below and beyond the limit": lambda sentences: [" ".join(sentences[:12]), " ".join(sentences[:30])],
}


@pytest.fixture(scope="module", params=CHOICES)
def texts(request: pytest.FixtureRequest, sts_sentences: list[str]) -> list[str]:
    return CHOICES[request.param](sts_sentences)


def test_the_ids_are_those_of_auto_tokenizer(bert_base: Both, texts: list[str]) -> None:
    assert bert_base.encoder.max_seq_length == LIMIT
    assert bert_base.encoder.tokenizer(texts).ids == bert_base.reference.ids(texts, LIMIT)


def test_every_layer_gives_the_values_of_auto_model(bert_base: Both, texts: list[str]) -> None:
    batch = bert_base.reference.batch(texts, LIMIT)
    check_states(bert_base.encoder.bert, batch, bert_base.reference.states(batch), bert_base.bounds.states)


def test_encode_gives_the_vectors_of_sentence_transformers(bert_base: Both, texts: list[str]) -> None:
    check_vectors(bert_base.encoder, texts, bert_base.reference.vectors(texts), bert_base.bounds.vectors)
