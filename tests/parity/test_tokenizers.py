"""Unigram, byte-level BPE and MPNet's WordPiece: the ids of `AutoTokenizer`, for texts of all scripts and for text that is none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from checkpoints import finder, save_tiny, write_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, CamembertTokenizer, MPNetTokenizer, RobertaTokenizer, XLMRobertaTokenizer
from transformers.convert_slow_tokenizer import CamembertConverter, XLMRobertaConverter
from vocabularies import SCRIPTS, byte_level_bpe, mpnet_vocabulary, of_old, of_today, sentencepiece_model

from minisbert.checkpoint.config import read_checkpoint
from minisbert.checkpoint.tokenizer_files import read_tokenizer
from minisbert.tokenizer import TextTokenizer

LIMIT = 32
SPECIAL = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", " <mask> ", "<MASK>", "<S>", "<s>NOTUSED", "[UNK]", "▁", "▁▁a", "Ġ"]
RANGES = {
    "Latin": (0x20, 0x24F),
    "combining": (0x300, 0x36F),
    "Arabic": (0x600, 0x6FF),
    "Devanagari": (0x900, 0x97F),
    "Thai": (0xE00, 0xE7F),
    "spaces and marks": (0x2000, 0x206F),
    "numerals": (0x2150, 0x24FF),
    "Chinese": (0x4E00, 0x4FFF),
    "Hangul": (0xAC00, 0xACFF),
    "ligatures": (0xFB00, 0xFDFF),
    "full-width": (0xFF00, 0xFFEF),
    "emoji": (0x1F300, 0x1F6FF),
    "controls": (0x00, 0x1F),
}


@cache
def texts(sentences: tuple[str, ...], count: int) -> list[str]:
    """Real sentences, others with characters of all scripts and special tokens strewn in, and some of nothing else."""
    generator = random.Random(0)
    made = [*SCRIPTS, *SPECIAL, "", " ", "\t\n", "  two  spaces  ", "a\u00a0b\u3000c\u200bd\ufeffe"]
    while len(made) < count:
        words = generator.choice(sentences).split(" ") if generator.random() < 0.8 else []
        for _ in range(generator.randrange(6)):
            low, high = RANGES[generator.choice(list(RANGES))]
            strange = "".join(chr(generator.randint(low, high)) for _ in range(generator.randrange(1, 8)))
            words.insert(generator.randrange(len(words) + 1), generator.choice([strange, strange, generator.choice(SPECIAL)]))
        made.append(generator.choice([" ", " ", "  ", ""]).join(words))
    return made


@pytest.fixture(scope="module")
def trained(sts_sentences: list[str]) -> tuple[str, ...]:
    """What the tokenizers are trained on."""
    return (*sts_sentences, *SCRIPTS * 4)


def old(folder: Path, kind: Any, model: bytes, **settings: Any) -> None:
    """A tokenizer.json by transformers 4, with the settings that went with it."""
    of_old(kind, model).save(str(folder / "tokenizer.json"))
    mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "normalized": True, "rstrip": False, "single_word": False}
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>"}
    write_json(folder / "tokenizer_config.json", {**tokens, "pad_token": "<pad>", "mask_token": mask, **settings})


def vocab_txt(folder: Path, _: tuple[str, ...]) -> None:
    (folder / "vocab.txt").write_text("\n".join(mpnet_vocabulary()) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True})


Make = Callable[[Path, tuple[str, ...]], object]
FORMS: dict[str, tuple[str, Make]] = {
    "XLM-R of today": (
        "xlm-roberta",
        lambda folder, texts: of_today(XLMRobertaTokenizer, sentencepiece_model(texts, 2000)).save_pretrained(folder),
    ),
    "XLM-R of transformers 4": (
        "xlm-roberta",
        lambda folder, texts: old(
            folder, XLMRobertaConverter, sentencepiece_model(texts, 2000), tokenizer_class="XLMRobertaTokenizer"
        ),
    ),
    "XLM-R as the file says": (
        "bert",
        lambda folder, texts: old(
            folder, XLMRobertaConverter, sentencepiece_model(texts, 2000), tokenizer_class="PreTrainedTokenizerFast"
        ),
    ),
    "CamemBERT of today": (
        "camembert",
        lambda folder, texts: of_today(CamembertTokenizer, sentencepiece_model(texts, 2000)).save_pretrained(folder),
    ),
    "CamemBERT of transformers 4": (
        "camembert",
        lambda folder, texts: old(folder, CamembertConverter, sentencepiece_model(texts, 2000)),
    ),
    "RoBERTa": (
        "roberta",
        lambda folder, texts: RobertaTokenizer(*byte_level_bpe(texts, 1000)).save_pretrained(folder),
    ),
    "RoBERTa with a space before": (
        "roberta",
        lambda folder, texts: RobertaTokenizer(*byte_level_bpe(texts, 1000), add_prefix_space=True).save_pretrained(folder),
    ),
    "MPNet": ("mpnet", lambda folder, _: MPNetTokenizer(mpnet_vocabulary()).save_pretrained(folder)),
    "MPNet cased": ("mpnet", lambda folder, _: MPNetTokenizer(mpnet_vocabulary(), do_lower_case=False).save_pretrained(folder)),
    "MPNet's vocab.txt": ("mpnet", vocab_txt),
}


@pytest.fixture(scope="module", params=FORMS)
def both(request: pytest.FixtureRequest, trained: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """One tokenizer, by either side."""
    model_type, make = FORMS[request.param]
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tiny(folder, model_type=model_type)
    for file in "tokenizer.json", "tokenizer_config.json", "vocab.txt":
        (folder / file).unlink(missing_ok=True)
    make(folder, trained)
    write_json(folder / "config.json", json.loads((folder / "config.json").read_text()) | {"vocab_size": 5000})
    ours = read_tokenizer(finder(folder), read_checkpoint(finder(folder)))
    return ours, AutoTokenizer.from_pretrained(folder)


def check(ours: TextTokenizer, theirs: Any, some: list[str]) -> None:
    expected = theirs(some, truncation=True, max_length=LIMIT)["input_ids"]
    found = ours(some).ids
    wrong = [(text, a, b) for text, a, b in zip(some, found, expected, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} of {len(some)}, the first: {wrong[0]}"


def test_thousands_of_texts_have_the_ids_of_the_reference(both: tuple[Any, Any], sts_sentences: list[str]) -> None:
    """Ten thousand for the form in which most published Unigram tokenizers are, and a part of them for the others."""
    ours, theirs = both
    some = texts(tuple(sts_sentences), 10_000)
    check(ours, theirs, some if type(theirs).__name__ == "XLMRobertaTokenizer" else some[:2000])
    assert ours.load_warnings == ()


@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_has_the_ids_of_the_reference(both: tuple[Any, Any], text: str) -> None:
    check(*both, [text])
