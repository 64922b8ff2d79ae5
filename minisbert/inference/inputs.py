"""Checks the arguments of a caller: texts and options. Each error says what was found, what was expected, and what to do.

An option or attribute that sentence-transformers has and minisbert lacks raises an error that says what to use instead. README.md
in this folder lists the same names in its section "Coming from sentence-transformers".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from minisbert.errors import imported, warn


def read_texts(sentences: object) -> tuple[list[str], bool]:
    """The caller's sentences as a list of str, and whether it was a single text.

    Any ordered iterable of texts is accepted: a list, a tuple, a generator, a numpy array of strings, a pandas or polars Series, a
    pyarrow array. None of these packages is imported.

    Raises:
        TypeError: if it has no order (a set, a dict), is not a collection, or holds anything but texts.
        ValueError: if a text holds a lone surrogate, or an array has more than one axis.

    >>> read_texts(text for text in ("a", "b"))
    (['a', 'b'], False)
    """
    if isinstance(sentences, str):
        return [check_text(sentences, "sentences")], True
    return list(iterate_texts(sentences)), False


def iterate_texts(sentences: object) -> Iterator[str]:
    """The texts of a collection. Each text is checked when it is read; anything but a collection is refused at once."""
    return (check_text(text, f"sentences[{index}]") for index, text in enumerate(_collection(sentences)))


def _collection(sentences: object) -> Iterable[object]:
    kind = type(sentences).__name__
    if isinstance(sentences, (AbstractSet, Mapping)) and not isinstance(sentences, KeysView):
        remedy = "For example, pass list(it.values())" if isinstance(sentences, Mapping) else "For example, pass sorted(it)"
        raise TypeError(
            f"sentences: found {kind}, expected an ordered collection such as a list: row i of the result belongs to text i. "
            f"{remedy}, and keep that list."
        )
    if isinstance(sentences, (bytes, bytearray, memoryview)):
        raise TypeError(f"sentences: found {kind}, expected str. Decode it first: data.decode('utf-8').")
    shape = getattr(sentences, "shape", None)  # of numpy, pandas, polars, pyarrow's tables and torch
    axes = len(shape) if isinstance(shape, tuple) else 1
    if axes != 1:
        raise ValueError(f"sentences: found {kind} with {axes} axes, expected one axis of texts. Pass one column of it.")
    if not isinstance(sentences, Iterable):
        raise TypeError(f"sentences: found {kind}, expected a str, or a list or other ordered collection of str.")
    if type(sentences).__module__.partition(".")[0] == "pyarrow" and hasattr(sentences, "to_pylist"):
        texts: list[object] = sentences.to_pylist()  # the entries of an array are pyarrow's scalars, no str
        return texts
    return sentences


def check_text(text: object, name: str) -> str:
    """Returns the text itself, or raises an error if it cannot be tokenized."""
    if not isinstance(text, str):
        raise TypeError(f"{name}: found {type(text).__name__}, expected str.{_advice(text)}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{name}: found {text[error.start]!r} at character {error.start}, a lone surrogate, expected Unicode text. "
                "It comes from bytes that were not UTF-8, or from a pair that was split; decode the text again."
            ) from error
    return text


def _advice(entry: object) -> str:
    # pandas marks a missing text by NaN, and newer versions by NA.
    if entry is None or (isinstance(entry, float) and math.isnan(entry)) or type(entry).__name__ == "NAType":
        return " A missing text has no vector; leave it out, or pass '' for it."
    if isinstance(entry, (list, tuple)) and len(entry) == 2 and all(isinstance(part, str) for part in entry):
        return (
            " A pair has no vector: each text is encoded separately, and vectors are compared. "
            "Encode the first texts and the second texts, each as a list."
        )
    if isinstance(entry, (list, tuple)):
        return " Lists of lists are not flattened; pass one flat list."
    if isinstance(entry, (bytes, bytearray)):
        return " Decode it first: data.decode('utf-8')."
    return " Write it out first, such as str(number)." if isinstance(entry, (int, float)) else ""


def flag(name: str, value: object) -> bool:
    """Checks that a value is True or False; 0 and 1 are refused."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: found {type(value).__name__}, expected True or False.")
    return value


