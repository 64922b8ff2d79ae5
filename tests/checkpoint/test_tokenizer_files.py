"""Tokenizers: the same ids as AutoTokenizer's, whatever files and settings they are made from; and the limit, which only cuts."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import struct
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from checkpoints import TINY_VOCAB, finder, save_tiny, write_json
from messages import naming
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

import minisbert
from minisbert import CheckpointError, MinisbertWarning
from minisbert.checkpoint.config import read_checkpoint
from minisbert.checkpoint.fields import LARGEST_JSON
from minisbert.checkpoint.tokenizer_files import MOST_ADDED_TOKENS, read_tokenizer
from minisbert.tokenizer import TextTokenizer

TEXTS = [
    "A man is eating food.",
    "the Cat SAT on the RED mat , running",
    "CAFÉ café cafe\u0301 Ångström naïve İstanbul ΣΊΣΥΦΟΣ",
    "男は食べ物を食べている。有人在吃饭 cat猫cat",
    "[CLS] special [SEP] tokens [MASK] in [PAD] the [UNK] text",
    "<x> an added<x>token <y>and<y> another , Added added ADDED <s> </s>",
    "#hash ##ing don't a.b@c.de 3.14 C++ \x00\u200b\u00a0 x",
    "  ",
    "",
    "unknownwordsunknownwords" * 10,
]
CHARSMAP = base64.b64encode(struct.pack("<IIIII", 16, *[0] * 4) + b"x" * 101 + b"\0").decode()
ACCENTED = ["café", "Café", "CAFÉ", "Cat", "CAT", "猫", "男", "食", "c", "##a", "##f", "##é", "##e", "Z", "##ü", "ü", "u"]


def lay_out(folder: Path, vocab: list[str] = TINY_VOCAB, rows: int | None = None, **settings: Any) -> None:
    """A checkpoint's tokenizer: vocab.txt and tokenizer_config.json alone, and a config.json with `rows` ids."""
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", settings)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"vocab_size": rows or len(vocab) + 10})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The json files of a checkpoint without weights: they are not looked at here."""
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    return tmp_path


def ours(folder: Path) -> TextTokenizer:
    return read_tokenizer(finder(folder), read_checkpoint(finder(folder)))


def check(folder: Path, texts: list[str] = TEXTS, limit: int = 32) -> TextTokenizer:
    """The same ids for all texts; returns our tokenizer."""
    tokenizer = ours(folder)
    reference = AutoTokenizer.from_pretrained(folder)
    theirs = reference(texts, truncation=True, max_length=limit)
    assert tokenizer.max_length == limit
    assert tokenizer(texts).ids == theirs["input_ids"]
    assert tokenizer(texts).untruncated_lengths == [len(ids) for ids in reference(texts)["input_ids"]]
    assert not any(map(any, theirs["token_type_ids"])) if "token_type_ids" in theirs else True
    return tokenizer


def refused(folder: Path, *parts: object) -> None:
    with pytest.raises(CheckpointError, match=naming(*parts)):
        ours(folder)


def as_json(folder: Path, **changes: Any) -> dict[str, Any]:
    """Writes the tokenizer.json that transformers makes of this vocab.txt, changed, and takes the vocab.txt away."""
    settings = (folder / "tokenizer_config.json").read_text()
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(settings)
    (folder / "vocab.txt").unlink()
    values = json.loads((folder / "tokenizer.json").read_text()) | changes
    write_json(folder / "tokenizer.json", values)
    return values


# --- settings -----------------------------------------------------------------------------------------------------------------

LOWER = [{}, {"do_lower_case": True}, {"do_lower_case": False}]
ACCENTS = [{}, {"strip_accents": None}, {"strip_accents": True}, {"strip_accents": False}]
CHINESE = [{}, {"tokenize_chinese_chars": True}, {"tokenize_chinese_chars": False}]
SETTINGS = [lower | accents | chinese for lower in LOWER for accents in ACCENTS for chinese in CHINESE]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_combination_of_settings_gives_the_ids_of_the_reference(folder: Path, settings: dict[str, Any]) -> None:
    lay_out(folder, TINY_VOCAB + ACCENTED, **settings)
    check(folder)
    as_json(folder)
    check(folder)


