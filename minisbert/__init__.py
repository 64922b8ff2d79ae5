"""Sentence-BERT from scratch in pure PyTorch: sentences in, vectors out, whose cosine says how close their meanings are.

>>> import minisbert
>>> encoder = minisbert.load("all-MiniLM-L6-v2")  # a folder, a name on the hub, or a model that an installed package has
>>> vectors = encoder.encode(["A man is eating food.", "Someone is having a meal.", "A plane takes off."])  # [3, 384]
>>> minisbert.similarity(vectors, vectors)[0]
tensor([1.0000, 0.6888, 0.0425])
>>> minisbert.semantic_search(encoder.encode_query("What do people eat?"), vectors, top_k=1)[0][0]["corpus_id"]
1

    load, encode                         a model by its name; vectors of texts, from a model that is loaded once and kept
    similarity, semantic_search,         what vectors are used for; minisbert.util has more
    paraphrase_mining, community_detection
    trace                                what happens to a sentence inside the model, as tensors and as a page
    SentenceEncoder                      what `load` returns; its parts are a TextTokenizer, a Bert and a pooling
    mean_pooling                         the function of this name in the model cards of the hub
    minisbert.train, minisbert.corpus    training, and corpora of any size
    MinisbertError                       the base of the errors

On a command line: `minisbert --help`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from minisbert.checkpoint.cache import absolute, local_folder
from minisbert.errors import (
    CheckpointError,
    MinisbertError,
    MinisbertWarning,
    MissingExtraError,
    ModelNotFoundError,
    NotFiniteError,
    warn,
)
from minisbert.inference.inputs import unknown_option

if TYPE_CHECKING:
    import torch

    from minisbert.bert import Bert
    from minisbert.encoder import SentenceEncoder
    from minisbert.pooling import mean_pooling
    from minisbert.tokenizer import TextTokenizer
    from minisbert.tracing import Trace
    from minisbert.util import community_detection, paraphrase_mining, semantic_search, similarity

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_MODEL",
    "Bert",
    "CheckpointError",
    "MinisbertError",
    "MinisbertWarning",
    "MissingExtraError",
    "ModelNotFoundError",
    "NotFiniteError",
    "SentenceEncoder",
    "TextTokenizer",
    "community_detection",
    "encode",
    "load",
    "mean_pooling",
    "paraphrase_mining",
    "semantic_search",
    "similarity",
    "trace",
]

_NOT_HERE = {
    "SentenceTransformer": "Take encoder = minisbert.load(name), which has its encode().",
    "CrossEncoder": "minisbert has no model that scores pairs; compare vectors with minisbert.similarity.",
    "SparseEncoder": "minisbert has no sparse vectors.",
}


_LATER = {
    "Bert": "bert",
    "SentenceEncoder": "encoder",
    "TextTokenizer": "tokenizer",
    "community_detection": "util",
    "mean_pooling": "pooling",
    "paraphrase_mining": "util",
    "semantic_search": "util",
    "similarity": "util",
}
"""Name → the module that defines it. A module, and torch with it, is imported when one of its names is first used. So
`minisbert --help`, and programs that may not need a model, start without torch."""

_MODULES = "bert", "checkpoint", "corpus", "encoder", "inference", "pooling", "tokenizer", "tracing", "train", "util"

# If numpy is missing, torch warns when it is imported. minisbert does not need numpy, so this warning is hidden, and no other.
if "torch" not in sys.modules and importlib.util.find_spec("numpy") is None:
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy", category=UserWarning)


def __getattr__(name: str) -> Any:  # called only for names that are not defined yet
    if name in _LATER:
        value = globals()[name] = getattr(importlib.import_module(f"minisbert.{_LATER[name]}"), name)
        return value
    if name in _MODULES:
        return importlib.import_module(f"minisbert.{name}")
    if name in _NOT_HERE:  # an AttributeError would lose its message in `from minisbert import …`
        raise ImportError(f"minisbert has no {name}. {_NOT_HERE[name]}", name=__name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


DEFAULT_MODEL = "sentence-transformers/bert-base-nli-mean-tokens"

_kept: dict[str, SentenceEncoder] = {}
_loading: dict[tuple[int, str], AbstractContextManager[object]] = {}
"""A lock for each process and model, because a lock that is held during a fork is never released in the new process."""


def load(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    quantize: Literal["int8"] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    truncate_dim: int | None = None,
    **unknown: NoReturn,
) -> SentenceEncoder:
    """Loads a model from the first place that has it: a folder, the hub's cache, an installed package that bundles it, the hub.

    Args:
        model: the path of a folder, `organisation/name`, or a bare name, which means `sentence-transformers/<name>`.
        device: such as "cpu" or "cuda:1". Default: CUDA if it is available, else Apple's MPS, else the CPU; with `quantize` the
            CPU.
        dtype: the precision to compute in. Default: torch.float32, also for checkpoints in half precision.
        quantize: "int8" stores the weights of the linear layers in int8, on a CPU. They take a quarter of the memory, and encoding
            is faster. Vectors differ from those of float32 (cosines of about 0.99 and more, see scripts/benchmark/README.md), and
            still depend on their text only. Such an encoder cannot be trained or saved. Default: None, float weights.
        revision: a branch, tag or commit on the hub. Default: the main branch; if the cache has it, the cached version.
        token: a token for private repositories. Default: that of huggingface_hub.
        cache_dir: the hub's cache. Default: `SENTENCE_TRANSFORMERS_HOME` if it is set, and huggingface_hub's own.
        local_files_only: never ask the hub.
        truncate_dim: keep only this number of dimensions of each vector, the first ones. Default: what the checkpoint says,
            usually all.
        unknown: any other option raises a TypeError, which says what to use instead of an option of sentence-transformers.

    Returns:
        A new encoder at every call.

    Raises:
        ModelNotFoundError: if no place has the model; the message says which were tried.
        CheckpointError: if its files are broken, contradictory, or not supported.
        TypeError: if an option has the wrong type, or does not exist.
        ValueError: if `quantize`, `device` and `dtype` conflict, or the device is not available.
        MinisbertError: if `quantize` is given, and PyTorch has no exact int8 products on this machine.
    """
    if unknown:
        raise unknown_option("load", unknown)
    from minisbert.checkpoint.load import load_checkpoint
    from minisbert.encoder import SentenceEncoder
    from minisbert.inference.graphs import use_graphs
    from minisbert.inference.kernels import align_modules, choose_product
    from minisbert.inference.quantization import check_quantize, quantize_linears
    from minisbert.inference.threads import in_default_state

    check_quantize(quantize, device, dtype)
    device = "cpu" if quantize and device is None else device
    where: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
    checkpoint, source = load_checkpoint(model, device=device, dtype=dtype, token=token, cache_dir=cache_dir, **where)
    in_default_state(lambda: (quantize_linears if quantize else choose_product)(checkpoint.bert))
    use_graphs(checkpoint.bert)
    align_modules(checkpoint.modules)
    # Without the token, because secrets must not be pickled.
    again = str(absolute(source.model)) if source.origin == "a local folder" else source.model
    encoder = SentenceEncoder(checkpoint, reload=partial(load, again, quantize=quantize, cache_dir=source.cache_dir, **where))
    if truncate_dim is not None:
        encoder.truncate_dim = truncate_dim
    for load_warning in checkpoint.warnings:
        warn(f"{source.model}: {load_warning}")
    encoder.load_warnings = (*source.load_warnings, *checkpoint.warnings)
    return encoder


def encode(sentences: str | Iterable[str], model: str | os.PathLike[str] | SentenceEncoder = DEFAULT_MODEL, **options: Any) -> Any:
    """The vector of each sentence, from a model that is loaded at the first call and kept.

    Args:
        sentences: a text, or an ordered collection of texts, such as a list.
        model: as in `load`; or an encoder.
        options: as in `SentenceEncoder.encode`.

    Returns:
        As `SentenceEncoder.encode`: [dim] for a text, [sentences, dim] for a collection; on the CPU, usually float32.
    """
    return _encoder(model).encode(sentences, **options)


def trace(
    a: str,
    b: str | None = None,
    *,
    model: str | os.PathLike[str] | SentenceEncoder = DEFAULT_MODEL,
    corpus: Sequence[str] | None = None,
) -> Trace:
    """Records everything that happens to a sentence inside the model; for two sentences, also why they are similar.

    The sentences are encoded as usual, while hooks record the outputs of the model's parts. Nothing is changed, and other threads
    may use the same encoder meanwhile.

    Args:
        a: a sentence.
        b: another sentence, to compare with.
        model: as in `encode`.
        corpus: texts of which the closest to each sentence are found after each layer.

    Returns:
        A trace `t` with `t.a` and `t.b`, see `tracing.SentenceTrace`. A pair also has `t.cosine`, `t.layer_cosines` [layers + 1]
        and `t.pair_matrix` [tokens of a, tokens of b], whose entries sum to the cosine. `t.save_html(path)` writes a page.

    Raises:
        TypeError: if a sentence or a text of the corpus is not a str.
        ValueError: if the corpus is empty, or a text holds a lone surrogate.

    >>> import minisbert
    >>> t = minisbert.trace("A man is eating food.", "Someone is having a meal.", model="all-MiniLM-L6-v2")
    >>> t.a.tokens
    ['[CLS]', 'a', 'man', 'is', 'eating', 'food', '.', '[SEP]']
    >>> t.a.attention.shape, t.pair_matrix.shape
    (torch.Size([6, 12, 8, 8]), torch.Size([8, 8]))
    >>> print(f"{t.pair_matrix.sum():.6f} {t.cosine:.6f}")
    0.688833 0.688833
    """
    from minisbert import tracing  # imported only when used

    return tracing.trace(_encoder(model), a, b, corpus)


def _encoder(model: str | os.PathLike[str] | SentenceEncoder) -> SentenceEncoder:
    """The encoder itself, or the encoder of this name, which is loaded at the first call and kept."""
    from minisbert.encoder import SentenceEncoder

    if isinstance(model, SentenceEncoder):
        return model
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"model: found {type(model).__name__}, expected a name, the path of a folder, or a SentenceEncoder.")
    folder = local_folder(model)
    # A folder is kept under its full path, because a relative path changes its meaning with the working directory.
    name = os.fspath(model) if folder is None else str(folder.resolve())
    if name not in _kept:
        # A lock, so that two threads load one model, not two. It is made here, because gevent may have replaced Python's lock since
        # the import. It is reentrant, because a signal handler may also encode.
        with _loading.setdefault((os.getpid(), name), threading.RLock()):
            if name not in _kept:
                _kept[name] = load(model)
    return _kept[name]
