"""What the parts do, beside those of transformers and sentence-transformers: word pieces, their places, frames, pooling.

The behaviours are those that the references' own test suites ask for, as far as they apply and no other file here has them.
"""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any
from unicodedata import ucd_3_2_0

import pytest
import torch
from checkpoints import TINY_VOCAB, finder, write_json
from layouts import MODES, written
from messages import naming
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor
from transformers import AutoTokenizer
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

import minisbert
from minisbert import mean_pooling
from minisbert.checkpoint.config import read_checkpoint
from minisbert.checkpoint.tokenizer_files import read_tokenizer
from minisbert.inference.engine import count_prompt_tokens
from minisbert.pooling import pool
from minisbert.tokenizer import TextTokenizer
from parity.compare import close
from parity.test_minilm import UNICODE

# Word pieces. transformers' tokenizer wraps the same library in Rust as ours; the one in Python before it is a second opinion.


PLACED = [*UNICODE, "A, naïve [MASK] AllenNLP sentence.", "a\n'll !!to?'d of, can't."]


def with_settings(minilm_folder: Path, folder: Path, **settings: Any) -> TextTokenizer:
    """The tokenizer of the real vocabulary with these settings."""
    shutil.copytree(minilm_folder, folder, ignore=shutil.ignore_patterns("tokenizer*", "*.safetensors"))
    write_json(folder / "tokenizer_config.json", settings)
    return read_tokenizer(finder(folder), read_checkpoint(finder(folder)))


