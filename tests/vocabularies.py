"""Small tokenizers of every kind, trained on the spot, in the files that published checkpoints have."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import sentencepiece
from checkpoints import TINY_VOCAB
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CamembertTokenizer, MPNetTokenizer, PreTrainedTokenizerBase, RobertaTokenizer, XLMRobertaTokenizer
from transformers.convert_slow_tokenizer import CamembertConverter, XLMRobertaConverter

SCRIPTS = (
    *(
        "你好，世界。今天天气很好。",
        "我喜欢猫和狗。",
        "مرحبا بالعالم",
        "สวัสดีชาวโลก วันนี้อากาศดี",
        "Привет, мир!",
        "こんにちは世界",
        "안녕하세요 세계",
    ),
    *(
        "été naïve café Ångström",
        "🙂👍🏽 👩‍👩‍👧",
        "नमस्ते दुनिया",
        "γεια σου κόσμε",
        "ﬁne ﬂow ①②③ ＡＢＣ１２３",
        "x² ½ ㎏ ﷺ",
        "Ünïcödé e\u0301",
    ),
)


@cache
def sentences() -> tuple[str, ...]:
    """A few hundred made-up ones, in many scripts."""
    words = [word.removeprefix("##") for word in TINY_VOCAB[5:]]
    generator = random.Random(0)
    return tuple(" ".join(generator.choices(words, k=8)) for _ in range(300)) + SCRIPTS * 4


@cache
def sentencepiece_model(texts: Sequence[str] | None = None, size: int = 300) -> bytes:
    """A Unigram model as XLM-R's was made, `sentencepiece.bpe.model`, with the characters mapped by nmt_nfkc."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts or sentences()),
        model_writer=model,
        vocab_size=size,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        character_coverage=0.9995,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def of_today(kind: type[PreTrainedTokenizerBase], model: bytes, **settings: Any) -> PreTrainedTokenizerBase:
    """What transformers makes of a sentencepiece model today."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "sentencepiece.bpe.model").write_bytes(model)
        return kind.from_pretrained(folder, **settings)


def of_old(kind: type[XLMRobertaConverter | CamembertConverter], model: bytes) -> Tokenizer:
    """The tokenizer.json that transformers 4 made of a sentencepiece model, as most published repositories have it."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "sentencepiece.bpe.model"
        file.write_bytes(model)
        slow = SimpleNamespace(vocab_file=str(file), add_prefix_space=True, convert_tokens_to_ids=None)
        pieces = [piece for piece, _ in kind(slow).vocab(kind(slow).proto)]
        slow.convert_tokens_to_ids = pieces.index
        converted = kind(slow).converted()
    converted.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return converted


@cache
def byte_level_bpe(texts: Sequence[str] | None = None, size: int = 400) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges as RoBERTa's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts or sentences(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"] | {"<mask>": len(model["vocab"])}, [tuple(merge) for merge in model["merges"]]


def _bert(folder: Path) -> int:
    (folder / "vocab.txt").write_text("\n".join(TINY_VOCAB) + "\n", encoding="utf-8")
    settings = {"do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return len(TINY_VOCAB)


def _saved(tokenizer: PreTrainedTokenizerBase, folder: Path) -> int:
    tokenizer.model_max_length = 40  # what the tiny models have positions for, as 512 in published ones
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def mpnet_vocabulary() -> dict[str, int]:
    """BERT's after four tokens of its own, as MPNet's is."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *TINY_VOCAB, "<mask>"]
    return {token: number for number, token in enumerate(tokens)}


VOCABULARIES: dict[str, Callable[[Path], int]] = {
    "bert": _bert,
    "mpnet": lambda folder: _saved(MPNetTokenizer(mpnet_vocabulary()), folder),
    "roberta": lambda folder: _saved(RobertaTokenizer(*byte_level_bpe()), folder),
    "xlm-roberta": lambda folder: _saved(of_today(XLMRobertaTokenizer, sentencepiece_model()), folder),
    "camembert": lambda folder: _saved(of_today(CamembertTokenizer, sentencepiece_model()), folder),
}
"""Each writes the files of such a tokenizer into a folder, and returns how many ids it has. bert has a vocab.txt alone."""