def test_the_settings_make_a_difference(folder: Path) -> None:
    """So that the test above could fail."""
    ids = set()
    for settings in ({}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}):
        lay_out(folder, TINY_VOCAB + ACCENTED, **settings)
        ids.add(str(ours(folder)(TEXTS).ids))
    assert len(ids) == 4


@pytest.mark.parametrize("lower_first", [True, False])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json"])
def test_lower_casing_may_be_asked_for_in_either_file(folder: Path, form: str, lower: bool, lower_first: bool) -> None:
    save_tiny(folder)
    lay_out(folder, TINY_VOCAB + ACCENTED, rows=len(TINY_VOCAB), do_lower_case=lower)
    if form == "tokenizer.json":
        as_json(folder)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": lower_first})
    write_json(folder / "config.json", json.loads((folder / "config.json").read_text()) | {"vocab_size": 99})
    (folder / "model.safetensors").unlink()
    from transformers import BertConfig, BertModel

    BertModel(BertConfig.from_pretrained(folder)).save_pretrained(folder)
    reference = SentenceTransformer(str(folder), device="cpu").tokenizer
    assert ours(folder)(TEXTS).ids == reference(TEXTS, truncation=True, max_length=32)["input_ids"]


# --- special and added tokens -------------------------------------------------------------------------------------------------

OWN = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", *TINY_VOCAB[5:]]
NAMES = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), OWN, strict=False))
X = {"content": "<x>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}


@pytest.mark.parametrize("where", ["tokenizer_config.json", "special_tokens_map.json", "both", "objects"])
@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json"])
def test_own_special_tokens_are_taken_from_either_file(folder: Path, form: str, where: str) -> None:
    lay_out(folder, OWN, **NAMES)
    if form == "tokenizer.json":
        as_json(folder)
    if where != "tokenizer_config.json":
        write_json(folder / "tokenizer_config.json", {"cls_token": "cat"} if where == "both" else {})
        values = {name: X | {"content": token} for name, token in NAMES.items()}
        write_json(folder / "special_tokens_map.json", values if where == "objects" else NAMES)
    tokenizer = check(folder)
    assert [tokenizer.tokenizer.id_to_token(number) for number in tokenizer([""]).ids[0]] == ["<s>", "</s>"]


ADDED: dict[str, dict[str, Any]] = {
    "decoder": {"added_tokens_decoder": {"33": X, "34": X | {"content": "<y>", "lstrip": True, "rstrip": True}}},
    "a plain one": {"added_tokens_decoder": {"33": X | {"special": False, "normalized": True, "content": "Added"}}},
    "a whole word": {"added_tokens_decoder": {"33": X | {"single_word": True}}},
    "known ones": {"added_tokens_decoder": {str(n): X | {"content": token} for n, token in enumerate(TINY_VOCAB[:5])} | {"33": X}},
    "additional": {"additional_special_tokens": ["<x>", "<y>"]},
    "extra": {"extra_special_tokens": ["<y>", "<x>"]},
    "another role": {"image_token": "<x>"},
    "bos": {"bos_token": "<y>", "eos_token": "[SEP]"},
    "split": {"split_special_tokens": True},
}


@pytest.mark.parametrize("name", ADDED)
@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json"])
def test_added_tokens_have_the_ids_of_the_reference(folder: Path, form: str, name: str) -> None:
    lay_out(folder, **ADDED[name])
    if form == "tokenizer.json":
        as_json(folder)
    check(folder)


@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json"])
def test_added_tokens_json_of_old_repositories_is_read(folder: Path, form: str) -> None:
    lay_out(folder)
    if form == "tokenizer.json":
        as_json(folder)
    write_json(folder / "added_tokens.json", {"<y>": 34, "<x>": 33})
    write_json(folder / "special_tokens_map.json", {"additional_special_tokens": ["<y>"]})
    check(folder)


def test_the_list_of_added_tokens_in_the_settings_stands_for_that_of_tokenizer_json(folder: Path) -> None:
    lay_out(folder, added_tokens_decoder={"33": X})
    as_json(folder)
    write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": {"33": X | {"content": "<y>"}}})
    assert ours(folder).tokenizer.token_to_id("<x>") is None
    check(folder)


def test_a_token_for_masks_that_has_no_place_is_a_text(folder: Path) -> None:
    lay_out(folder, [token for token in TINY_VOCAB if token != "[MASK]"], rows=len(TINY_VOCAB) - 1)
    tokenizer = ours(folder)
    assert tokenizer.vocab_size == len(TINY_VOCAB) - 1
    assert max(tokenizer(["[MASK] a"]).ids[0]) < len(TINY_VOCAB) - 1


Y = X | {"content": "<y>"}


@pytest.mark.parametrize(
    ("added", "numbers"),
    [
        ({"40": X}, {"<x>": (40, 33)}),
        ({"3": X}, {"<x>": (3, 33)}),
        ({"33": X, "45": Y}, {"<y>": (45, 34)}),
        ({"6": X | {"content": "cat"}}, {"cat": (6, 17)}),  # the vocabulary has it
    ],
    ids=str,
)
@pytest.mark.parametrize("old", [False, True], ids=["tokenizer_config.json", "added_tokens.json"])
def test_added_tokens_with_other_ids_get_those_of_the_reference_with_a_warning(
    folder: Path, added: dict[str, Any], numbers: dict[str, tuple[int, int]], old: bool
) -> None:
    lay_out(folder, **({} if old else {"added_tokens_decoder": added}))
    if old:
        write_json(folder / "added_tokens.json", {token["content"]: int(number) for number, token in added.items()})
    tokenizer = check(folder)
    for token, (there, taken) in numbers.items():
        assert tokenizer.tokenizer.token_to_id(token) == taken
        assert any(naming(f'"{token}"', f"{there} there", taken).search(said) for said in tokenizer.load_warnings)
    assert len(tokenizer.load_warnings) == len(numbers)


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ([*TINY_VOCAB[:10], "", *TINY_VOCAB[10:]], ("line 11", "empty")),
        ([*TINY_VOCAB, ""], ("line 34", "empty")),
        ([*TINY_VOCAB, "man", "is", "man"], ("line 34", "'man'", "line 7", "line 35", "'is'", "line 8", "line 36", "'man'")),
        ([*TINY_VOCAB, "man "], ("line 34", "'man'", "line 7")),
    ],
)
def test_an_empty_line_and_a_token_that_stands_twice_are_read_as_in_the_reference(
    folder: Path, lines: list[str], parts: tuple[str, ...]
) -> None:
    lay_out(folder, lines)
    (warning,) = check(folder).load_warnings
    assert naming("vocab.txt", *parts).search(warning)
    lay_out(folder, [*TINY_VOCAB, ""], rows=len(TINY_VOCAB))  # the empty line needs no row of the embedding
    check(folder)


