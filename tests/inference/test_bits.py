"""A vector depends on its text alone: the same bits whatever the batch and order, from every way in, on one machine.

The layers of a BERT have equal shapes, so that a model cut to its first layer computes every matrix product that the whole one
does, in a sixth of the time: it takes the ten thousand sentences. The whole model takes some hundred.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_tiny
from safetensors.torch import load_file
from torch import Tensor

import minisbert
from minisbert import SentenceEncoder
from minisbert.cli import main

pytestmark = pytest.mark.slow

# Six batch sizes, in sentences and in tokens, the default first, the smallest and the largest among them.
BATCHES: tuple[dict[str, int], ...] = (
    {},
    {"batch_size": 1},
    {"batch_size": 3},
    {"batch_size": 32},
    {"batch_tokens": 40},
    {"batch_tokens": 10_000},
)


@pytest.fixture(autouse=True, params=[1, 2], ids=["1-thread", "2-threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Bits are promised at one number of threads, whichever it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sentences(sts_folder: Path) -> list[str]:
    """The different texts of all files of the STS data."""
    texts: dict[str, None] = {}
    for path in sorted(sts_folder.glob("*.tsv")):
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            texts.update(dict.fromkeys(line.split("\t")[1:3]))
    return list(texts)


@pytest.fixture(scope="module")
def whole(minilm_folder: Path) -> SentenceEncoder:
    return minisbert.load(minilm_folder, device="cpu")


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=str)
def layer(request: pytest.FixtureRequest, minilm_folder: Path) -> SentenceEncoder:
    return first_layer(minilm_folder, request.param)


def first_layer(folder: Path, dtype: torch.dtype) -> SentenceEncoder:
    encoder = minisbert.load(folder, device="cpu", dtype=dtype)
    encoder.bert.layers = encoder.bert.layers[:1]
    return encoder


def bits(vectors: Tensor) -> Tensor:
    return vectors.view(torch.int64 if vectors.dtype == torch.float64 else torch.int32)


class Base:
    """The vectors of some texts, computed once, and what differs from them later."""

    def __init__(self, encoder: SentenceEncoder, texts: list[str]) -> None:
        self.encoder = encoder
        self.texts = texts
        self.rows = bits(encoder.encode(texts))
        self.differ: dict[str, list[str]] = {}

    def compare(self, name: str, indices: list[int], vectors: Tensor) -> None:
        unlike = (bits(vectors) != self.rows[indices]).any(dim=1).nonzero().flatten().tolist()
        if unlike:
            self.differ[name] = [f"{len(unlike)} of {len(indices)}", *(self.texts[indices[i]] for i in unlike[:10])]

    def encode(self, name: str, indices: list[int], **options: Any) -> None:
        self.compare(f"{name} {options}", indices, self.encoder.encode([self.texts[i] for i in indices], **options))


def test_ten_thousand_sentences_shuffled_in_six_batch_sizes(minilm_folder: Path, sentences: list[str], threads: int) -> None:
    """Every text is encoded twice: with all others, and with the fifth of them that a shuffle gives to one of the other sizes.

    The ten thousand shortest at one thread; at two a part, as the time of a test run is worth something too.
    """
    some = sorted(sentences, key=len)[:10_000] if threads == 1 else random.Random(0).sample(sentences, 1000)
    assert len(some) == (10_000 if threads == 1 else 1000)
    base = Base(first_layer(minilm_folder, torch.float32), some)
    shuffled = random.Random(threads).sample(range(len(some)), len(some))
    for number, options in enumerate(BATCHES[1:]):
        base.encode(f"shuffle {number}", shuffled[number::5], **options)
    assert base.differ == {}


def test_every_length_from_one_token_to_the_limit(layer: SentenceEncoder, threads: int) -> None:
    texts = ["", *("a " * n for n in range(1, 255))]
    assert layer.count_tokens(texts) == list(range(2, 257))
    some = random.Random(1).choices(range(255), k=16)
    # Alone, too: all of them in float32 on two cores, which then share a sentence, and otherwise a part.
    alone = list(range(0, 255, 1 if layer.dtype == torch.float32 and threads == 2 else 8))
    compared = sorted({*some, *alone})
    base = Base(layer, [texts[i] for i in compared])
    for options in BATCHES:
        base.encode("in batches", [compared.index(i) for i in some], **options)
    base.compare("alone", [compared.index(i) for i in alone], torch.stack([layer.encode(texts[i]) for i in alone]))
    assert base.differ == {}


@pytest.mark.every_processor
def test_every_tiny_shape(layer: SentenceEncoder) -> None:
    """From 1 to 12 sentences of 2 to 13 tokens: the products of few rows, which libraries compute in ways of their own."""
    words = ("man", "cat", "dog", "food", "water", "red", "blue", "green", "mat", "play", "run", "sun")
    texts = ["", *(f"{'a ' * (n - 1)}{word}" for n in range(1, 12) for word in words)]
    base = Base(layer, texts)
    base.encode("alone", [0])
    for n in range(1, 12):
        for sentences in range(1, 13):
            first = 1 + (n - 1) * len(words)
            base.encode(f"{sentences} of {n + 2} tokens", list(range(first, first + sentences)))
            if sentences < 12 and n < 11:  # the same beside one of another length
                base.encode(f"{sentences} of {n + 2} tokens and one more", [*range(first, first + sentences), first + len(words)])
    assert base.differ == {}


def test_every_way_in(whole: SentenceEncoder, minilm_folder: Path, sentences: list[str], tmp_path: Path) -> None:
    """encode, encode_stream, the command; alone, repeated, in several threads at once."""
    rng = random.Random(2)
    texts = rng.sample(sentences, 60)
    base = Base(whole, texts)
    shuffled = rng.sample(range(60), 60)
    base.encode("shuffled", shuffled, batch_size=5)
    for window in 1, 20, 1000:
        some = shuffled if window > 1 else shuffled[:10]
        rows = list(whole.encode_stream((texts[i] for i in some), window=window))
        assert max(map(len, rows)) <= window
        base.compare(f"encode_stream, window {window}", some, torch.cat(rows))
    few = rng.choices(range(10), k=50)
    base.encode("repeated", few)
    alone = rng.sample(range(60), 10)
    base.compare("alone", alone, torch.stack([whole.encode(texts[i]) for i in alone]))
    base.compare("minisbert.encode", alone, minisbert.encode([texts[i] for i in alone], whole))

    parts = [shuffled[start:60:4] for start in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for part, vectors in zip(parts, pool.map(lambda part: whole.encode([texts[i] for i in part]), parts), strict=True):
            base.compare("four threads", part, vectors)

    (tmp_path / "texts.txt").write_text("\n".join(texts[i] for i in shuffled) + "\n", encoding="utf-8")
    out = tmp_path / "vectors.safetensors"
    assert main(["encode", str(tmp_path / "texts.txt"), "--out", str(out), "--model", str(minilm_folder), "--device", "cpu"]) == 0
    base.compare("the command", shuffled, load_file(out)["embeddings"])
    assert base.differ == {}


@pytest.mark.every_processor
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_tiny_models_keep_their_bits_too(tmp_path: Path, dtype: torch.dtype) -> None:
    save_tiny(tmp_path)
    encoder = minisbert.load(tmp_path, dtype=dtype, device="cpu")
    words = ("a", "man", "is", "sat", "food", ".", "the", "cat", "mat", "on")
    base = Base(encoder, [" ".join(random.Random(n).choices(words, k=n % 31)) for n in range(300)])
    for seed, options in enumerate(BATCHES):
        base.encode(f"shuffle {seed}", random.Random(seed).sample(range(300), 300), **options)
    assert base.differ == {}


def test_a_difference_would_be_seen(whole: SentenceEncoder) -> None:
    """The comparison itself: one bit of one number of one row."""
    base = Base(whole, ["a man", "a cat"])
    vectors = base.encoder.encode(base.texts)
    base.compare("equal", [0, 1], vectors)
    assert base.differ == {}
    bits(vectors)[1, 7] ^= 1
    base.compare("unequal", [0, 1], vectors)
    assert base.differ == {"unequal": ["1 of 2", "a cat"]}
