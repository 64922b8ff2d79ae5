"""What the computer does for a fixed small corpus, counted and not timed: no token, product or copy more than the plan asks for.

The expected counts follow from the plan: a layer has four linear layers (query-key-value, out, up, down), two layer norms, and one
attention for each length group. A change that computes padding, splits a product, or copies more than needed fails here.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from checkpoints import TINY_VOCAB, save_tiny
from torch.utils._python_dispatch import TorchDispatchMode

import minisbert
from minisbert import SentenceEncoder
from minisbert.inference import threads
from minisbert.inference.batching import length_groups, pack, padding_tokens

LAYERS, HIDDEN, INNER = 3, 32, 40
LINEAR = {"linear", "_linear_pointwise"}  # MKL's or oneDNN's
COPIES = {"copy_", "clone", "contiguous", "_to_copy", "cat", "stack", "index_put_", "pad", "constant_pad_nd"}


class Counts(TorchDispatchMode):
    """Counts operations of this thread while it is in force.

    Attributes:
        calls: of each operation.
        products: (rows, in, out) of each linear layer.
        copied: values that were copied from one tensor into another, by the operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.products: Counter[tuple[int, int, int]] = Counter()
        self.copied: Counter[str] = Counter()

    @property
    def linears(self) -> int:
        return sum(self.calls[name] for name in LINEAR)

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = function(*arguments, **(options or {}))
        name = function.overloadpacket.__name__
        self.calls[name] += 1
        if name in LINEAR:
            self.products[result.shape[0], arguments[0].shape[1], result.shape[1]] += 1
        if name in COPIES and result.is_floating_point():
            source = {"copy_": 1, "index_put_": 2}.get(name)
            self.copied[name] += result.numel() if source is None else arguments[source].numel()
        return result


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    folder = tmp_path_factory.mktemp("counted")
    save_tiny(folder, num_hidden_layers=LAYERS, hidden_size=HIDDEN, intermediate_size=INNER)
    return minisbert.load(str(folder))


class Plan:
    """What the plan for a corpus asks for: each batch with the tokens that fill it up."""

    def __init__(self, encoder: SentenceEncoder, texts: list[str]) -> None:
        lengths = [len(ids) for ids in encoder.tokenizer(list(dict.fromkeys(texts))).ids]
        batches = pack(lengths, encoder.device)
        padding = [padding_tokens(batch.tokens) for batch in batches]
        self.sentences = len(lengths)
        self.real_tokens = sum(lengths)
        self.tokens = [batch.tokens + more for batch, more in zip(batches, padding, strict=True)]
        self.groups = sum(len(length_groups([lengths[index] for index in batch.indices])) for batch in batches)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Counting sees the thread that it was begun in; with one thread, that one computes all batches."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    rng = random.Random(0)
    words = [word for word in TINY_VOCAB if word.isalpha()]
    return [" ".join(rng.choices(words, k=rng.randint(1, 30))) for _ in range(90)]


def counted(encoder: SentenceEncoder, texts: list[str]) -> Counts:
    encoder.encode(texts[:2])  # what is done once only is done
    # A caller's mode does not reach a computation, so this one is let in.
    with pytest.MonkeyPatch.context() as patch, Counts() as counts:
        patch.setattr(threads, "_is_default", lambda: True)
        encoder.encode(texts)
    return counts


def test_each_layer_multiplies_each_token_by_four_matrices_and_nothing_else(encoder: SentenceEncoder, corpus: list[str]) -> None:
    counts, plan = counted(encoder, corpus), Plan(encoder, corpus)
    shapes = ((HIDDEN, 3 * HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, INNER), (INNER, HIDDEN))
    expected = Counter({(tokens, *shape): LAYERS * plan.tokens.count(tokens) for tokens in plan.tokens for shape in shapes})
    assert counts.products == expected
    assert counts.linears == 4 * LAYERS * len(plan.tokens)
    assert not counts.calls.keys() & {"bmm", "matmul", "baddbmm", "einsum"}


def test_there_are_few_padding_tokens(encoder: SentenceEncoder, corpus: list[str]) -> None:
    plan = Plan(encoder, corpus)
    assert len(plan.tokens) > 1, "the corpus is to make several batches"
    assert sum(plan.tokens) < 1.125 * plan.real_tokens, "8 sizes to each doubling: an eighth at most"


def test_attention_is_one_call_for_each_length_group_and_layer(encoder: SentenceEncoder, corpus: list[str]) -> None:
    counts, plan = counted(encoder, corpus), Plan(encoder, corpus)
    assert counts.calls["scaled_dot_product_attention"] == LAYERS * plan.groups


def test_norms_sums_and_activations_are_one_call_for_each_batch(encoder: SentenceEncoder, corpus: list[str]) -> None:
    counts, batches = counted(encoder, corpus), len(Plan(encoder, corpus).tokens)
    assert counts.calls["layer_norm"] == (1 + 2 * LAYERS) * batches
    assert counts.calls["add"] + counts.calls["add_"] <= (2 + 2 * LAYERS) * batches  # embeddings, residuals
    assert counts.calls["gelu"] == LAYERS * batches


def test_a_layer_copies_each_token_once_and_a_sentence_is_copied_three_times(encoder: SentenceEncoder, corpus: list[str]) -> None:
    counts, plan = counted(encoder, corpus), Plan(encoder, corpus)
    of_tokens = LAYERS * sum(plan.tokens) * HIDDEN  # the contexts of the length groups, into one tensor
    of_sentences = 3 * plan.sentences * HIDDEN  # pooled, finished, into its row of the result
    assert of_tokens <= sum(counts.copied.values()) <= of_tokens + of_sentences, counts.copied


def test_a_repeated_text_costs_nothing(encoder: SentenceEncoder, corpus: list[str]) -> None:
    once, twice = counted(encoder, corpus), counted(encoder, corpus + corpus[::2])
    assert twice.products == once.products


def test_a_single_text_is_one_batch(encoder: SentenceEncoder) -> None:
    counts = counted(encoder, ["a man is eating food ."])
    assert counts.linears == 4 * LAYERS


def test_with_workers_the_calling_thread_computes_nothing(encoder: SentenceEncoder, corpus: list[str]) -> None:
    """One small operation there on all cores, and OpenMP's threads spin on the cores that the workers need."""
    texts = list(dict.fromkeys(corpus))
    torch.set_num_threads(2)
    counts = counted(encoder, texts)
    assert counts.calls == {"empty": 1}, "the tensor for the rows, and it is not filled there"