@pytest.mark.parametrize(
    "name",
    [
        *("DPRQuestionEncoder", "DPRContextEncoder", "DPRReader", "MobileBert", "LayoutLM", "Lxmert", "SqueezeBert", "ConvBert"),
        "Splinter",
    ],
)
def test_other_names_of_berts_tokenizer_give_the_ids_of_the_reference(folder: Path, name: str) -> None:
    for fast in "", "Fast":
        lay_out(folder, TINY_VOCAB + ACCENTED, tokenizer_class=f"{name}Tokenizer{fast}")
        check(folder, [*TEXTS, "[QUESTION] a"])


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"added_tokens_decoder": []}, ("'added_tokens_decoder'", "[] (list)")),
        ({"added_tokens_decoder": {"x": X}}, ("'added_tokens_decoder'", '"x" (str)')),
        ({"added_tokens_decoder": {"9" * 40: X}}, ("'added_tokens_decoder'", "9" * 40)),
        ({"added_tokens_decoder": {"33": "<x>"}}, ("33", '"<x>" (str)', "object")),
        ({"added_tokens_decoder": {"33": {}}}, ("33", "'content'", "no such field", "text")),
        ({"added_tokens_decoder": {"33": X | {"lstrip": 1}}}, ("33", "'lstrip'", "1 (int)", "true or false")),
        ({"added_tokens_decoder": {"33": X | {"content": ""}}}, ("33", "'content'", '"" (str)')),
        ({"additional_special_tokens": "<x>"}, ("'additional_special_tokens'", '"<x>" (str)', "list")),
        ({"extra_special_tokens": [1]}, ("'extra_special_tokens'", "1 (int)")),
        ({"cls_token": "<s>"}, ("vocab.txt", "'<s>'", "33 tokens")),
        ({"unk_token": "<unk>"}, ("vocab.txt", '"<unk>"', "34 tokens")),
        ({"cls_token": ["x"]}, ("'cls_token'", '["x"] (list)')),
        ({"split_special_tokens": "no"}, ("'split_special_tokens'", '"no" (str)', "true or false")),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, ("'tokenizer_class'", '"BertJapaneseTokenizer"', "BertTokenizer")),
        ({"tokenizer_class": "GPT2TokenizerFast"}, ("'tokenizer_class'", '"GPT2TokenizerFast"', "BertTokenizer")),
        ({"tokenizer_class": "XLMRobertaTokenizerFast"}, ("'tokenizer_class'", "XLMRobertaTokenizer", "tokenizer.json")),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, ("'tokenizer_class'", "PreTrainedTokenizer", "tokenizer.json")),
    ],
)
def test_a_wrong_setting_is_named(folder: Path, settings: dict[str, Any], parts: tuple[str, ...]) -> None:
    lay_out(folder, **settings)
    refused(folder, *parts)


