"""Tokenizes texts, computes their batches, and writes each vector to its row.

Several batches are computed at the same time, each by a worker thread on one core, instead of one batch after the other on all
cores. Workers do not synchronise between operations, and small operations use all cores too. On 2 cores this gives 8 % more short
sentences per second, and as many of mixed lengths from batches of an eighth of the size. See "Tried and dropped" in
scripts/benchmark/README.md. A single batch is computed on all cores, which reduces the latency of one sentence, if the model has
the same bits there (`same_on_all_cores`). Otherwise a worker computes it on one core.
"""

from __future__ import annotations

from _queue import SimpleQueue
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minisbert.bert import Bert, LengthGroup
from minisbert.errors import NotFiniteError
from minisbert.inference.batching import Batch, length_groups, pack, padding_tokens
from minisbert.inference.inputs import Options
from minisbert.inference.kernels import onednn, product_of, row_multiple
from minisbert.inference.quantization import linear_int8
from minisbert.inference.stream import Progress, TokenRows, TruncationReport, Window, beginning, first_not_finite, in_order, padded
from minisbert.inference.threads import Task, computes, computing, in_default_state, workers
from minisbert.pooling import Dense, Pooling, vector_dtype_of
from minisbert.tokenizer import TextTokenizer

Forward = Callable[[Tensor, Sequence[LengthGroup]], Tensor]
"""[tokens] ids and their length groups → [sentences, dim], one row for each sentence, in the order of the groups."""


class Rows(Protocol):
    """Where results are written: a tensor [sentences, dim], or an object that takes rows as a tensor does."""

    def __setitem__(self, indices: list[int], values: Tensor, /) -> None: ...


def compute(
    forward: Forward,
    ids: Sequence[Sequence[int]],
    batches: Sequence[Batch],
    rows: Rows,
    device: torch.device,
    *,
    check: Callable[[Batch, Tensor], None] | None = None,
    alone_on_all_cores: bool = False,
    multiple: int = 1,
) -> Generator[Batch, None, None]:
    """Computes all batches into `rows`, and yields each batch when it is done, in any order.

    If the caller stops early, or a batch fails, the batches that have not begun are dropped.

    Args:
        forward: the model; called by several threads at once.
        ids: the token ids of each sentence.
        batches: from `batching.plan` or `batching.balanced_batches`.
        rows: [sentences, dim], on the CPU, written here.
        device: the device of the model.
        check: called with each batch and its vectors, by the thread that computed them. Its errors are raised here.
        alone_on_all_cores: whether a single batch is computed by the calling thread, on all cores.
        multiple: the number of tokens of a padded batch is a multiple of this; see `kernels.row_multiple`.
    """

    def run(batch: Batch) -> Batch:
        pieces = [piece for index in batch.indices for piece in ids[index]]
        padding = padding_tokens(len(pieces), multiple)
        packed = torch.tensor(pieces + pieces[:1] * padding, device=device)  # [tokens]
        # Only the model runs in inference mode: a caller may train something on top of the rows.
        with torch.inference_mode():
            vectors = forward(packed, batch.groups).cpu()
        # Workers check, and not the caller of this generator. After a small operation on all cores, OpenMP's threads spin for 6 ms
        # on the cores that the workers need, which cost an eighth of the speed (see scripts/benchmark/README.md).
        if check is not None:
            check(batch, vectors)
        rows[list(batch.indices)] = vectors
        return batch

    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or (alone_on_all_cores and len(batches) == 1):
        yield from map(run, batches)
        return
    pool = workers(threads)
    done: SimpleQueue[Task[Batch]] = SimpleQueue()
    tasks = [Task(partial(run, batch), done) for batch in batches]
    try:
        for task in tasks:
            pool.submit(task)
        for _ in tasks:
            yield done.get().result()
    finally:
        Task.drop(tasks)  # nothing writes into the rows after this


def tokenize(tokenizer: TextTokenizer, texts: list[str], report: TruncationReport, options: Options) -> Window:
    """Tokenizes a window of texts, equal texts once, and reports texts that are too long.

    Raises:
        ValueError: if a text has no tokens, or is too long and `on_truncate` is "error".
    """
    unique = list(dict.fromkeys(texts))
    start = report.texts
    with computing():
        tokenized = tokenizer([options.prompt + text for text in unique] if options.prompt else unique)
    if [] in tokenized.ids:
        text = unique[tokenized.ids.index([])]
        raise ValueError(
            f"sentences[{start + texts.index(text)}], {beginning(text)}: found no tokens, expected at least one. The "
            "tokenizer of this model adds no special tokens to a text. Leave such texts out."
        )
    report.add(texts, unique, tokenized)
    if report.cut and options.on_truncate == "error":
        raise ValueError(report.message(""))
    return Window(texts, unique, tokenized.ids, start)


def count_prompt_tokens(tokenizer: TextTokenizer, pooling: Pooling, prompt: str) -> int:
    """How many tokens at the start of each sentence the pooling leaves out, because they belong to the prompt.

    As in sentence-transformers, the prompt is tokenized alone, and its [SEP] does not count. The count is 0 if the checkpoint sets
    `include_prompt`, as most do.
    """
    if not prompt or pooling.include_prompt:
        return 0
    return len(computes(tokenizer)([prompt]).ids[0]) - bool(tokenizer.suffix)


