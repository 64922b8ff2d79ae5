"""Running a plan: which rows go where, what the model is given, and what is left when something goes wrong."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest
import torch
from messages import naming
from torch import Tensor

from minisbert.bert import LengthGroup
from minisbert.inference.batching import bucket_size, padding_tokens, plan
from minisbert.inference.engine import compute

CPU = torch.device("cpu")
# Sentences that are told apart by their sums: 1, 2+2, 3+3+3 … in an order that is neither that of the lengths nor its reverse.
LENGTHS = [3, 1, 7, 20, 2, 7, 1, 5, 3, 11]
IDS = [[number + 1] * length for number, length in enumerate(LENGTHS)]
EXPECTED = torch.tensor([[float(sum(ids)), float(len(ids))] for ids in IDS])


def sums(packed: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
    """A model whose vectors can be worked out by hand: the sum of a sentence's ids, and their number. [tokens] → [sentences, 2]"""
    lengths = [length for sentences, length in groups for _ in range(sentences)]
    return torch.stack([torch.stack([ids.sum(), torch.tensor(len(ids))]) for ids in packed[: sum(lengths)].split(lengths)]).float()


def run(forward=sums, batch_tokens: int = 16, batch_size: int | None = None) -> tuple[Tensor, list]:
    rows = torch.full((len(IDS), 2), torch.nan)
    batches = plan(LENGTHS, batch_tokens, batch_size)
    done = list(compute(forward, IDS, batches, rows, CPU))
    assert sorted(done, key=batches.index) == batches, "every batch is reported when it is done"
    return rows, done


@pytest.mark.parametrize("batch_tokens", [1, 7, 16, 60, 1000])
@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_every_row_is_in_its_place_whatever_the_batches(batch_tokens: int, batch_size: int | None) -> None:
    rows, _ = run(batch_tokens=batch_tokens, batch_size=batch_size)
    assert torch.equal(rows, EXPECTED)


def test_the_model_gets_whole_sentences_padded_to_one_of_a_few_sizes() -> None:
    seen: list[tuple[Tensor, Sequence[LengthGroup]]] = []

    def forward(packed: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        seen.append((packed, groups))
        return sums(packed, groups)

    for batch_tokens in 1, 16, 32, 1000:
        seen.clear()
        run(forward, batch_tokens)
        for packed, groups in seen:
            assert len(packed) == bucket_size(len(packed))
            tokens = sum(sentences * length for sentences, length in groups)
            assert len(packed) == tokens + padding_tokens(tokens)
            assert packed.dtype == torch.int64
            assert set(packed.tolist()) <= {number for ids in IDS for number in ids}, "the padding tokens are ids too"


def test_padding_tokens_come_last_and_their_vectors_are_dropped() -> None:
    rows = torch.full((2, 1), torch.nan)

    def forward(packed: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        return torch.arange(sum(sentences for sentences, _ in groups)).float()[:, None]

    assert len(list(compute(forward, [[5, 5], [6]], plan([2, 1], 100), rows, CPU))) == 1
    assert rows.tolist() == [[0.0], [1.0]]


def test_without_texts_the_model_is_not_called() -> None:
    def forward(packed: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        raise AssertionError

    assert list(compute(forward, [], [], torch.empty(0, 2), CPU)) == []


def test_the_model_runs_without_gradients_and_its_rows_can_be_trained_on() -> None:
    weight = torch.ones(2, requires_grad=True)
    modes: list[bool] = []

    def forward(packed: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        modes.append(torch.is_inference_mode_enabled())
        return sums(packed, groups) * weight

    rows, _ = run(forward)
    assert all(modes)
    assert not torch.is_inference_mode_enabled(), "and only the model"
    assert not rows.is_inference()
    assert not rows.requires_grad
    head = torch.ones(2, requires_grad=True)
    (rows @ head).sum().backward()
    assert torch.equal(head.grad, EXPECTED.sum(dim=0))


def test_between_batches_the_caller_is_not_in_inference_mode() -> None:
    rows = torch.empty(len(IDS), 2)
    for _ in compute(sums, IDS, plan(LENGTHS, 16), rows, CPU):
        assert not torch.is_inference_mode_enabled()


def test_an_error_of_the_model_arrives_as_it_is_and_the_next_call_works() -> None:
    def forward(packed: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        raise ArithmeticError("in the model")

    with pytest.raises(ArithmeticError, match="in the model"):
        run(forward)
    assert torch.equal(run()[0], EXPECTED)


def test_a_caller_who_stops_early_has_whole_rows_or_untouched_ones() -> None:
    rows = torch.full((len(IDS), 2), torch.nan)
    computing = compute(sums, IDS, plan(LENGTHS, 16), rows, CPU)
    first = next(computing)
    computing.close()
    assert torch.equal(rows[list(first.indices)], EXPECTED[list(first.indices)])
    untouched = rows.isnan().all(dim=1)
    assert torch.equal(rows[~untouched], EXPECTED[~untouched])


def test_what_has_not_begun_when_the_caller_stops_is_never_computed(two_threads: None) -> None:
    begun: list[int] = []
    closing = threading.Event()

    def forward(packed: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        begun.append(len(packed))
        if len(begun) > 1:
            closing.wait(0.5)
        return sums(packed, groups)

    computing = compute(forward, IDS, plan(LENGTHS, 1), torch.empty(len(IDS), 2), CPU)
    next(computing)
    computing.close()
    closing.set()
    number = len(begun)
    assert 1 <= number <= 4, "the one that was waited for, and what two workers had taken up meanwhile"
    assert torch.equal(run()[0], EXPECTED)
    assert len(begun) == number


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_rows(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(run()[0], EXPECTED)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_each_worker_computes_on_one_core_and_the_others_keep_theirs() -> None:
    """What the threads say themselves: a thread that was told once may fall back to the default at its first question."""
    code = (
        "import torch; from minisbert.inference.threads import workers; torch.set_num_threads(2); pool = workers(2); "
        "print({pool.call(torch.get_num_threads) for _ in range(8)}, torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{1} 2\n"


def test_workers_that_something_has_ended_are_replaced() -> None:
    from minisbert.inference import threads

    before = torch.get_num_threads()
    pool = threads.workers(2)
    assert pool.alive
    assert threads.workers(2) is pool
    pool._alive.pop()  # as a thread does when it ends
    try:
        replaced = threads.workers(2)
        assert replaced is not pool
        assert replaced.call(torch.get_num_threads) == 1
    finally:
        torch.set_num_threads(before)


def test_what_is_no_task_is_refused_and_the_workers_go_on() -> None:
    from minisbert.inference import threads

    before = torch.get_num_threads()
    pool = threads.workers(2)
    try:
        with pytest.raises(TypeError, match=naming("task", "builtin_function_or_method", "Task")):
            pool.submit(torch.get_num_threads)  # type: ignore[arg-type]
        assert pool.call(torch.get_num_threads) == 1
    finally:
        torch.set_num_threads(before)
