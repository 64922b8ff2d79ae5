"""`SentenceEncoder`: texts in, one vector each out. It joins the parts, and is the only one that knows them all."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from minisbert.batching import plan
from minisbert.bert import Bert, Run
from minisbert.config import CheckpointConfig, read_checkpoint
from minisbert.engine import compute
from minisbert.errors import MinisbertWarning
from minisbert.hub import locate
from minisbert.pooling import Pooling
from minisbert.weights import load_weights, open_weights
from minisbert.wordpiece import Tokenized, WordPiece, read_tokenizer

if TYPE_CHECKING:
    from huggingface_hub.utils.tqdm import tqdm

BATCH_TOKENS = 1500
"""Tokens in one batch: enough that the matrix products run at full speed, few enough that the activations stay in the cache."""

OnTruncate = Literal["warn", "error", "ignore"]


class SentenceEncoder:
    """A tokenizer, a BERT and a pooling, from one checkpoint. Made by `minisbert.load`.

    Attributes:
        model: the name or folder it came from.
        origin: the kind of place it was found in, in words.
        config: everything the checkpoint's json files say.
        tokenizer: text → ids.
        bert: ids → token vectors.
        pooling: token vectors → a sentence vector.
    """

    def __init__(
        self,
        bert: Bert,
        tokenizer: WordPiece,
        pooling: Pooling,
        config: CheckpointConfig,
        model: str = "",
        origin: str = "",
    ) -> None:
        self.bert = bert
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.config = config
        self.model = model
        self.origin = origin

    @property
    def dimension(self) -> int:
        """Numbers in a sentence vector."""
        return self.pooling.dimension

    @property
    def max_seq_length(self) -> int:
        """The limit in tokens, special tokens included; what is beyond is cut off, and reported. Can be set."""
        return self.tokenizer.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        least = len(self.tokenizer.prefix) + len(self.tokenizer.suffix) + 1
        most = self.bert.config.max_position_embeddings
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"max_seq_length: found {type(value).__name__}, expected an int.")
        if not least <= value <= most:
            raise ValueError(
                f"max_seq_length: found {value}, expected {least} (the special tokens and one more) to {most} (the positions that "
                "this model has)."
            )
        self.tokenizer.max_length = value

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.bert.embeddings.word.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision the model computes in, and of the vectors it gives."""
        return self.bert.embeddings.word.weight.dtype

    def __repr__(self) -> str:
        config = self.bert.config
        return (
            f"SentenceEncoder({self.model!r}: {config.num_hidden_layers} layers, hidden {config.hidden_size}, "
            f"{'+'.join(self.pooling.modes)} pooling, {self.max_seq_length} tokens, {self.dtype}, {self.device})"
        )

    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = False,
        on_truncate: OnTruncate = "warn",
    ) -> Tensor:
        """The vector of each sentence.

        Sentences are sorted by length and computed in batches without padding; the rows come back in the order of the input.
        Equal texts are computed once.

        Args:
            sentences: a text, or a sequence of texts.
            batch_size: the most sentences in one batch. Default: no limit but that of the tokens.
            batch_tokens: the most tokens in one batch (a longer sentence makes a batch of its own). Default: 1500.
            show_progress_bar: on stderr. Default: on a terminal, when there is more than one batch.
            normalize_embeddings: scale each vector to length 1. A checkpoint that does so itself does so in any case.
            on_truncate: what to do when texts are longer than `max_seq_length`: "warn" once with how many, the longest and the
                first of them; raise an "error", a ValueError that says the same; or "ignore" it.

        Returns:
            [dim] for a text, [sentences, dim] for a sequence, on the CPU, in the encoder's dtype (float32 as a rule).

        Raises:
            TypeError: if a sentence is not a text, or an option of the wrong type.
            ValueError: if an option is out of its range, a text holds half a surrogate pair, or a text is too long and
                `on_truncate` is "error".

        Source: Reimers & Gurevych 2019, "Sentence-BERT", section 3.

        >>> import minisbert
        >>> encoder = minisbert.load("all-MiniLM-L6-v2")
        >>> encoder.encode(["A man is eating food.", "Someone is having a meal."]).shape
        torch.Size([2, 384])
        """
        texts = _texts(sentences)
        batch_tokens = BATCH_TOKENS if batch_tokens is None else _count("batch_tokens", batch_tokens)
        batch_size = None if batch_size is None else _count("batch_size", batch_size)
        show_progress_bar = None if show_progress_bar is None else _flag("show_progress_bar", show_progress_bar)
        normalize = _flag("normalize_embeddings", normalize_embeddings) or self.config.normalize
        if not isinstance(on_truncate, str):
            raise TypeError(f"on_truncate: found {type(on_truncate).__name__}, expected 'warn', 'error' or 'ignore'.")
        if on_truncate not in ("warn", "error", "ignore"):
            raise ValueError(f"on_truncate: found {on_truncate!r}, expected 'warn', 'error' or 'ignore'.")

        unique = list(dict.fromkeys(texts))
        tokenized = self.tokenizer(unique)
        self._report_cut(texts, unique, tokenized, on_truncate)

        def forward(packed: Tensor, runs: Sequence[Run]) -> Tensor:
            vectors = self.pooling(self.bert.forward_packed(packed, runs), runs)  # [sentences, dim]
            return F.normalize(vectors, dim=1) if normalize else vectors

        batches = plan([len(ids) for ids in tokenized.ids], batch_tokens, batch_size)
        rows = torch.empty(len(unique), self.dimension, dtype=self.dtype)  # [sentences, dim]
        if show_progress_bar is None:
            show_progress_bar = len(batches) > 1 and sys.stderr is not None and sys.stderr.isatty()
        with _progress_bar(len(unique)) if show_progress_bar else nullcontext() as bar:
            for batch in compute(forward, tokenized.ids, batches, rows, self.device):
                if bar is not None:
                    bar.update(len(batch.order))
        computed = rows
        if len(unique) < len(texts):
            row = {text: index for index, text in enumerate(unique)}
            computed = computed[[row[text] for text in texts]]
        return computed[0] if isinstance(sentences, str) else computed

    def _report_cut(self, texts: list[str], unique: list[str], tokenized: Tokenized, on_truncate: OnTruncate) -> None:
        if on_truncate == "ignore" or not tokenized.cut:
            return
        lengths = {unique[index]: tokenized.full_lengths[index] for index in tokenized.cut}
        cut = [index for index, text in enumerate(texts) if text in lengths]
        message = (
            f"{len(cut)} of {len(texts)} texts are longer than {self.max_seq_length} tokens and were cut: the longest has "
            f"{max(lengths.values())} tokens, the first is number {cut[0] + 1} (index {cut[0]}) with {lengths[texts[cut[0]]]}. "
            "Split long texts, or pass on_truncate='ignore' if this is meant."
        )
        if on_truncate == "error":
            raise ValueError(message.replace(" and were cut", ""))
        warnings.warn(message, MinisbertWarning, stacklevel=3)