def embed(bert: Bert, pooling: Pooling, modules: nn.Sequential, window: Window, options: Options, progress: Progress) -> Any:
    """The vectors of a window of texts, in its order: [texts, dim], or for token embeddings a list of [tokens, hidden]."""
    # Sentence vectors: `forward` as a whole is retried in halves, so that each half keeps vectors of sentences, not of tokens.
    model = with_oom_retry(bert.forward_packed) if options.of_tokens else bert.forward_packed
    dtype = vector_dtype_of(bert.dtype)
    rows: Tensor | TokenRows = TokenRows(window.ids)
    if not options.of_tokens:
        # [sentences, dim]
        rows = in_default_state(lambda: torch.empty(len(window.ids), options.dimension, dtype=dtype))

    def forward(packed: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        with computing():
            token_vectors = model(packed, groups).to(dtype)  # [tokens, hidden]
            if options.of_tokens:
                return padded(token_vectors, groups)  # [sentences, longest, hidden]
            pooled = pooling(token_vectors, groups, options.prompt_tokens)  # [sentences, hidden × modes]
            vectors = finish(modules, pooled, options.dimension)  # [sentences, dim]
            return F.normalize(vectors, dim=1) if options.normalize else vectors

    batches = pack([len(ids) for ids in window.ids], bert.device, options.batch_tokens, options.batch_size)
    progress.start(len(batches))
    progress.update(len(window.texts) - len(window.unique), 0)  # texts that occur again
    computed = compute(
        forward if options.of_tokens else with_oom_retry(forward),
        window.ids,
        batches,
        rows,
        bert.device,
        check=partial(_check_finite, window, bert.dtype),
        alone_on_all_cores=len(batches) == 1 and same_on_all_cores(bert),
        multiple=row_multiple(bert.config.hidden_size, bert.config.intermediate_size),
    )
    with closing(computed):
        while (batch := in_default_state(lambda: next(computed, None))) is not None:
            progress.update(len(batch.indices), batch.tokens)
    return in_default_state(lambda: in_order(rows, window, as_numpy=options.convert_to_numpy))


def finish(modules: nn.Sequential, pooled: Tensor, dimension: int | None = None) -> Tensor:
    """Applies the post-pooling modules, then keeps the first `dimension` values: [sentences, hidden × modes] → [sentences, dim].

    The rows are padded like the tokens of a batch, so that the bits of a row do not depend on the other rows; see `bucket_size`.
    """
    sentences = len(pooled)
    if len(modules):
        multiple = row_multiple(pooled.shape[1], *(module.linear.out_features for module in modules if isinstance(module, Dense)))
        pooled = modules(F.pad(pooled, (0, 0, 0, padding_tokens(sentences, multiple))))[:sentences]
    return pooled[:, :dimension]


def same_on_all_cores(bert: Bert) -> bool:
    """Whether a batch has the same bits on one core and on all of them."""
    # oneDNN's products have the same bits. Attention differed with heads of 8 dimensions, and with a single head; not with 16, 24,
    # 32 or 64 dimensions and 2 heads or more, at any length up to 512 (tests/inference/test_bits.py tests all-MiniLM-L6-v2).
    # Several cores may split a tensor anywhere, and gelu_new and silu round differently at a split; see `kernels.VECTOR`.
    config = bert.config
    rounds_alike = config.hidden_act in ("gelu", "relu") and config.num_attention_heads > 1 and config.head_dim >= 16
    return product_of(bert) in (onednn, linear_int8) and rounds_alike


def _check_finite(window: Window, dtype: torch.dtype, batch: Batch, vectors: Tensor) -> None:
    bad = first_not_finite(vectors, batch)
    if bad is not None:
        text = window.unique[bad]
        half = dtype in (torch.float16, torch.bfloat16)
        remedy = "Load with dtype=torch.float32" if half else "Load an unchanged copy of the checkpoint"
        raise NotFiniteError(
            f"sentences[{window.start + window.texts.index(text)}], {beginning(text)}: its vector has NaN or infinite values, "
            f"expected finite ones. The weights hold such values, or ones so large that {dtype} overflows. {remedy}."
        )


def with_oom_retry(forward: Forward) -> Forward:
    """Wraps a model: if a batch exceeds the accelerator's memory, its two halves are computed in turn, and so on.

    Args:
        forward: [tokens] ids and their length groups → [tokens, hidden], or [sentences, dim].

    Raises:
        torch.OutOfMemoryError: if a single sentence exceeds the memory.
    """

    def forward_in_parts(packed: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        try:
            return forward(packed, groups)
        except torch.cuda.OutOfMemoryError as error:
            reason = str(error)
        # Outside the except block, because the error's traceback would keep the tensors computed so far in memory.
        lengths = [length for sentences, length in groups for _ in range(sentences)]
        if len(lengths) == 1:
            raise torch.cuda.OutOfMemoryError(
                f"one sentence of {lengths[0]} tokens, alone, does not fit the memory of {packed.device}. Free memory there, set a "
                f"lower max_seq_length, load with dtype=torch.float16, or use device='cpu'. ({reason})"
            )
        if packed.is_cuda:
            torch.cuda.empty_cache()
        half = len(lengths) // 2
        tokens = sum(lengths[:half])
        parts = (packed[:tokens], lengths[:half]), (packed[tokens:], lengths[half:])
        return torch.cat([forward_in_parts(part, length_groups(its_lengths)) for part, its_lengths in parts])

    return forward_in_parts