def count(name: str, value: object, *, optional: bool = True) -> int:
    """Checks that a value is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: found {type(value).__name__}, expected an int{' or None' if optional else ''}.")
    if value < 1:
        raise ValueError(f"{name}: found {value}, expected at least 1.")
    return value


def choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Checks that a value is one of `choices`."""
    expected = f"{', '.join(repr(word) for word in choices[:-1])} or {choices[-1]!r}"
    if not isinstance(value, str):
        raise TypeError(f"{name}: found {type(value).__name__}, expected {expected}.")
    if value not in choices:
        raise ValueError(f"{name}: found {value!r}, expected {expected}.")
    return value


def numpy_wanted(*, convert_to_numpy: bool | None = None, convert_to_tensor: bool | None = None) -> bool:
    """Whether the caller asks for numpy arrays, by either of the two options that sentence-transformers has for it.

    The default is a tensor here, and an array there. If an option is given, it means the same: `convert_to_tensor=True` decides
    first.

    Raises:
        TypeError: if one of them is neither True, False nor None.
        ValueError: if both are False.

    >>> numpy_wanted(), numpy_wanted(convert_to_numpy=True), numpy_wanted(convert_to_tensor=False)
    (False, True, True)
    """
    for name, value in ("convert_to_numpy", convert_to_numpy), ("convert_to_tensor", convert_to_tensor):
        if value is not None:
            flag(name, value)
    if convert_to_tensor is False and convert_to_numpy is False:
        raise ValueError(
            "convert_to_tensor: found False, and convert_to_numpy as well, expected one of them at most. "
            "For a list of tensors pass neither, and take list(vectors)."
        )
    return not convert_to_tensor and bool(convert_to_numpy or convert_to_tensor is False)


def choose_prompt(prompts: Mapping[str, str], default_name: str | None, prompt: str | None, prompt_name: str | None) -> str:
    """The text to put before each sentence.

    Args:
        prompts: the prompts of the model, by name.
        default_name: the default of `prompt_name`.
        prompt: the text itself, which is used even if a name is given.
        prompt_name: one of `prompts`.
    """
    if prompt_name is not None and not isinstance(prompt_name, str):
        raise TypeError(f"prompt_name: found {type(prompt_name).__name__}, expected a str or None.")
    if prompt is not None:
        if prompt_name is not None:
            warn(f"prompt_name: {prompt_name!r} is not used, because a prompt is given too. Give one of the two.")
        return check_text(prompt, "prompt")
    argument = "prompt_name"
    if prompt_name is None:
        argument, prompt_name = "default_prompt_name", default_name
    if prompt_name is None:
        return ""
    if prompt_name not in prompts:
        known = ", ".join(map(repr, prompts))
        raise ValueError(f"{argument}: found {prompt_name!r}, expected one of the prompts of this model: {known}.")
    return check_text(prompts[prompt_name], f"prompts[{prompt_name!r}]")


def document_prompt(model: str, prompts: Mapping[str, str]) -> str | None:
    """The first of "document", "passage" and "corpus" that names a prompt, as in sentence-transformers."""
    names = [name for name in ("document", "passage", "corpus") if name in prompts]
    ignored = [name for name in names[1:] if prompts[name]]
    if names and not prompts[names[0]] and ignored:
        warn(
            f"encode_document: {model} has a prompt {ignored[0]!r}, but its {names[0]!r} comes first and is empty. Nothing is put "
            f"before the texts, as in sentence-transformers; pass prompt_name={ignored[0]!r} to have it."
        )
    return names[0] if names else None


