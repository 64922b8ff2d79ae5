"""`SentenceEncoder`: texts in, one vector each out. It joins the parts, and is the only one that knows them all."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minisbert.batching import plan, spare_tokens
from minisbert.bert import Bert, Run
from minisbert.config import EVERY_MODELS_PROMPTS, CheckpointConfig, NormalizeConfig, inside, read_checkpoint
from minisbert.engine import compute
from minisbert.errors import MinisbertWarning
from minisbert.hub import locate
from minisbert.info import Info, describe
from minisbert.pooling import Pooling, build_heads
from minisbert.weights import load_head, load_weights, open_weights
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
        heads: what the checkpoint has after that: dense layers, layer norms, normalization; often nothing.
        prompts: texts to put before a sentence, by name. Can be changed.
        default_prompt_name: the prompt that `encode` takes when it is given none; None: no prompt.
        files: the checkpoint's files that were read, by their names inside it, and where they lie.
        remarks: what was said in warnings when it was loaded.
    """

    def __init__(
        self,
        bert: Bert,
        tokenizer: WordPiece,
        pooling: Pooling,
        config: CheckpointConfig,
        model: str = "",
        origin: str = "",
        heads: nn.Sequential | None = None,
        files: Mapping[str, Path] | None = None,
        remarks: Sequence[str] = (),
    ) -> None:
        self.bert = bert
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.config = config
        self.heads = build_heads(config.heads) if heads is None else heads
        self.model = model
        self.origin = origin
        self.files = dict(files or {})
        self.remarks = tuple(remarks)
        self.prompts: dict[str, str] = EVERY_MODELS_PROMPTS | dict(config.usage.prompts)
        self.default_prompt_name = config.usage.default_prompt_name
        self._truncate_dim = config.usage.truncate_dim

    @property
    def dimension(self) -> int:
        """Numbers in a sentence vector."""
        return min(self.config.dimension, self._truncate_dim or self.config.dimension)

    @property
    def truncate_dim(self) -> int | None:
        """How many numbers of each vector are kept, the first ones; None: all. Can be set.

        It is of use with models that were trained for it (Kusupati et al. 2022, "Matryoshka Representation Learning").
        """
        return self._truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, value: int | None) -> None:
        self._truncate_dim = self._kept(value)

    def _kept(self, value: object) -> int | None:
        if value is None:
            return None
        keep, most = _count("truncate_dim", value), self.config.dimension
        if keep > most:
            raise ValueError(f"truncate_dim: found {keep}, expected 1 to {most}, the numbers in a vector of this model.")
        return keep

    @property
    def similarity_fn_name(self) -> str:
        """How the checkpoint wants its vectors compared: "cosine" (also when it does not say), "dot", "euclidean", "manhattan"."""
        return self.config.usage.similarity_fn_name or "cosine"

    def info(self) -> Info:
        """Every setting in force and the file it came from, the files' sha256, every warning. Print it, or take its fields."""
        return describe(self)

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
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        on_truncate: OnTruncate = "warn",
    ) -> Tensor:
        """The vector of each sentence.

        Sentences are sorted by length and computed in batches without padding; the rows come back in the order of the input.
        Equal texts are computed once.

        Args:
            sentences: a text, or a sequence of texts.
            prompt_name: one of `prompts`, put before each text. Default: `default_prompt_name`.
            prompt: the text itself that is put before each text, "" for none.
            batch_size: the most sentences in one batch. Default: no limit but that of the tokens.
            batch_tokens: the most tokens in one batch (a longer sentence makes a batch of its own). Default: 1500.
            show_progress_bar: on stderr. Default: on a terminal, when there is more than one batch.
            normalize_embeddings: scale each vector to length 1. A checkpoint that does so itself does so in any case.
            truncate_dim: keep only the first numbers of each vector, before `normalize_embeddings`. Default: the encoder's own.
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
        normalize = _flag("normalize_embeddings", normalize_embeddings)
        before = self._prompt(prompt, prompt_name)
        keep = self._truncate_dim if truncate_dim is None else self._kept(truncate_dim)
        if not isinstance(on_truncate, str):
            raise TypeError(f"on_truncate: found {type(on_truncate).__name__}, expected 'warn', 'error' or 'ignore'.")
        if on_truncate not in ("warn", "error", "ignore"):
            raise ValueError(f"on_truncate: found {on_truncate!r}, expected 'warn', 'error' or 'ignore'.")

        unique = list(dict.fromkeys(texts))
        tokenized = self.tokenizer([before + text for text in unique] if before else unique)
        self._report_cut(texts, unique, tokenized, on_truncate)

        skip = self.prompt_tokens(before)

        def forward(packed: Tensor, runs: Sequence[Run]) -> Tensor:
            vectors = self.finish(self.pooling(self.bert.forward_packed(packed, runs), runs, skip), keep)  # [sentences, dim]
            return F.normalize(vectors, dim=1) if normalize else vectors

        batches = plan([len(ids) for ids in tokenized.ids], batch_tokens, batch_size)
        rows = torch.empty(len(unique), keep or self.config.dimension, dtype=self.dtype)  # [sentences, dim]
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

    def encode_query(
        self, sentences: str | Sequence[str], *, prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> Tensor:
        """`encode` with the prompt "query", unless another is given. A checkpoint that has none of that name takes none."""
        if prompt_name is None and prompt is None and "query" in self.prompts:
            prompt_name = "query"
        return self.encode(sentences, prompt_name=prompt_name, prompt=prompt, **options)

    def encode_document(
        self, sentences: str | Sequence[str], *, prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> Tensor:
        """`encode` with the first of the prompts "document", "passage" and "corpus" that there is, unless another is given.

        As in sentence-transformers, where a checkpoint without a "document" has an empty one. Its "passage" or "corpus" is then not
        taken, and a warning says so: delete `prompts["document"]` or pass `prompt_name="passage"` to have it.
        """
        if prompt_name is None and prompt is None:
            names = [name for name in ("document", "passage", "corpus") if name in self.prompts]
            prompt_name = names[0] if names else None
            passed_over = [name for name in names[1:] if self.prompts[name]]
            if prompt_name == "document" and "document" not in self.config.usage.prompts and passed_over:
                warnings.warn(
                    f"encode_document: {self.model} has a prompt {passed_over[0]!r} and none called 'document'. Nothing is put "
                    f"before the texts, as in sentence-transformers; pass prompt_name={passed_over[0]!r} to have it.",
                    MinisbertWarning,
                    stacklevel=2,
                )
        return self.encode(sentences, prompt_name=prompt_name, prompt=prompt, **options)

    def _prompt(self, prompt: str | None, prompt_name: str | None) -> str:
        """The text to put before each sentence."""
        for name, value in ("prompt", prompt), ("prompt_name", prompt_name):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name}: found {type(value).__name__}, expected a str or None.")
        if prompt is not None:
            if prompt_name is not None:
                warnings.warn(
                    f"prompt_name: {prompt_name!r} is not used, since a prompt is given as well. Give one of the two.",
                    MinisbertWarning,
                    stacklevel=3,
                )
            return prompt
        if prompt_name is None:
            prompt_name = self.default_prompt_name
        elif prompt_name not in self.prompts:
            known = ", ".join(map(repr, self.prompts))
            raise ValueError(f"prompt_name: found {prompt_name!r}, expected one of the prompts of this model: {known}.")
        return "" if prompt_name is None else self.prompts.get(prompt_name, "")

    def prompt_tokens(self, prompt: str) -> int:
        """How many tokens of each sentence the pooling leaves out because of the prompt before it: 0 for most checkpoints.

        Counted as sentence-transformers does: the tokens of the prompt alone, with what the tokenizer puts before a text ([CLS])
        but without what it puts after it ([SEP]).
        """
        if not prompt or self.pooling.include_prompt:
            return 0
        return len(self.tokenizer([prompt]).ids[0]) - bool(self.tokenizer.suffix)

    def finish(self, pooled: Tensor, keep: int | None = None) -> Tensor:
        """Pooled vectors through the heads, then the first `keep` numbers: [sentences, hidden × modes] → [sentences, dim]."""
        rows = len(pooled)
        if len(self.heads):
            # In a product of a few rows the bits of a row depend on their number; see `batching.ROWS`.
            pooled = self.heads(F.pad(pooled, (0, 0, 0, spare_tokens(rows))))[:rows]
        return pooled[:, :keep]

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
    truncate_dim: int | None = None,
) -> SentenceEncoder:
    """See `minisbert.load`, which is this with a default for `model`."""
    dtype = torch.float32 if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype: found {dtype!r}, expected a floating-point torch.dtype such as torch.float32.")
    device = _device(device)
    source = locate(model, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
    files: dict[str, Path] = {}

    def find(file: str) -> Path | None:
        path = source.find(file)
        if path is not None:
            files[file] = path
        return path

    config = read_checkpoint(find)
    tokenizer = read_tokenizer(find, config)
    with torch.device("meta"):  # the shapes without the memory: nothing is filled with random numbers to be thrown away
        bert = Bert(config.bert)
        heads = build_heads(config.heads)
    remarks = [*config.remarks, *load_weights(bert, open_weights(find, config.folder), dtype)]
    for head, settings in zip(heads, config.heads, strict=True):
        if not isinstance(settings, NormalizeConfig):
            remarks.extend(load_head(head, open_weights(find, settings.folder), dtype, inside(settings.folder, "config.json")))
    encoder = SentenceEncoder(
        bert.to(device).eval(),
        tokenizer,
        Pooling(config.pooling),
        config,
        source.model,
        source.origin,
        heads=heads.to(device).eval(),
        files=files,
        remarks=remarks,
    )
    if truncate_dim is not None:
        encoder.truncate_dim = truncate_dim
    for remark in remarks:
        warnings.warn(f"{source.model}: {remark}", MinisbertWarning, stacklevel=3)
    return encoder