@pytest.mark.parametrize(
    "settings",
    [{}, {"do_lower_case": False}, {"do_lower_case": False, "strip_accents": True}, {"tokenize_chinese_chars": False}],
    ids=str,
)
def test_every_character_is_treated_as_by_the_tokenizer_in_python(
    minilm_folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Within a word and by itself: white space, controls, punctuation, accents, Chinese characters, and the others.

    Characters are left out that are newer than Unicode 3.2 or were of another kind in it, since the two have other tables. Of the
    letters without case, most of them Chinese and Korean, every seventh will do.
    """
    tokenizer = with_settings(minilm_folder, tmp_path / "model", **settings)
    theirs = BertTokenizerLegacy(str(minilm_folder / "vocab.txt"), **settings)
    kinds = {chr(code): unicodedata.category(chr(code)) for code in range(1, 0x10000)}
    old = [c for c, kind in kinds.items() if kind not in ("Cs", "Cn", "Co") and ucd_3_2_0.category(c) == kind]
    characters = [c for c in old if kinds[c] != "Lo"] + [c for c in old if kinds[c] == "Lo"][::7]
    assert len(characters) > 10_000
    # Where accents stay it composes characters first, which the library in Rust does not.
    texts = [unicodedata.normalize("NFC", f"a{c}b {c}") for c in characters]
    expected = [theirs.convert_tokens_to_ids(["[CLS]", *theirs.tokenize(text), "[SEP]"]) for text in texts]
    different = [c for c, ids, others in zip(characters, tokenizer(texts).ids, expected, strict=True) if ids != others]
    assert different == []


@pytest.mark.parametrize("text", PLACED, ids=range(len(PLACED)))
def test_tokens_have_the_places_in_the_text_that_auto_tokenizer_gives_them(minilm_folder: Path, text: str) -> None:
    expected = AutoTokenizer.from_pretrained(minilm_folder)(text, return_offsets_mapping=True)
    trace = minisbert.trace(text, model="all-MiniLM-L6-v2").a
    assert trace.ids.tolist() == expected["input_ids"]
    offsets = [tuple(place) for place in trace.offsets.tolist()]
    assert offsets[1:-1] == expected["offset_mapping"][1:-1]
    assert all(start == stop for start, stop in (offsets[0], offsets[-1])), "[CLS] and [SEP] have no width in either"


# What the tokenizer puts around a text, which counts when a prompt is left out of the pooling

FRAMES = {"[CLS] … [SEP]": ("[CLS]", "A", "[SEP]"), "[CLS] …": ("[CLS]", "A"), "… [SEP]": ("A", "[SEP]"), "nothing": ("A",)}


def framed(folder: Path, *frame: str) -> Path:
    """A checkpoint that leaves prompts out of its pooling, and whose tokenizer puts this around a text."""
    written(folder, MODES, include_prompt=False)
    special = [token for token in frame if token != "A"]

    def part(name: str) -> dict[str, Any]:
        return {("SpecialToken" if name in special else "Sequence"): {"id": name, "type_id": 0}}

    settings = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [part(name) for name in frame],
        "pair": [part("A"), part("B")],
        "special_tokens": {token: {"id": token, "ids": [TINY_VOCAB.index(token)], "tokens": [token]} for token in special},
    }
    write_json(folder / "tokenizer.json", settings)
    names = {"[CLS]": "cls_token", "[SEP]": "sep_token"}
    roles = {names[token]: token for token in special} | {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 40} | roles)
    return folder


@pytest.mark.parametrize("prompt", ["", "the dog ", "red, blue! green "])
@pytest.mark.parametrize("frame", FRAMES)
def test_a_prompt_is_left_out_whatever_the_tokenizer_puts_around_a_text(tmp_path: Path, frame: str, prompt: str) -> None:
    folder = framed(tmp_path / "one", *FRAMES[frame])
    encoder = minisbert.load(folder, dtype=torch.float64, device="cpu")
    reference = SentenceTransformer(str(folder), device="cpu").double()
    texts = ["the cat sat", "a man is eating food", "run"]
    close(frame, encoder.encode(texts, prompt=prompt), reference.encode(texts, prompt=prompt, convert_to_tensor=True), 1e-12)
    expected = len(encoder.tokenizer([prompt]).ids[0]) - ("[SEP]" in FRAMES[frame]) if prompt else 0
    assert count_prompt_tokens(encoder.tokenizer, encoder.pooling, prompt) == expected


def test_a_text_without_any_token_is_named_where_sentence_transformers_pools_the_padding_or_fails(tmp_path: Path) -> None:
    folder = framed(tmp_path / "one", *FRAMES["nothing"])
    encoder = minisbert.load(folder, device="cpu")
    with pytest.raises(ValueError, match=naming("sentences[1]", "' '", "no tokens", "one")):
        encoder.encode(["a man", " ", "a cat", " "])
    with pytest.raises(ValueError, match=naming("sentences[2]", "''", "no tokens", "one")):
        list(encoder.encode_stream(["a man", "a cat", ""], window=1))
    assert encoder.encode("", prompt="the dog").shape == (len(MODES) * 32,)
    reference = SentenceTransformer(str(folder), device="cpu")
    assert len(reference.encode(["a man", ""])) == 2
    with pytest.raises(RuntimeError):
        reference.encode("")


# Pooling of padded tokens

MASKS = {
    "nothing is padded": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]],
    "right": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
    "left": [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]],
    "both": [[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 1, 1, 1, 0]],
    "a token each": [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]],
}


def by_both(mode: str, mask: Tensor, prompt_tokens: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The vectors and the gradients, ours and those of sentence-transformers."""
    ours = torch.randn(*mask.shape, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    vectors = pool(ours, mask.double(), (mode,), prompt_tokens)
    module = Pooling(4, mode, include_prompt=not prompt_tokens)
    expected = module({"token_embeddings": theirs, "attention_mask": mask, "prompt_length": prompt_tokens})["sentence_embedding"]
    for pooled in vectors, expected:
        pooled.square().sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    return vectors, expected, ours.grad, theirs.grad


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("mode", MODES)
def test_padded_tokens_are_pooled_and_trained_through_as_in_sentence_transformers(mode: str, masks: str) -> None:
    mask = torch.tensor(MASKS[masks])
    vectors, expected, gradient, theirs = by_both(mode, mask)
    close("vectors", vectors, expected, 1e-12)
    close("gradient", gradient, theirs, 1e-12)
    tokens = torch.randn(*mask.shape, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close("mean_pooling", mean_pooling(tokens, mask, mode), expected, 1e-12)


@pytest.mark.parametrize("prompt_tokens", [1, 2])
@pytest.mark.parametrize("masks", ["nothing is padded", "right", "left"])
@pytest.mark.parametrize("mode", MODES)
def test_a_prompt_is_left_out_of_padded_tokens_as_in_sentence_transformers(mode: str, masks: str, prompt_tokens: int) -> None:
    vectors, expected, gradient, theirs = by_both(mode, torch.tensor(MASKS[masks]), prompt_tokens)
    close("vectors", vectors, expected, 1e-12)
    close("gradient", gradient, theirs, 1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_a_row_without_tokens_is_zero_in_every_mode_where_sentence_transformers_gives_some_a_padding_or_infinity(mode: str) -> None:
    mask = torch.tensor([[1, 1, 1], [0, 0, 0]])
    tokens = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    vectors = pool(tokens, mask.float(), (mode,))
    expected = Pooling(4, mode)({"token_embeddings": tokens, "attention_mask": mask})["sentence_embedding"]
    close("with tokens", vectors[0], expected[0], 1e-6)
    assert not vectors[1].any()
    assert expected[1].any() == (mode in ("cls", "max"))