@dataclass(frozen=True)
class Options:
    """The checked options of `encode`, with defaults applied.

    Attributes:
        prompt: the text to put before each sentence.
        prompt_tokens: the number of tokens at the start that the pooling leaves out, because they belong to the prompt.
        batch_size: the most sentences in one batch; None: no limit.
        batch_tokens: the most tokens in one batch; None: what suits the device.
        show_progress_bar: None: on a terminal, if there is more than one batch.
        of_tokens: whether to return token embeddings instead of sentence embeddings.
        normalize: whether to scale each vector to length 1.
        dimension: how many dimensions of each vector to keep.
        convert_to_numpy: whether to return arrays instead of tensors.
        on_truncate: "warn", "error" or "ignore".
    """

    prompt: str
    prompt_tokens: int
    batch_size: int | None
    batch_tokens: int | None
    show_progress_bar: bool | None
    of_tokens: bool
    normalize: bool
    dimension: int
    convert_to_numpy: bool
    on_truncate: str


def read_options(
    function: str,
    *,
    prompt: str,
    prompt_tokens: int,
    truncate_dim: int | None,
    dimension: int,
    batch_size: int | None = None,
    batch_tokens: int | None = None,
    show_progress_bar: bool | None = None,
    normalize_embeddings: bool = False,
    convert_to_numpy: bool | None = None,
    convert_to_tensor: bool | None = None,
    on_truncate: str = "warn",
    output_value: str = "sentence_embedding",
    **unknown: object,
) -> Options:
    """Checks the options of a call of `function`. `truncate_dim` was checked before; if it is None, `dimension` is used."""
    if function == "encode_stream" and output_value != "sentence_embedding":
        unknown["output_value"] = output_value
    if unknown:
        raise unknown_option(function, unknown)
    as_numpy = numpy_wanted(convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor)
    choice("on_truncate", on_truncate, ("warn", "error", "ignore"))
    choice("output_value", output_value, ("sentence_embedding", "token_embeddings"))
    of_tokens = output_value == "token_embeddings"
    if flag("normalize_embeddings", normalize_embeddings) and of_tokens:
        raise ValueError("normalize_embeddings: found True, expected False with token_embeddings, which are not pooled yet.")
    if truncate_dim is not None and of_tokens:
        raise ValueError(f"truncate_dim: found {truncate_dim}, expected None with token_embeddings, which are not pooled yet.")
    if as_numpy:
        imported("numpy", "numpy", "convert_to_numpy: ", ", or take the tensors")  # torch uses it
    return Options(
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        batch_size=None if batch_size is None else count("batch_size", batch_size),
        batch_tokens=None if batch_tokens is None else count("batch_tokens", batch_tokens),
        show_progress_bar=None if show_progress_bar is None else flag("show_progress_bar", show_progress_bar),
        of_tokens=of_tokens,
        normalize=normalize_embeddings,
        dimension=dimension if truncate_dim is None else truncate_dim,
        convert_to_numpy=as_numpy,
        on_truncate=on_truncate,
    )


_ON_LOADING_DEVICE = "The device is chosen on loading, such as minisbert.load(name, device='cuda')."
_ON_LOADING_DTYPE = "The precision is chosen on loading, such as minisbert.load(name, dtype=torch.float16)."
_AS_ATTRIBUTE = "It is an attribute of the encoder, to be set after loading."
_BY_THREADS = "encode uses all cores, and many threads can share one encoder; make one encoder for each further device."
_BY_FIT = "It is a function: from minisbert.train import fit; fit(encoder, examples, loss=…)."
_NO_MODULES = "The parts are encoder.tokenizer, encoder.bert, encoder.pooling and encoder.modules."
_NO_ADAPTERS = "Merge the adapter into the weights with peft, save the model, and load the result here."
_NO_MODEL_CARD = "encoder.save writes no README.md, and keeps the one that is there."
_BERT_ONLY = "minisbert computes BERT in PyTorch, from texts, and runs no code that comes with a checkpoint."

