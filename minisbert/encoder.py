"""`SentenceEncoder`: texts → one vector each. It joins the tokenizer, BERT, the pooling and the modules after it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Generator, Iterable, Sized
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch
from torch import Tensor

from minisbert.checkpoint.config import EVERY_MODELS_PROMPTS, SIMILARITY_FUNCTIONS, SentenceTransformersConfig
from minisbert.checkpoint.info import Info, describe
from minisbert.checkpoint.load import Checkpoint, restore
from minisbert.checkpoint.weights import checksum
from minisbert.errors import MinisbertError, warn
from minisbert.inference import inputs
from minisbert.inference.engine import count_prompt_tokens, embed, tokenize
from minisbert.inference.stream import WINDOW, Progress, TruncationReport, VectorStream, windows
from minisbert.inference.threads import computes, in_default_state
from minisbert.inference.vectors import Vectors
from minisbert.pooling import vector_dtype_of
from minisbert.util import similarity, similarity_pairwise

if TYPE_CHECKING:  # what `Vectors` is made of: the API reference resolves these names here
    from collections.abc import Sequence  # noqa: F401

    import numpy as np  # noqa: F401


OnTruncate = Literal["warn", "error", "ignore"]
OutputValue = Literal["sentence_embedding", "token_embeddings"]


class SentenceEncoder:
    """A tokenizer, a BERT and a pooling, from one checkpoint. Made by `minisbert.load`.

    Attributes:
        model: the name or folder it came from.
        origin: where it was found, in words, such as "a local folder".
        config: everything that the checkpoint's json files say.
        tokenizer: text → token ids.
        bert: token ids → token vectors.
        pooling: token vectors → a sentence vector.
        modules: the post-pooling modules: dense layers, layer norms, normalization; often none.
        prompts: texts to put before a sentence, by name. Can be changed.
        default_prompt_name: the prompt that `encode` uses by default; None: no prompt.
        files: the paths of the checkpoint's files that were read, by their names inside it.
        load_warnings: the warnings that were given when it was loaded.
        reload: loads it again, given a device and a dtype; None if it was not loaded from a checkpoint.
    """

    def __init__(self, checkpoint: Checkpoint, *, reload: Callable[..., SentenceEncoder] | None = None) -> None:
        self.bert = checkpoint.bert
        self.tokenizer = checkpoint.tokenizer
        self.pooling = checkpoint.pooling
        self.modules = checkpoint.modules
        self.config = checkpoint.config
        self.model = checkpoint.source.model if checkpoint.source else ""
        self.origin = checkpoint.source.origin if checkpoint.source else ""
        self.files = dict(checkpoint.files)
        self.load_warnings = checkpoint.warnings
        self.reload = reload
        self._source = checkpoint.source
        usage = checkpoint.config.usage
        self.prompts: dict[str, str] = EVERY_MODELS_PROMPTS | dict(usage.prompts)
        self.default_prompt_name = usage.default_prompt_name
        self._truncate_dim = usage.truncate_dim
        self._similarity_fn_name = usage.similarity_fn_name or "cosine"

    @property
    def checkpoint(self) -> Checkpoint:
        """The current parts as one `Checkpoint`, which `save` and `info` take."""
        parts = self.bert, self.tokenizer, self.pooling, self.modules, self.config
        return Checkpoint(*parts, self._source, self.files, self.load_warnings)

    @property
    def _usage(self) -> SentenceTransformersConfig:
        """The current prompts, similarity function and truncated dimension."""
        return SentenceTransformersConfig(self.prompts, self.default_prompt_name, self.similarity_fn_name, self.truncate_dim)

    @property
    def dimension(self) -> int:
        """The dimension of a sentence vector."""
        return min(self.config.dimension, self._truncate_dim or self.config.dimension)

    @property
    def truncate_dim(self) -> int | None:
        """How many dimensions of each vector are kept, counted from the first; None: all. Can be set.

        It is useful for models that were trained for it (Kusupati et al. 2022, "Matryoshka Representation Learning").
        """
        return self._truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, value: int | None) -> None:
        self._truncate_dim = None if value is None else self._checked_dimension(value)

    def _checked_dimension(self, value: int) -> int:
        dimension, most = inputs.count("truncate_dim", value), self.config.dimension
        if dimension > most:
            raise ValueError(f"truncate_dim: found {dimension}, expected 1 to {most}, the dimensions of a vector of this model.")
        return dimension

    @property
    def similarity_fn_name(self) -> str:
        """How vectors are compared: "cosine", "dot", "euclidean" or "manhattan". Can be set.

        Default: what the checkpoint says; "cosine" if it says nothing.
        """
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str) -> None:
        self._similarity_fn_name = inputs.choice("similarity_fn_name", value, SIMILARITY_FUNCTIONS)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the model as a checkpoint in the hub's layout, for sentence-transformers, transformers and minisbert.

        Weights keep the encoder's precision, and config.json names it. The limit, the prompts and `truncate_dim` are written as
        they are now. The files are written to a temporary folder, which then replaces `folder` in one step.

        Args:
            folder: where to write. It may be new, empty, or hold a checkpoint. A checkpoint's own files are replaced, except
                README.md and .gitattributes.

        Raises:
            TypeError: if `folder` is neither a text nor a path.
            FileExistsError: if it is a file, or a folder that holds anything but a checkpoint.
        """
        from minisbert.checkpoint.save import save  # imported only when used

        in_default_state(lambda: save(self.checkpoint, self._usage, folder))

    def info(self) -> Info:
        """Every setting in force with the file that it comes from, the sha256 of all files, and every warning.

        Returns:
            An `Info`, which can be printed and whose fields can be read.
        """
        return describe(self.checkpoint, self._usage)

    @property
    def max_seq_length(self) -> int:
        """The limit in tokens, special tokens included. Longer texts are truncated, and a warning reports it. Can be set."""
        return self.tokenizer.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        most = self.bert.config.max_position_embeddings - self.bert.config.position_offset
        least = len(self.tokenizer.prefix) + len(self.tokenizer.suffix) + 1
        if not least <= inputs.count("max_seq_length", value, optional=False) <= most:
            raise ValueError(
                f"max_seq_length: found {value}, expected {least} (the special tokens and one more) to {most} (the positions that "
                "this model has)."
            )
        self.tokenizer.max_length = value

    @property
    def device(self) -> torch.device:
        """The device that the model computes on."""
        return self.bert.embeddings.word.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        return self.bert.dtype

    @property
    def vector_dtype(self) -> torch.dtype:
        """The dtype of the vectors, of pooling and of modules: float64 for a float64 model, float32 for all others."""
        return vector_dtype_of(self.dtype)

    if not TYPE_CHECKING:  # otherwise a type checker would accept any attribute

        def __getattr__(self, name: str) -> Any:  # called only for attributes that do not exist
            if name in inputs.ATTRIBUTES:
                message = f"{type(self).__name__!r} object has no attribute {name!r}. {inputs.ATTRIBUTES[name]}"
                raise AttributeError(message, name=name, obj=self)
            return super().__getattribute__(name)  # the usual error, also one from inside a property

    def __repr__(self) -> str:
        config, parts = self.bert.config, self.checkpoint
        return (
            f"SentenceEncoder({self.model!r}: {config.num_hidden_layers} layers, hidden {config.hidden_size}, "
            f"{'+'.join(self.pooling.modes)} pooling, {self.max_seq_length} tokens, {parts.quantize or self.dtype}, {self.device})"
        )

    def encode(
        self,
        sentences: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: OutputValue = "sentence_embedding",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        convert_to_numpy: bool | None = None,
        convert_to_tensor: bool | None = None,
        on_truncate: OnTruncate = "warn",
        **unknown: NoReturn,
    ) -> Any:
        """The vector of each sentence.

        Sentences are sorted by length and computed in batches without padding. Rows are in the order of the input. Equal texts
        are computed once.

        Args:
            sentences: a text, or an ordered collection: a list, a tuple, a generator, a numpy array of strings, a pandas Series.
            prompt_name: one of `prompts`, put before each text. Default: `default_prompt_name`.
            prompt: a text to put before each text; "" for none.
            batch_size: the most sentences in one batch. Default: no limit; `batch_tokens` decides.
            batch_tokens: the most tokens in one batch (a longer sentence makes a batch of its own). Default: what suits the
                machine; at most 256 on a processor, where each core computes a batch of its own.
            show_progress_bar: on stderr. Default: on a terminal, when there is more than one batch.
            output_value: "sentence_embedding"; or "token_embeddings", the vectors of all tokens before pooling, special tokens
                included.
            normalize_embeddings: scale each vector to length 1. A checkpoint with a Normalize module does this by itself.
            truncate_dim: keep only the first dimensions of each vector, before `normalize_embeddings`. Default: the encoder's own.
            convert_to_numpy: return numpy arrays. Default: tensors.
            convert_to_tensor: True returns tensors, whatever `convert_to_numpy` says; False returns numpy arrays.
            on_truncate: what to do if texts are longer than `max_seq_length`. "warn": one warning with their number, the longest
                and the first. "error": a ValueError that says the same. "ignore": nothing.
            unknown: any other option raises a TypeError, which says what to use instead of an option of sentence-transformers.

        Returns:
            [dim] for a text, [sentences, dim] for a collection, on the CPU, in float32 (float64 from a float64 encoder).
            Token embeddings: [tokens, hidden] for a text, a list of these for a collection.

        Raises:
            TypeError: if a sentence is not a text, or an option has the wrong type.
            ValueError: if an option is out of range, a text holds a lone surrogate, or a text is too long and `on_truncate` is
                "error".
            NotFiniteError: if a vector would hold NaN or infinite values.
            MissingExtraError: if arrays are asked for and numpy is not installed.

        Source: Reimers & Gurevych 2019, "Sentence-BERT", section 3.

        >>> import minisbert
        >>> encoder = minisbert.load("all-MiniLM-L6-v2")
        >>> encoder.encode(["A man is eating food.", "Someone is having a meal."]).shape
        torch.Size([2, 384])
        """
        options = self._options(
            "encode",
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            show_progress_bar=show_progress_bar,
            output_value=output_value,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            convert_to_numpy=convert_to_numpy,
            convert_to_tensor=convert_to_tensor,
            on_truncate=on_truncate,
            **unknown,
        )
        texts, single = inputs.read_texts(sentences)
        report = TruncationReport(self.max_seq_length)
        window = tokenize(self.tokenizer, texts, report, options)
        if report.cut and options.on_truncate == "warn":
            warn(report.message())
        with Progress(options.show_progress_bar, len(texts)) as progress:
            vectors = embed(self.bert, self.pooling, self.modules, window, options, progress)
        return in_default_state(lambda: vectors[0]) if single else vectors

    def encode_stream(self, sentences: Iterable[str], *, window: int = WINDOW, **options: Any) -> VectorStream:
        """The vectors of any number of sentences, in batches of rows, with constant memory.

        Some thousands of texts are read at a time and computed as in `encode`, with the same bits. The rows are yielded and not
        kept. The first rows come after a few hundred texts.

        Args:
            sentences: any iterable of texts, also an endless one. Its errors are passed on.
            window: the most texts to hold at a time. A smaller window needs less memory and, below a few hundred, is slower.
            options: as in `encode`, except `output_value`. A warning about truncated texts comes once, at the end.

        Returns:
            An iterator over tensors [sentences, dim] of at most `window` rows. Together they have one row for each text, in the
            order of the texts. Its attributes count `texts`, `tokens` and truncated texts (`cut`). It can be closed early.

        Raises:
            TypeError, ValueError, NotFiniteError, MissingExtraError: as in `encode`: at once for options, and for a text when it
                is read.

        >>> import minisbert
        >>> encoder = minisbert.load("all-MiniLM-L6-v2")
        >>> sum(len(rows) for rows in encoder.encode_stream(f"Sentence {n}." for n in range(300)))
        300
        """
        if isinstance(sentences, str):
            raise TypeError("sentences: found a single str, expected an iterable of str. Use encode(), or pass [text].")
        texts = inputs.iterate_texts(sentences)
        inputs.count("window", window, optional=False)
        checked = self._options("encode_stream", **options)
        report = TruncationReport(self.max_seq_length)
        progress = Progress(checked.show_progress_bar, len(sentences) if isinstance(sentences, Sized) else None)

        def rows() -> Generator[Any, None, None]:
            try:
                with progress:
                    for some in windows(texts, window):
                        tokenized = tokenize(self.tokenizer, some, report, checked)
                        yield embed(self.bert, self.pooling, self.modules, tokenized, checked, progress)
            finally:  # also if the stream is closed early, because rows of truncated texts were yielded
                if report.cut and checked.on_truncate == "warn":
                    warn(report.message())

        return VectorStream(rows(), report, progress)

    def encode_query(
        self, sentences: str | Iterable[str], *, prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> Any:
        """`encode` with the prompt "query" by default, which is empty if the checkpoint has none of this name.

        Args:
            sentences: as in `encode`.
            prompt_name: another of `prompts`.
            prompt: another text to put before each sentence.
            options: as in `encode`.

        Returns:
            As `encode` does.
        """
        if prompt_name is None and prompt is None and "query" in self.prompts:
            prompt_name = "query"
        return self.encode(sentences, prompt_name=prompt_name, prompt=prompt, **options)

    def encode_document(
        self, sentences: str | Iterable[str], *, prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> Any:
        """`encode` with the first of the prompts "document", "passage" and "corpus" that the model has, by default.

        As in sentence-transformers, every model has a prompt "document", which is empty if the checkpoint has none. Then a prompt
        "passage" or "corpus" is not used, and a warning says so. Pass `prompt_name="passage"`, or delete `prompts["document"]`.

        Args:
            sentences: as in `encode`.
            prompt_name: another of `prompts`.
            prompt: another text to put before each sentence.
            options: as in `encode`.

        Returns:
            As `encode` does.
        """
        if prompt_name is None and prompt is None:
            prompt_name = inputs.document_prompt(self.model, self.prompts)
        return self.encode(sentences, prompt_name=prompt_name, prompt=prompt, **options)

    def count_tokens(self, sentences: str | Iterable[str]) -> Any:
        """The number of tokens of each text before truncation, special tokens included.

        Args:
            sentences: a text, or an ordered collection of texts, as in `encode`.

        Returns:
            An int for a text, a list of them for a collection. `encode` truncates texts above `max_seq_length`.

        >>> import minisbert
        >>> minisbert.load("all-MiniLM-L6-v2").count_tokens(["", "A man is eating food."])
        [2, 8]
        """
        texts, single = inputs.read_texts(sentences)
        lengths = computes(self.tokenizer)(texts).untruncated_lengths
        return lengths[0] if single else lengths

    def similarity(self, embeddings1: Vectors, embeddings2: Vectors) -> Tensor:
        """`minisbert.similarity` with `similarity_fn_name`: each vector of the first side against each of the second.

        Args:
            embeddings1: [n, dim] or [dim].
            embeddings2: [m, dim] or [dim].

        Returns:
            [n, m].
        """
        return similarity(embeddings1, embeddings2, self.similarity_fn_name)

    def similarity_pairwise(self, embeddings1: Vectors, embeddings2: Vectors) -> Tensor:
        """`minisbert.util.similarity_pairwise` with `similarity_fn_name`: each vector against the vector in the same row.

        Args:
            embeddings1: [n, dim] or [dim].
            embeddings2: the same number of vectors.

        Returns:
            [n].
        """
        return similarity_pairwise(embeddings1, embeddings2, self.similarity_fn_name)

    def _options(
        self, function: str, prompt: Any = None, prompt_name: Any = None, truncate_dim: Any = None, **options: Any
    ) -> inputs.Options:
        """The caller's options, each checked."""
        text = inputs.choose_prompt(self.prompts, self.default_prompt_name, prompt, prompt_name)
        options |= {
            "prompt": text,
            "prompt_tokens": count_prompt_tokens(self.tokenizer, self.pooling, text),
            "truncate_dim": None if truncate_dim is None else self._checked_dimension(truncate_dim),
        }
        return inputs.read_options(function, dimension=self.dimension, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the source of the weights, not the weights: some hundred bytes. Unpickling loads them from the same source.

        Raises:
            MinisbertError: if the encoder was not loaded from a checkpoint.
        """
        if self.reload is None:
            raise MinisbertError(
                "an encoder is pickled by the checkpoint that it was loaded from, and this one was not loaded from any. "
                "Load it with minisbert.load(), in the receiving process if necessary."
            )
        names = "prompts", "default_prompt_name", "_truncate_dim", "_similarity_fn_name", "max_seq_length"
        settings = {name: getattr(self, name) for name in names}
        load = partial(self.reload, device=str(self.device), dtype=self.dtype)
        return restore, (load, settings, computes(checksum)(self.bert, self.modules))

    def __copy__(self) -> SentenceEncoder:
        """Another encoder that shares the weights in memory, with its own settings."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), tokenizer=copy.copy(self.tokenizer))
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> SentenceEncoder:
        """Another encoder that shares only the tokenizer's vocabulary, which never changes."""
        other = self.__copy__()
        memo[id(self)] = other
        memo[id(self.tokenizer)] = other.tokenizer
        vars(other).update(in_default_state(lambda: {name: copy.deepcopy(value, memo) for name, value in vars(self).items()}))
        return other
