"""`SentenceEncoder`: texts in, one vector each out. It joins the parts, and is the only one that knows them all."""

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
        origin: the kind of place it was found in, in words.
        config: everything the checkpoint's json files say.
        tokenizer: text → token ids.
        bert: token ids → token vectors.
        pooling: token vectors → a sentence vector.
        modules: the post-pooling modules: dense layers, layer norms, normalization; often none.
        prompts: texts to put before a sentence, by name. Can be changed.
        default_prompt_name: the prompt that `encode` takes when it is given none; None: no prompt.
        files: the checkpoint's files that were read, by their names inside it, and where they lie.
        load_warnings: what was said in warnings when it was loaded.
        reload: loads it again, given a device and a dtype; None if it was put together by hand.
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
        """The parts as they are now, in one piece."""
        parts = self.bert, self.tokenizer, self.pooling, self.modules, self.config
        return Checkpoint(*parts, self._source, self.files, self.load_warnings)

    @property
    def _usage(self) -> SentenceTransformersConfig:
        """The prompts and the like as they are now."""
        return SentenceTransformersConfig(self.prompts, self.default_prompt_name, self.similarity_fn_name, self.truncate_dim)

    @property
    def dimension(self) -> int:
        """How many values a sentence vector has."""
        return min(self.config.dimension, self._truncate_dim or self.config.dimension)

    @property
    def truncate_dim(self) -> int | None:
        """How many dimensions of each vector are kept, the first ones; None: all. Can be set.

        It is of use with models that were trained for it (Kusupati et al. 2022, "Matryoshka Representation Learning").
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
        """How the vectors are to be compared: "cosine", "dot", "euclidean" or "manhattan". Can be set.

        Default: what the checkpoint says, and "cosine" if it does not.
        """
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str) -> None:
        self._similarity_fn_name = inputs.choice("similarity_fn_name", value, SIMILARITY_FUNCTIONS)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the model as a checkpoint in the hub's layout, for sentence-transformers, transformers and minisbert.

        Weights keep the encoder's precision, and config.json names it. The limit, the prompts and `truncate_dim` are written as
        they are now. The files are written to a folder beside, which then takes the place of `folder` in one step.

        Args:
            folder: where to write. It may be new, empty, or hold a checkpoint, whose own files are replaced, but for README.md
                and .gitattributes.

        Raises:
            TypeError: if `folder` is neither a text nor a path.
            FileExistsError: if it is a file, or a folder that holds anything but a checkpoint.
        """
        from minisbert.checkpoint.save import save  # imported only when used

        in_default_state(lambda: save(self.checkpoint, self._usage, folder))

    def info(self) -> Info:
        """Every setting in force and the file it came from, the files' sha256, every warning.

        Returns:
            An `info.Info`: print it, or take its fields.
        """
        return describe(self.checkpoint, self._usage)

    @property
    def max_seq_length(self) -> int:
        """The limit in tokens, special tokens included; longer texts are cut and reported, and reported. Can be set."""
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
        """Where the model computes."""
        return self.bert.embeddings.word.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision the model computes in."""
        return self.bert.dtype

    @property
    def vector_dtype(self) -> torch.dtype:
        """The precision of the vectors, and of pooling and modules: float64 for a float64 model, float32 for all others."""
        return vector_dtype_of(self.dtype)

    if not TYPE_CHECKING:  # or a type checker would believe that every attribute exists

        def __getattr__(self, name: str) -> Any:  # asked only for what is not there
            if name in inputs.ATTRIBUTES:
                message = f"{type(self).__name__!r} object has no attribute {name!r}. {inputs.ATTRIBUTES[name]}"
                raise AttributeError(message, name=name, obj=self)
            return super().__getattribute__(name)  # raises what is always raised, also from within a property

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

        Sentences are sorted by length and computed in batches without padding; the rows come back in the order of the input.
        Equal texts are computed once.

        Args:
            sentences: a text; or texts in an order: a list, a tuple, a generator, a numpy array of strings, a pandas Series.
            prompt_name: one of `prompts`, put before each text. Default: `default_prompt_name`.
            prompt: the text itself that is put before each text, "" for none.
            batch_size: the most sentences in one batch. Default: no limit but that of the tokens.
            batch_tokens: the most tokens in one batch (a longer sentence makes a batch of its own). Default: what suits the
                machine; at most 256 on a processor, where each core computes a batch of its own.
            show_progress_bar: on stderr. Default: on a terminal, when there is more than one batch.
            output_value: "sentence_embedding"; or "token_embeddings", the vectors of the word pieces before they are pooled, those
                of the special tokens among them.
            normalize_embeddings: scale each vector to length 1. A checkpoint that does so itself does so in any case.
            truncate_dim: keep only the first dimensions of each vector, before `normalize_embeddings`. Default: the encoder's own.
            convert_to_numpy: numpy arrays in place of tensors, which are the default.
            convert_to_tensor: False is another way to ask for arrays; True is the default, and comes before `convert_to_numpy`.
            on_truncate: what to do when texts are longer than `max_seq_length`: "warn" once with how many, the longest and the
                first of them; raise an "error", a ValueError that says the same; or "ignore" it.
            unknown: any other option is a TypeError, which says what to do instead of one that sentence-transformers has.

        Returns:
            [dim] for a text, [sentences, dim] for a collection, on the CPU, in float32 (float64 from a float64 encoder).
            Of token embeddings: [tokens, hidden] for a text, a list of such for a collection.

        Raises:
            TypeError: if a sentence is not a text, or an option of the wrong type.
            ValueError: if an option is out of its range, a text holds a lone surrogate, or a text is too long and
                `on_truncate` is "error".
            NotFiniteError: if a vector would hold NaN or infinite values.
            MissingExtraError: if numpy is asked for and missing.

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
        """The vectors of any number of sentences, in batches of rows, with flat memory.

        Texts are read as they are needed, some thousands at a time, sorted and computed as `encode` does, with the same bits; what
        was computed is handed out and forgotten. The first rows come after a few hundred texts.

        Args:
            sentences: any iterable of texts, endless ones too. Its errors are passed on.
            window: the most texts to hold at a time. A lower number means less memory and, below a few hundred, less speed.
            options: as in `encode`, but for `output_value`. A warning about cut texts comes once, at the end.

        Returns:
            An iterator over tensors [sentences, dim], at most `window` rows each, which together have a row for each text, in the
            order of the texts. It has attributes that count `texts`, `tokens` and texts that were `cut`, and can be closed early.

        Raises:
            TypeError, ValueError, NotFiniteError, MissingExtraError: as in `encode`, for wrong options at once, for a wrong text
                when its turn comes.

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
            finally:  # at an early end too: rows of cut texts were handed out
                if report.cut and checked.on_truncate == "warn":
                    warn(report.message())

        return VectorStream(rows(), report, progress)

    def encode_query(
        self, sentences: str | Iterable[str], *, prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> Any:
        """`encode` with the prompt "query", unless another is given. A checkpoint that has none of that name takes none.

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
        """`encode` with the first of the prompts "document", "passage" and "corpus" that there is, unless another is given.

        As in sentence-transformers, where every model has a "document", an empty one if the checkpoint gives none. A "passage" or
        "corpus" is then not taken, and a warning says so: delete `prompts["document"]`, or pass `prompt_name="passage"`.

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
        """How many tokens each text has before anything is cut, special tokens included.

        Args:
            sentences: a text, or texts in an order, as in `encode`.

        Returns:
            An int for a text, a list of them for a collection. What is above `max_seq_length` would be cut.

        >>> import minisbert
        >>> minisbert.load("all-MiniLM-L6-v2").count_tokens(["", "A man is eating food."])
        [2, 8]
        """
        texts, single = inputs.read_texts(sentences)
        lengths = computes(self.tokenizer)(texts).untruncated_lengths
        return lengths[0] if single else lengths

    def similarity(self, embeddings1: Vectors, embeddings2: Vectors) -> Tensor:
        """Every vector of one side against every one of the other, by `similarity_fn_name`: `minisbert.similarity`.

        Args:
            embeddings1: [n, dim] or [dim].
            embeddings2: [m, dim] or [dim].

        Returns:
            [n, m].
        """
        return similarity(embeddings1, embeddings2, self.similarity_fn_name)

    def similarity_pairwise(self, embeddings1: Vectors, embeddings2: Vectors) -> Tensor:
        """Each vector against the one at its side, by `similarity_fn_name`: `minisbert.util.similarity_pairwise`.

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
        """Pickles by where it came from: some hundred bytes, and the receiver loads the weights anew from the same place.

        Raises:
            MinisbertError: if the encoder was put together by hand and came from nowhere.
        """
        if self.reload is None:
            raise MinisbertError(
                "an encoder is pickled by where it came from, and this one was not loaded from anywhere. "
                "Make it with minisbert.load(), in the receiving process if need be."
            )
        names = "prompts", "default_prompt_name", "_truncate_dim", "_similarity_fn_name", "max_seq_length"
        settings = {name: getattr(self, name) for name in names}
        load = partial(self.reload, device=str(self.device), dtype=self.dtype)
        return restore, (load, settings, computes(checksum)(self.bert, self.modules))

    def __copy__(self) -> SentenceEncoder:
        """Another encoder with the same weights in memory, and settings of its own."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), tokenizer=copy.copy(self.tokenizer))
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> SentenceEncoder:
        """Another encoder that shares nothing but the tokenizer's vocabulary, which never changes."""
        other = self.__copy__()
        memo[id(self)] = other
        memo[id(self.tokenizer)] = other.tokenizer
        vars(other).update(in_default_state(lambda: {name: copy.deepcopy(value, memo) for name, value in vars(self).items()}))
        return other