_ENCODE = {
    "device": _ON_LOADING_DEVICE,
    "pool": _BY_THREADS,
    "chunk_size": _BY_THREADS,
    "precision": "Vectors are not quantized here; numpy.packbits(vectors > 0, axis=-1) is what 'ubinary' gives.",
    "task": "encode_query and encode_document put the checkpoint's prompts before the texts.",
    "processing_kwargs": "The limit of the tokens can be set: encoder.max_seq_length.",
}
OPTIONS: dict[str, dict[str, str]] = {
    "load": {
        "model_name_or_path": "It is called model.",
        "cache_folder": "It is called cache_dir.",
        "use_auth_token": "It is called token.",
        "prompts": _AS_ATTRIBUTE,
        "default_prompt_name": _AS_ATTRIBUTE,
        "similarity_fn_name": _AS_ATTRIBUTE,
        "model_kwargs": "The precision is an option of its own, such as dtype=torch.float16; there is one kind of attention.",
        "modules": _NO_MODULES,
        "processor_kwargs": "The tokenizer's settings are the checkpoint's; the limit can be set: encoder.max_seq_length.",
        "config_kwargs": "The settings are those of the checkpoint.",
        "trust_remote_code": _BERT_ONLY,
        "backend": _BERT_ONLY,
        "model_card_data": _NO_MODEL_CARD,
    },
    "encode": _ENCODE,
    "encode_stream": _ENCODE,
}
"""Options of sentence-transformers' constructor and `encode` that `load` and `encode` lack, and what to do instead."""

_TOGETHER: dict[tuple[str, ...], str] = {
    ("get_embedding_dimension", "get_sentence_embedding_dimension"): "Take encoder.dimension.",
    ("get_max_seq_length",): "Take encoder.max_seq_length.",
    ("tokenize", "preprocess", "get_sentence_features", "processor"): (
        "Take encoder.tokenizer(texts).ids, or encoder.count_tokens(texts)."
    ),
    ("truncate_embeddings", "truncate_sentence_embeddings"): "Pass truncate_dim, or set encoder.truncate_dim.",
    ("set_pooling_include_prompt",): "It is the checkpoint that says so; encoder.pooling.include_prompt can be set.",
    ("save_pretrained",): "Take encoder.save(folder).",
    ("push_to_hub", "save_to_hub"): "Take encoder.save(folder), then huggingface_hub.upload_folder.",
    ("start_multi_process_pool", "stop_multi_process_pool", "encode_multi_process"): _BY_THREADS,
    ("load",): "Take minisbert.load(name).",
    ("to", "cpu", "cuda"): _ON_LOADING_DEVICE,
    ("half", "bfloat16", "float", "double"): _ON_LOADING_DTYPE,
    ("eval",): "Leave it out: a loaded encoder is in eval mode, and is again after training.",
    ("train", "training", "fit", "old_fit", "smart_batching_collate", "gradient_checkpointing_enable"): _BY_FIT,
    ("evaluate",): "Take scripts/evaluate_sts.py, or mteb with the adapter in scripts/integrations.md.",
    ("parameters", "named_parameters", "state_dict"): "Take those of encoder.bert, and of encoder.modules if there are any.",
    ("children", "forward", "append", "insert", "extend", "pop", "transformers_model", "get_model_kwargs"): _NO_MODULES,
    ("compile",): "There is nothing to compile: encode has its own fast path.",
    (
        *("load_adapter", "add_adapter", "set_adapter", "delete_adapter", "enable_adapters", "disable_adapters", "active_adapter"),
        *("active_adapters", "get_adapter_state_dict", "has_peft_compatible_model", "check_peft_compatible_model", "merge"),
    ): _NO_ADAPTERS,
    ("backend", "get_backend", "modalities", "supports", "is_singular_input", "trust_remote_code"): _BERT_ONLY,
    ("model_card_data",): _NO_MODEL_CARD,
}

ATTRIBUTES = {name: advice for names, advice in _TOGETHER.items() for name in names}
"""Methods and attributes of sentence-transformers' model that `SentenceEncoder` lacks, and what to do instead."""


def unknown_option(function: str, names: Iterable[str]) -> TypeError:
    """The error for an unknown option: Python's usual message, and for an option of sentence-transformers what to do instead.

    >>> print(unknown_option("load", ["cache_folder"]))
    load() got an unexpected keyword argument 'cache_folder'. It is called cache_dir.
    """
    name = next(iter(names))
    advice = OPTIONS[function].get(name)
    return TypeError(f"{function}() got an unexpected keyword argument {name!r}" + (f". {advice}" if advice else ""))