# --- tokenizer.json -----------------------------------------------------------------------------------------------------------


def test_where_the_files_contradict_each_other_the_settings_hold_and_a_warning_says_so(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    values = as_json(tmp_path)
    values["normalizer"]["lowercase"] = False
    values["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    values["post_processor"] = None
    write_json(tmp_path / "tokenizer.json", values)
    with pytest.warns(MinisbertWarning) as caught:
        encoder = minisbert.load(tmp_path)
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2
    assert naming("tokenizer.json", "normalizer").search(said[0])
    assert naming("tokenizer.json", "pre_tokenizer").search(said[1])
    assert (
        encoder.tokenizer(TEXTS).ids == AutoTokenizer.from_pretrained(tmp_path)(TEXTS, truncation=True, max_length=32)["input_ids"]
    )


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_some_classes_take_tokenizer_json_as_it_is(folder: Path, name: str) -> None:
    values = as_json(folder)
    values["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}, values["normalizer"] | {"lowercase": False}]}
    values["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"}]}
    values["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    write_json(folder / "tokenizer.json", values)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": name, "model_max_length": 512})
    assert check(folder).load_warnings == ()
    assert 1 in ours(folder)(["The"]).ids[0]


@pytest.mark.parametrize("name", ["BertTokenizerFast", "BertTokenizer", "DistilBertTokenizer", "ElectraTokenizerFast"])
def test_the_other_names_of_the_same_class_are_known(folder: Path, name: str) -> None:
    lay_out(folder, tokenizer_class=name)
    check(folder)
    write_json(folder / "tokenizer_config.json", {})
    write_json(folder / "config.json", json.loads((folder / "config.json").read_text()) | {"tokenizer_class": name})
    check(folder)


def test_baked_in_truncation_and_padding_are_overridden_and_the_side_is_kept(folder: Path) -> None:
    values = as_json(folder)
    values["truncation"] = {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 2}
    padding = {"strategy": {"Fixed": 20}, "direction": "Left", "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    values["padding"] = padding | {"pad_to_multiple_of": 8}
    write_json(folder / "tokenizer.json", values)
    tokenizer = check(folder)
    assert tokenizer.truncation_side == "left"
    assert [len(ids) for ids in tokenizer(["a", "a man is a man", "a " * 40]).ids] == [3, 7, 32]
    write_json(folder / "tokenizer_config.json", {"truncation_side": "right"})
    assert check(folder).truncation_side == "right"


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("limit", [3, 4, 17, 32])
def test_the_limit_counts_the_special_tokens(folder: Path, side: str, limit: int) -> None:
    lay_out(folder, truncation_side=side)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": limit})
    texts = ["a " * n for n in (0, 1, limit - 3, limit - 2, limit - 1, limit, 100)] + TEXTS
    tokenizer = check(folder, texts, limit)
    assert [len(ids) for ids in tokenizer(texts[:7]).ids] == [
        min(n + 2, limit) for n in (0, 1, limit - 3, limit - 2, limit - 1, limit, 100)
    ]
    assert set(tokenizer(texts[:7]).cut) == {4, 5, 6}


@pytest.mark.parametrize(
    ("field", "value", "parts"),
    [
        ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": []}, ("BPE", "WordPiece")),
        ("model", {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}, ("WordLevel", "WordPiece")),
        ("model", {"type": "Unigram", "vocab": [["a", 0.5]], "unk_id": 0}, ("Unigram", "WordPiece")),
        ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.5}, ("dropout", 0.5)),
        ("model", None, ()),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}, ("Replace", "(a+)+$")),
        (
            "normalizer",
            {"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 101},
            ("Replace", 101, 100),
        ),
        ("normalizer", {"type": "Replace", "pattern": {"String": ""}, "content": "b"}, ("Replace", '{"String": ""}')),
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": CHARSMAP}, (101,)),
        (
            "normalizer",
            {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "x"}]},
            ('"Prepend"',),
        ),
        (
            "pre_tokenizer",
            {"type": "Split", "pattern": {"Regex": "(a|a)*b"}, "behavior": "Isolated", "invert": False},
            ("'pre_tokenizer'", '"Split"', "BertPreTokenizer"),
        ),
        ("post_processor", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}, ('"ByteLevel"',)),
    ],
)
def test_a_step_that_no_family_has_is_refused(folder: Path, field: str, value: Any, parts: tuple[object, ...]) -> None:
    as_json(folder, **{field: value})
    refused(folder, "tokenizer.json", *parts)