def _texts(sentences: object) -> list[str]:
    """The caller's sentences as a list, every one of them a text."""
    single = isinstance(sentences, str)
    if not isinstance(sentences, Sequence) or isinstance(sentences, (bytes, bytearray, memoryview)):
        raise TypeError(f"sentences: found {type(sentences).__name__}, expected a str or a sequence of str such as a list.")
    texts: list[str] = []
    for index, text in enumerate([sentences] if single else sentences):
        name = "sentences" if single else f"sentences[{index}]"
        if not isinstance(text, str):
            raise TypeError(f"{name}: found {type(text).__name__}, expected str.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{name}: found {text[error.start]!r} at character {error.start}, half a surrogate pair, expected Unicode text. "
                "It comes from bytes that were not UTF-8, or from a pair that was split; decode the text anew."
            ) from error
        texts.append(text)
    return texts


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: found {type(value).__name__}, expected True or False.")
    return value


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: found {type(value).__name__}, expected an int or None.")
    if value < 1:
        raise ValueError(f"{name}: found {value}, expected at least 1.")
    return value


def _progress_bar(sentences: int) -> tqdm:
    from huggingface_hub.utils.tqdm import tqdm  # the bar that huggingface_hub brings along; imported only when shown

    return tqdm(total=sentences, unit="sentence", desc="encode")


def _device(device: str | torch.device | None) -> torch.device:
    """The device asked for, tried out, so that a wrong one is known before anything is loaded."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device: found {type(device).__name__}, expected a str such as 'cpu' or 'cuda', or a torch.device.")
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each kind of device has its own
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"device: {str(device)!r} cannot be used here ({reason}). Take another, such as 'cpu'.") from error


def load_encoder(
    model: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> SentenceEncoder:
    """See `minisbert.load`, which is this with a default for `model`."""
    dtype = torch.float32 if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype: found {dtype!r}, expected a floating-point torch.dtype such as torch.float32.")
    device = _device(device)
    source = locate(model, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
    config = read_checkpoint(source.find)
    tokenizer = read_tokenizer(source.find, config)
    with torch.device("meta"):  # the shapes without the memory: nothing is filled with random numbers to be thrown away
        bert = Bert(config.bert)
    load_weights(bert, open_weights(source.find, config.folder), dtype)
    for remark in config.remarks:
        warnings.warn(f"{source.model}: {remark}", MinisbertWarning, stacklevel=3)
    return SentenceEncoder(bert.to(device).eval(), tokenizer, Pooling(config.pooling), config, source.model, source.origin)
