"""The real all-MiniLM-L6-v2, on real sentences, long paragraphs, all sorts of Unicode, and texts beyond its limit of 256 tokens."""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import PAIR
from transformers import AutoTokenizer

from parity.compare import check_states, check_vectors
from parity.conftest import Both

LIMIT = 256

UNICODE = [
    "Crème brûlée à la façon du chef, naïve Ångström, Zürich, İstanbul, ılık, Straße, ẞ",
    "cafe\u0301, A\u030angstro\u0308m, e\u0301\u0302\u0303\u0304 and Z\u0351\u0343\u034aalgo: accents that stand apart",
    "男は食べ物を食べている。有人在吃饭。남자가 음식을 먹고 있다. 𠀀𠮷",
    "日本語とEnglish混在のテキスト、ﾊﾝｶｸ and Ｆｕｌｌｗｉｄｔｈ １２３",
    "emoji 😀, a family 👨‍👩‍👧‍👦, a skin tone 👍🏽, a flag 🇪🇺, a keycap 7️⃣, a heart ❤️",
    "رجل يأكل الطعام، وَالنَّصُّ مُشَكَّل",
    "איש אוכל אוכל, שָׁלוֹם, and \u202bright to left\u202c in \u200fbetween\u200e",
    "ชายคนหนึ่งกำลังกินอาหาร, आदमी खाना खा रहा है, мужчина ест еду, ο άνδρας τρώει ΣΊΣΥΦΟΣ",
    "controls \x00\x01\x07\x08\x0b\x0c\x1b\x1f\x7f\x80\x9f and lines\r\nand\ttabs\vend\u2028line\u2029paragraph",
    "zero\u200bwidth\u200cand\u200djoined\ufeffand\u2060soft\u00adhyphen and\u00a0no-break\u3000wide\u2003spaces",
    "ligatures ﬁ ﬂ ﬀ, ½ ² ³ ™ ℃ Ⅷ ㍿, x̄ = Σxᵢ/n ≤ √2 ∈ ℝ, €£¥₿, «quotes» “curly” ‘single’ — … ¿¡",
    "private \ue000 use, not \ufffe\uffff characters, replaced \ufffd, an unassigned \u0378, a tag \U000e0041",
    "[CLS] special [SEP] tokens [MASK] in [PAD] the [UNK] text [sep] ##ing ##",
    "UPPER Mixed lower CamelCase under_score kebab-case don't a.b@c.de https://x.y/z?q=1&r=2#s 3.14 1,000,000 C++",
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101 + " " + "é" * 101,
    " \t\n leading and trailing \u00a0\n",
    "\u200b\u200d\ufeff",
    "\u0301",
    " ",
    "?",
]


def paragraphs(sentences: list[str]) -> list[str]:
    """Sentences in a row until they have this many words: 100 to 256 tokens, full stops and special tokens included."""
    rest = iter(sentences)
    texts = []
    for size in range(85, 195, 10):
        words: list[str] = []
        while len(words) < size:
            words += next(rest).split()
        texts.append(" ".join(words))
    return texts


TEXTS: dict[str, Callable[[list[str]], list[str]]] = {
    "sentences": lambda sentences: sentences[::40],
    "paragraphs": paragraphs,
    "unicode": lambda _: UNICODE,
    "beyond the limit": lambda sentences: [" ".join(sentences[:50]), "word " * 300, "x" * 5000, "食" * 254, "食" * 255, "食" * 256],
    "empty": lambda _: [""],
}


@pytest.fixture(scope="module", params=TEXTS)
def texts(request: pytest.FixtureRequest, sts_sentences: list[str]) -> list[str]:
    return TEXTS[request.param](sts_sentences)


@pytest.fixture(scope="module")
def some(texts: list[str]) -> list[str]:
    """Every third: the token ids of all texts are compared, and what the model makes of token ids needs fewer of them."""
    return texts[::3]


def test_the_texts_are_what_they_are_called(minilm_folder: Path, sts_sentences: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    tokens = {name: [len(ids) for ids in tokenizer(make(sts_sentences))["input_ids"]] for name, make in TEXTS.items()}
    assert all(100 <= count <= LIMIT for count in tokens["paragraphs"])
    assert {LIMIT, LIMIT + 1, LIMIT + 2} < set(tokens["beyond the limit"])
    assert tokens["empty"] == [2]


def test_the_ids_are_those_of_auto_tokenizer(minilm: Both, texts: list[str]) -> None:
    assert minilm.encoder.max_seq_length == LIMIT
    assert minilm.encoder.tokenizer(texts).ids == minilm.reference.ids(texts, LIMIT)


@pytest.mark.every_processor
def test_every_layer_gives_the_values_of_auto_model(minilm: Both, some: list[str]) -> None:
    batch = minilm.reference.batch(some, LIMIT)
    check_states(minilm.encoder.bert, batch, minilm.reference.states(batch), minilm.bounds.states)


@pytest.mark.every_processor
def test_encode_gives_the_vectors_of_sentence_transformers(minilm: Both, some: list[str]) -> None:
    check_vectors(minilm.encoder, some, minilm.reference.vectors(some), minilm.bounds.vectors)


@pytest.mark.parametrize("dtype", [torch.float32], indirect=True, ids=["float32"])
def test_the_sentences_of_the_sts_benchmark_have_the_ids_and_every_27th_the_vector_of_the_reference(
    minilm: Both, sts_sentences: list[str]
) -> None:
    assert minilm.encoder.tokenizer(sts_sentences).ids == minilm.reference.ids(sts_sentences, LIMIT)
    some = sts_sentences[::27]  # of either side of the pairs
    check_vectors(minilm.encoder, some, minilm.reference.vectors(some), minilm.bounds.vectors)


@pytest.mark.parametrize("dtype", [torch.float32], indirect=True, ids=["float32"])
def test_the_command_prints_the_six_digits_of_sentence_transformers(minilm: Both) -> None:
    minisbert = Path(sysconfig.get_path("scripts")) / "minisbert"
    command = [minisbert, "similarity", *PAIR, "--model", "all-MiniLM-L6-v2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    cosine = minilm.reference.sentence_transformer.similarity(*minilm.reference.vectors(PAIR)).item()
    assert done.stdout == f"{cosine:.6f}\n", done.stderr