@pytest.mark.parametrize("settings", [{}, {"added_tokens_decoder": {"33": X}}])
def test_a_model_with_other_settings_gets_those_of_bert_and_that_is_said(folder: Path, settings: dict[str, Any]) -> None:
    lay_out(folder, **settings)
    values = as_json(folder)
    added = [{"id": 33, **X}] if settings else values["added_tokens"]
    model = values["model"] | {"max_input_chars_per_word": 3, "continuing_subword_prefix": "@@"}
    write_json(folder / "tokenizer.json", values | {"model": model, "added_tokens": added})
    tokenizer = check(folder, ["a man is eating [MASK] <x> food ."])
    assert tokenizer.load_warnings == (
        "tokenizer.json: its model has other settings than BertTokenizer's, which are taken, as in transformers",
    )


def test_a_tokenizer_json_that_is_too_large_is_refused_before_it_is_read(folder: Path) -> None:
    as_json(folder)
    os.truncate(folder / "tokenizer.json", LARGEST_JSON + 1)
    refused(folder, "tokenizer.json", "67,108,865 bytes", "67,108,864")


def test_lower_casing_that_the_checkpoint_asks_for_needs_no_other_step_before_it(folder: Path) -> None:
    as_json(folder, normalizer=None)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "TokenizersBackend"})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": True})
    tokenizer = ours(folder)
    assert tokenizer(["The CAT"]).ids == tokenizer(["the cat"]).ids != tokenizer(["[UNK] [UNK]"]).ids


@pytest.mark.parametrize(
    "single",
    [
        [("[CLS]", 0), ("A", 0), ("A", 0), ("[SEP]", 0), ("[CLS]", 1)],
        [("[CLS]", 0), ("A", 1), ("[SEP]", 0)],
        [("[CLS]", 1), ("A", 0), ("[SEP]", 0)],
    ],
)
def test_a_template_that_does_more_than_to_frame_a_text_is_refused(folder: Path, single: list[tuple[str, int]]) -> None:
    parts = [{"Sequence": {"id": k, "type_id": t}} if k == "A" else {"SpecialToken": {"id": k, "type_id": t}} for k, t in single]
    tokens = {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in (("[CLS]", 2), ("[SEP]", 3))}
    as_json(folder, post_processor={"type": "TemplateProcessing", "single": parts, "pair": [], "special_tokens": tokens})
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "TokenizersBackend"})
    refused(folder, "tokenizer.json", "special tokens")


def test_a_limit_too_small_for_a_token_is_refused(folder: Path) -> None:
    tokenizer = ours(folder)
    tokenizer.max_length = 3
    assert len(tokenizer(["a man is"]).ids[0]) == 3
    with pytest.raises(ValueError, match=naming("max_length", 2, 3)):
        tokenizer.max_length = 2
    for wrong in ("3", True, 3.0):
        with pytest.raises(TypeError, match=naming("max_length", type(wrong).__name__, "int")):
            tokenizer.max_length = wrong
    assert tokenizer.max_length == 3


