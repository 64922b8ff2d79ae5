"""`SentenceEncoder`: texts in, one vector each out. It joins the parts, and is the only one that knows them all."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence, Sized
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minisbert.bert import Bert, LengthGroup
from minisbert.checkpoint.config import EVERY_MODELS_PROMPTS, SIMILARITY_FUNCTIONS, CheckpointConfig
from minisbert.checkpoint.info import Info, describe
from minisbert.errors import MinisbertError, MinisbertWarning, MissingExtraError, NotFiniteError
from minisbert.inference.batching import Batch, balanced_batches, plan
from minisbert.inference.engine import compute, with_oom_retry
from minisbert.inference.inputs import (
    ATTRIBUTES,
    check_text,
    choice,
    count,
    flag,
    iterate_texts,
    numpy_wanted,
    read_texts,
    unknown_option,
)
from minisbert.inference.kernels import OneDNNLinear
from minisbert.inference.stream import (
    WINDOW,
    Progress,
    TokenRows,
    TruncationReport,
    VectorStream,
    Window,
    beginning,
    first_not_finite,
    in_order,
    padded,
    windows,
)
from minisbert.inference.threads import computing, fork_safe
from minisbert.inference.vectors import Vectors
from minisbert.pooling import Pooling, build_modules, vector_dtype_of
from minisbert.tokenizer import WordPiece
from minisbert.util import similarity, similarity_pairwise

if TYPE_CHECKING:
    import numpy as np  # noqa: F401 # `Vectors` names its arrays, and the API reference resolves that name here


ACCELERATOR_TOKENS = 16_384
"""Tokens in one batch on a GPU, which wants more of them at once than the cores of a processor do."""

OnTruncate = Literal["warn", "error", "ignore"]
OutputValue = Literal["sentence_embedding", "token_embeddings"]


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
        loaded: what makes it again, given a device and a dtype; None if it was put together by hand.
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
        load_warnings: Sequence[str] = (),
        loaded: Callable[..., SentenceEncoder] | None = None,
    ) -> None:
        self.bert = bert
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.config = config
        self.heads = build_modules(config.heads) if heads is None else heads
        self.model = model
        self.origin = origin
        self.files = dict(files or {})
        self.load_warnings = tuple(load_warnings)
        self.loaded = loaded
        self.prompts: dict[str, str] = EVERY_MODELS_PROMPTS | dict(config.usage.prompts)
        self.default_prompt_name = config.usage.default_prompt_name
        self._truncate_dim = config.usage.truncate_dim
        self._similarity_fn_name = config.usage.similarity_fn_name or "cosine"

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
        self._truncate_dim = None if value is None else self._kept(value)

    def _kept(self, value: int) -> int:
        keep, most = count("truncate_dim", value), self.config.dimension
        if keep > most:
            raise ValueError(f"truncate_dim: found {keep}, expected 1 to {most}, the numbers in a vector of this model.")
        return keep

    @property
    def similarity_fn_name(self) -> str:
        """How the vectors are to be compared: "cosine", "dot", "euclidean" or "manhattan". Can be set.

        Default: what the checkpoint says, and "cosine" if it does not.
        """
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"similarity_fn_name: found {type(value).__name__}, expected a str.")
        if value not in SIMILARITY_FUNCTIONS:
            raise ValueError(f"similarity_fn_name: found {value!r}, expected one of {', '.join(SIMILARITY_FUNCTIONS)}.")
        self._similarity_fn_name = value

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the model as a checkpoint in the hub's layout, for sentence-transformers, transformers and minisbert.

        Weights keep the encoder's precision: what was loaded as float32 is written as float32, and with `dtype=torch.float64` as
        float64, and config.json says so. The limit, the prompts and `truncate_dim` are written as they stand now. The files come
        together in a folder beside, which then takes the place of `folder` in one step: whatever happens, there is the old
        checkpoint or the new one.

        Args:
            folder: where to write. It may be new, empty, or hold a checkpoint, which is replaced but for its README.md.

        Raises:
            TypeError: if `folder` is neither a text nor a path.
            FileExistsError: if it is a file, or a folder that holds anything but a checkpoint.
        """
        from minisbert.checkpoint.save import save  # imported only when used

        save(self, folder)

    def info(self) -> Info:
        """Every setting in force and the file it came from, the files' sha256, every warning.

        Returns:
            An `info.Info`: print it, or take its fields.
        """
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
        """The precision the model computes in."""
        return self.bert.embeddings.word.weight.dtype

    @property
    def vector_dtype(self) -> torch.dtype:
        """The precision of the vectors, and of pooling and heads: float64 for a float64 model, float32 for all others."""
        return vector_dtype_of(self.dtype)

    if not TYPE_CHECKING:  # or a type checker would believe that every attribute exists

        def __getattr__(self, name: str) -> Any:  # asked only for what is not there
            if name in ATTRIBUTES:
                message = f"{type(self).__name__!r} object has no attribute {name!r}. {ATTRIBUTES[name]}"
                raise AttributeError(message, name=name, obj=self)
            return super().__getattribute__(name)  # raises what is always raised, also from within a property

    def __repr__(self) -> str:
        config = self.bert.config
        return (
            f"SentenceEncoder({self.model!r}: {config.num_hidden_layers} layers, hidden {config.hidden_size}, "
            f"{'+'.join(self.pooling.modes)} pooling, {self.max_seq_length} tokens, {self.dtype}, {self.device})"
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
            truncate_dim: keep only the first numbers of each vector, before `normalize_embeddings`. Default: the encoder's own.
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
            ValueError: if an option is out of its range, a text holds half a surrogate pair, or a text is too long and
                `on_truncate` is "error".
            NotFiniteError: if a vector would hold NaN or infinite numbers.
            MissingExtraError: if numpy is asked for and missing.

        Source: Reimers & Gurevych 2019, "Sentence-BERT", section 3.

        >>> import minisbert
        >>> encoder = minisbert.load("all-MiniLM-L6-v2")
        >>> encoder.encode(["A man is eating food.", "Someone is having a meal."]).shape
        torch.Size([2, 384])
        """
        if unknown:
            raise unknown_option("encode", unknown)
        texts, single = read_texts(sentences)
        options = self._options(
            prompt=self._prompt(prompt, prompt_name),
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            show_progress_bar=show_progress_bar,
            output_value=output_value,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            convert_to_numpy=numpy_wanted(convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor),
            on_truncate=on_truncate,
        )
        cut = TruncationReport(self.max_seq_length)
        window = self._tokenize(texts, cut, options)
        if cut.cut and options.on_truncate == "warn":
            warnings.warn(cut.message(), MinisbertWarning, stacklevel=2)
        with Progress(options.show_progress_bar, len(texts)) as progress:
            vectors = self._compute(window, options, progress)
        return vectors[0] if single else vectors

    def encode_stream(
        self,
        sentences: Iterable[str],
        *,
        window: int = WINDOW,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        convert_to_numpy: bool | None = None,
        convert_to_tensor: bool | None = None,
        on_truncate: OnTruncate = "warn",
        **unknown: NoReturn,
    ) -> VectorStream:
        """The vectors of any number of sentences, in batches of rows, with flat memory.

        Texts are read as they are needed, some thousands at a time, sorted and computed as `encode` does, with the same bits; what
        was computed is handed out and forgotten. The first rows come after a few hundred texts.

        Args:
            sentences: any iterable of texts, endless ones too. Its errors are passed on.
            window: the most texts to hold at a time. A lower number means less memory and, below a few hundred, less speed.
            prompt_name: as in `encode`, and so are the further options. A warning about cut texts comes once, at the end.
            prompt: see there.
            batch_size: see there.
            batch_tokens: see there.
            show_progress_bar: see there.
            normalize_embeddings: see there.
            truncate_dim: see there.
            convert_to_numpy: see there.
            convert_to_tensor: see there.
            on_truncate: see there.
            unknown: see there.

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
        if unknown:
            raise unknown_option("encode_stream", unknown)
        if isinstance(sentences, str):
            raise TypeError("sentences: found a single str, expected an iterable of str. Use encode(), or pass [text].")
        texts = iterate_texts(sentences)
        count("window", window, optional=False)
        options = self._options(
            prompt=self._prompt(prompt, prompt_name),
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            show_progress_bar=show_progress_bar,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            convert_to_numpy=numpy_wanted(convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor),
            on_truncate=on_truncate,
        )
        cut = TruncationReport(self.max_seq_length)
        progress = Progress(options.show_progress_bar, len(sentences) if isinstance(sentences, Sized) else None)

        def rows() -> Generator[Any, None, None]:
            try:
                with progress:
                    for some in windows(texts, window):
                        yield self._compute(self._tokenize(some, cut, options), options, progress)
            finally:  # at an early end too: rows of cut texts were handed out
                if cut.cut and options.on_truncate == "warn":
                    warnings.warn(cut.message(), MinisbertWarning, stacklevel=3)

        return VectorStream(rows(), cut, progress)

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
            names = [name for name in ("document", "passage", "corpus") if name in self.prompts]
            prompt_name = names[0] if names else None
            passed_over = [name for name in names[1:] if self.prompts[name]]
            if prompt_name is not None and not self.prompts[prompt_name] and passed_over:
                warnings.warn(
                    f"encode_document: {self.model} has a prompt {passed_over[0]!r}, but its {prompt_name!r} comes first and is "
                    "empty. Nothing is put before the texts, as in sentence-transformers; "
                    f"pass prompt_name={passed_over[0]!r} to have it.",
                    MinisbertWarning,
                    stacklevel=2,
                )
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
        texts, single = read_texts(sentences)
        lengths = self.tokenizer(texts).untruncated_lengths
        return lengths[0] if single else lengths

    def _prompt(self, prompt: str | None, prompt_name: str | None) -> str:
        """The text to put before each sentence."""
        if prompt_name is not None and not isinstance(prompt_name, str):
            raise TypeError(f"prompt_name: found {type(prompt_name).__name__}, expected a str or None.")
        if prompt is not None:
            if prompt_name is not None:
                warnings.warn(
                    f"prompt_name: {prompt_name!r} is not used, since a prompt is given as well. Give one of the two.",
                    MinisbertWarning,
                    stacklevel=3,
                )
            return check_text(prompt, "prompt")
        argument = "prompt_name"
        if prompt_name is None:
            argument, prompt_name = "default_prompt_name", self.default_prompt_name
        if prompt_name is None:
            return ""
        if prompt_name not in self.prompts:
            known = ", ".join(map(repr, self.prompts))
            raise ValueError(f"{argument}: found {prompt_name!r}, expected one of the prompts of this model: {known}.")
        return check_text(self.prompts[prompt_name], f"prompts[{prompt_name!r}]")

    def prompt_tokens(self, prompt: str) -> int:
        """How many tokens of each sentence the pooling leaves out because of the prompt before it: 0 for most checkpoints.

        Counted as sentence-transformers does: the tokens of the prompt alone, with what the tokenizer puts before a text ([CLS])
        but without what it puts after it ([SEP]).

        Args:
            prompt: the text that is put before each sentence.

        Returns:
            0, too, where the checkpoint says `include_prompt`.
        """
        if not prompt or self.pooling.include_prompt:
            return 0
        return len(self.tokenizer([prompt]).ids[0]) - bool(self.tokenizer.suffix)

    def plan(self, lengths: Sequence[int], batch_tokens: int | None = None, batch_size: int | None = None) -> list[Batch]:
        """Packs sentences of so many tokens into batches: `batching.plan`, or `batching.even_plan` if that is left to the machine.

        Args:
            lengths: tokens of each sentence.
            batch_tokens: the most tokens in one batch. Default: what suits the device, see `encode`.
            batch_size: the most sentences in one batch. Default: no limit.

        Returns:
            The batches, longest sentences first.
        """
        if batch_tokens is None and self.device.type == "cpu":
            return balanced_batches(lengths, torch.get_num_threads(), batch_size)
        return plan(lengths, batch_tokens or ACCELERATOR_TOKENS, batch_size)

    @property
    def same_on_all_cores(self) -> bool:
        """Whether a batch has the same bits on one core and on all of them."""
        config = self.bert.config
        # oneDNN's products have. Attention differed with heads of 8 numbers, and with a single head; not with 16, 24, 32 or 64
        # numbers and 2 heads or more, at any length up to 512 (tests/inference/test_bits.py has all-MiniLM-L6-v2's).
        by_onednn = isinstance(self.bert.layers[0].get_submodule("attention.out"), OneDNNLinear)
        return by_onednn and config.num_attention_heads > 1 and config.head_dim >= 16

    def finish(self, pooled: Tensor, dimension: int | None = None) -> Tensor:
        """Pooled vectors through the heads, then the first `dimension` values: [sentences, hidden × modes] → [sentences, dim].

        Args:
            pooled: what `pooling` gives.
            dimension: how many values of each vector to keep. Default: all.

        Returns:
            [sentences, dim], or [sentences, dimension].
        """
        return self.heads(pooled)[:, :dimension]

    def similarity(self, embeddings1: Vectors, embeddings2: Vectors) -> Tensor:
        """Every vector of the one side against every one of the other, by `similarity_fn_name`: `minisbert.similarity`.

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
        self,
        *,
        prompt: str,
        batch_size: int | None,
        batch_tokens: int | None,
        show_progress_bar: bool | None,
        normalize_embeddings: bool,
        truncate_dim: int | None,
        convert_to_numpy: bool,
        on_truncate: OnTruncate,
        output_value: OutputValue = "sentence_embedding",
    ) -> _Options:
        """The caller's options, each checked."""
        choice("on_truncate", on_truncate, ("warn", "error", "ignore"))
        choice("output_value", output_value, ("sentence_embedding", "token_embeddings"))
        of_tokens = output_value == "token_embeddings"
        if flag("normalize_embeddings", normalize_embeddings) and of_tokens:
            raise ValueError("normalize_embeddings: found True, expected False with token_embeddings, which are not pooled yet.")
        if truncate_dim is not None and of_tokens:
            raise ValueError("truncate_dim: found a number, expected None with token_embeddings, which are not pooled yet.")
        if convert_to_numpy:
            try:
                import numpy  # noqa: F401 (torch uses it)
            except ImportError as error:
                raise MissingExtraError(
                    "convert_to_numpy: numpy is not installed. Run pip install 'minisbert[numpy]', or take the tensors."
                ) from error
        return _Options(
            prompt=prompt,
            prompt_tokens=self.prompt_tokens(prompt),
            batch_size=None if batch_size is None else count("batch_size", batch_size),
            batch_tokens=None if batch_tokens is None else count("batch_tokens", batch_tokens),
            show_progress_bar=None if show_progress_bar is None else flag("show_progress_bar", show_progress_bar),
            of_tokens=of_tokens,
            normalize=normalize_embeddings,
            dimension=self.dimension if truncate_dim is None else self._kept(truncate_dim),
            convert_to_numpy=convert_to_numpy,
            on_truncate=on_truncate,
        )

    def _tokenize(self, texts: list[str], cut: TruncationReport, options: _Options) -> Window:
        """Tokenizes some texts, each of the different ones once, and counts those that are too long."""
        unique = list(dict.fromkeys(texts))
        start = cut.texts
        with computing():
            tokenized = self.tokenizer([options.prompt + text for text in unique] if options.prompt else unique)
        if [] in tokenized.ids:
            text = unique[tokenized.ids.index([])]
            raise ValueError(
                f"sentences[{start + texts.index(text)}], {beginning(text)}: found no tokens, expected one at least, since the "
                "tokenizer of this model puts no special tokens around a text. Leave such texts out."
            )
        cut.add(texts, unique, tokenized)
        if cut.cut and options.on_truncate == "error":
            raise ValueError(cut.message(""))
        return Window(texts, unique, tokenized.ids, start)

    def _compute(self, window: Window, options: _Options, progress: Progress) -> Any:
        """The vectors of a window of texts, in its order."""
        model = with_oom_retry(self.bert.forward_packed)
        rows: Tensor | TokenRows = TokenRows(window.ids)
        if not options.of_tokens:
            rows = torch.empty(len(window.ids), options.dimension, dtype=self.vector_dtype)  # [sentences, dim]

        def forward(packed: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
            with computing():
                token_vectors = model(packed, groups).to(self.vector_dtype)  # [tokens, hidden]
                if options.of_tokens:
                    return padded(token_vectors, groups)  # [sentences, longest, hidden]
                vectors = self.finish(
                    self.pooling(token_vectors, groups, options.prompt_tokens), options.dimension
                )  # [sentences, dim]
                return F.normalize(vectors, dim=1) if options.normalize else vectors

        batches = self.plan([len(ids) for ids in window.ids], options.batch_tokens, options.batch_size)
        progress.start(len(batches))
        progress.update(len(window.texts) - len(window.unique), 0)  # they cost nothing
        computed = compute(
            forward,
            window.ids,
            batches,
            rows,
            self.device,
            check=partial(self._see_that_it_is_finite, window),
            alone_on_all_cores=self.same_on_all_cores,
        )
        with closing(computed):
            while (batch := fork_safe(lambda: next(computed, None))) is not None:
                progress.update(len(batch.indices), batch.tokens)
        return fork_safe(lambda: in_order(rows, window, as_numpy=options.convert_to_numpy))

    def _see_that_it_is_finite(self, window: Window, batch: Batch, vectors: Tensor) -> None:
        bad = first_not_finite(vectors, batch)
        if bad is not None:
            text = window.unique[bad]
            half = self.dtype in (torch.float16, torch.bfloat16)
            remedy = "Load with dtype=torch.float32" if half else "Load an unchanged copy of the checkpoint"
            raise NotFiniteError(
                f"sentences[{window.start + window.texts.index(text)}], {beginning(text)}: its vector has NaN or infinite numbers, "
                f"expected finite ones. The weights hold such numbers, or ones so large that {self.dtype} overflows. {remedy}."
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles by where it came from: some hundred bytes, and the receiver loads the weights anew from the same place.

        Raises:
            MinisbertError: if the encoder was put together by hand and came from nowhere.
        """
        if self.loaded is None:
            raise MinisbertError(
                "an encoder is pickled by where it came from, and this one was not loaded from anywhere. "
                "Make it with minisbert.load(), in the receiving process if need be."
            )
        loading_gives = {"bert", "tokenizer", "pooling", "config", "heads", "model", "origin", "files", "remarks", "loaded"}
        settings = {name: value for name, value in vars(self).items() if name not in loading_gives}
        load = partial(self.loaded, device=str(self.device), dtype=self.dtype)
        return _load_again, (load, settings, self.max_seq_length, _checksum(self.bert, self.heads))

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
        vars(other).update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return other


@dataclass(frozen=True)
class _Options:
    """The options of `encode`, checked, with their defaults filled in."""

    prompt: str
    prompt_tokens: int
    batch_size: int | None
    batch_tokens: int | None
    show_progress_bar: bool | None
    of_tokens: bool
    normalize: bool
    dimension: int
    convert_to_numpy: bool
    on_truncate: OnTruncate


def _checksum(*parts: nn.Module) -> int:
    """A number that changes when a weight does: the sum of all bits, taken as whole numbers, so that it is exact in any order."""
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    weights = (weight.to_dense() if weight.is_mkldnn else weight for part in parts for weight in part.parameters())
    return sum(int(weight.view(kinds[weight.element_size()]).sum(dtype=torch.int64)) for weight in weights)


def _load_again(
    load: Callable[[], SentenceEncoder], settings: dict[str, Any], max_seq_length: int, checksum: int
) -> SentenceEncoder:
    """What unpickling calls."""
    encoder = load()
    if _checksum(encoder.bert, encoder.heads) != checksum:
        raise MinisbertError(
            f"{encoder.model}: the weights there are not those of the pickled encoder. They were changed, there or in the encoder. "
            "Save changed weights to a folder of their own, and load that."
        )
    vars(encoder).update(settings)
    encoder.max_seq_length = max_seq_length
    return encoder