def test_without_a_tokenizer_both_files_are_named(folder: Path) -> None:
    (folder / "vocab.txt").unlink()
    refused(folder, "tokenizer.json", "vocab.txt", "one of them")
    (folder / "sentencepiece.bpe.model").touch()
    refused(folder, "tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "AutoTokenizer")
    (folder / "vocab.json").touch()
    (folder / "merges.txt").touch()
    refused(folder, "tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "vocab.json", "merges.txt")


def test_endless_added_tokens_are_refused(folder: Path) -> None:
    write_json(folder / "added_tokens.json", {f"<{n}>": n for n in range(MOST_ADDED_TOKENS + 1)})
    refused(folder, "added_tokens.json", "65,537", "65,536")


# --- vocab.txt ----------------------------------------------------------------------------------------------------------------


def test_a_vocabulary_may_be_smaller_than_the_embedding_and_not_larger(folder: Path) -> None:
    lay_out(folder, rows=len(TINY_VOCAB) + 500)
    check(folder)
    lay_out(folder, rows=len(TINY_VOCAB) - 1)
    refused(folder, "vocab.txt", 32, 31, "config.json", "vocab_size 32")
    lay_out(folder, rows=len(TINY_VOCAB), added_tokens_decoder={"33": X})
    refused(folder, "vocab.txt", 33, 32, "config.json", "vocab_size 33")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ("'[CLS]'", 0)),
        (b"\n", ("'[CLS]'", 1)),
        (b"[PAD]\n[UNK]\n[CLS]\na\n", ("'[SEP]'", 4)),
        ("\n".join(TINY_VOCAB).encode("utf-16"), ("UTF-8", "0xff")),
        (b"\xff\xfe", ("UTF-8", "0xff")),
    ],
)
def test_a_broken_vocabulary_is_named(folder: Path, content: bytes, parts: tuple[object, ...]) -> None:
    lay_out(folder, rows=4)
    (folder / "vocab.txt").write_bytes(content)
    refused(folder, "vocab.txt", *parts)


def test_windows_line_ends_and_a_missing_last_one_change_nothing(folder: Path) -> None:
    expected = check(folder)(TEXTS).ids
    (folder / "vocab.txt").write_bytes("\r\n".join(TINY_VOCAB).encode())
    assert check(folder)(TEXTS).ids == expected


# --- real vocabularies --------------------------------------------------------------------------------------------------------


def many_texts(number: int) -> list[str]:
    """Random texts over all of Unicode, by script: letters that have cases, accents, ideographs, signs, spaces, controls."""
    source = random.Random(7)
    ranges = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0x980), (0x1E00, 0x2000)]
    ranges += [(0x2000, 0x2070), (0x3000, 0x3130), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0xF900, 0xFB00), (0xFE00, 0x10000)]
    ranges += [(0x1F300, 0x1FA00), (0x20000, 0x20100), (0, 0x20), (0x7F, 0xA0)]
    texts = []
    for _ in range(number):
        low, high = source.choice(ranges)
        texts.append("".join(" " if source.random() < 0.2 else chr(source.randrange(low, high)) for _ in range(30)))
    return [text for text in texts if not any(unicodedata.category(letter) == "Cs" for letter in text)]


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("chinese", [True, False])
def test_the_real_vocabulary_without_its_tokenizer_json(
    minilm_folder: Path, folder: Path, sts_sentences: list[str], lower: bool, chinese: bool
) -> None:
    shutil.copy(minilm_folder / "vocab.txt", folder)
    write_json(folder / "config.json", json.loads((folder / "config.json").read_text()) | {"vocab_size": 30522})
    settings = {"do_lower_case": lower, "tokenize_chinese_chars": chinese}
    write_json(folder / "tokenizer_config.json", settings)
    check(folder, many_texts(400) + sts_sentences[::10])


def test_a_vocabulary_of_many_scripts_cased(folder: Path) -> None:
    """Every letter of many scripts, by itself and inside words, as multilingual BERT and LaBSE have it."""
    letters = sorted({letter for text in many_texts(600) for letter in text if letter.isalpha()})
    vocab = [*TINY_VOCAB[:5], *letters, *(f"##{letter}" for letter in letters)]
    lay_out(folder, vocab, do_lower_case=False, strip_accents=False)
    tokenizer = check(folder, many_texts(300))
    assert len({number for ids in tokenizer(many_texts(300)).ids for number in ids}) > 500
