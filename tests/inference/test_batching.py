"""The plan: small ones written down by hand, and what holds for all of them."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minisbert.inference.batching import (
    LEAST_TOKENS,
    MOST_TOKENS,
    Batch,
    balanced_batches,
    bucket_size,
    length_groups,
    pack,
    padding_tokens,
    plan,
)


def batches(lengths: list[int], batch_tokens: int, batch_size: int | None = None) -> list[tuple[tuple[int, ...], tuple]]:
    return [(batch.indices, batch.groups) for batch in plan(lengths, batch_tokens, batch_size)]


def check_plan(packed: list[Batch], lengths: list[int], most: int, batch_size: int | None) -> None:
    """Checks what holds for every plan with these limits of tokens and sentences in a batch."""
    order = [index for batch in packed for index in batch.indices]

    assert sorted(order) == list(range(len(lengths))), "every sentence once"
    assert order == sorted(order, key=lambda index: (-lengths[index], index)), "longest first, ties in the caller's order"
    for batch in packed:
        assert batch.indices, "no batch is empty"
        assert batch.tokens == sum(lengths[index] for index in batch.indices)
        assert batch.tokens <= most or len(batch.indices) == 1, "within the budget, but for one that is longer by itself"
        assert batch_size is None or len(batch.indices) <= batch_size
        assert [length for sentences, length in batch.groups for _ in range(sentences)] == [
            lengths[index] for index in batch.indices
        ]
        assert len({length for _, length in batch.groups}) == len(batch.groups), "equal lengths are one group"
        assert list(batch.groups) == list(length_groups([lengths[index] for index in batch.indices]))


@pytest.mark.parametrize(
    ("lengths", "batch_tokens", "batch_size", "expected"),
    [
        ([], 4, None, []),
        ([3], 4, None, [((0,), ((1, 3),))]),
        ([3, 1, 2], 4, None, [((0,), ((1, 3),)), ((2, 1), ((1, 2), (1, 1)))]),
        ([3, 1, 2], 6, None, [((0, 2, 1), ((1, 3), (1, 2), (1, 1)))]),  # exactly full
        ([3, 1, 2], 5, None, [((0, 2), ((1, 3), (1, 2))), ((1,), ((1, 1),))]),
        ([2, 2, 2, 2, 2], 4, None, [((0, 1), ((2, 2),)), ((2, 3), ((2, 2),)), ((4,), ((1, 2),))]),  # ties keep their order
        ([1, 2, 1, 2], 100, None, [((1, 3, 0, 2), ((2, 2), (2, 1)))]),
        ([9, 1, 9, 1], 4, None, [((0,), ((1, 9),)), ((2,), ((1, 9),)), ((1, 3), ((2, 1),))]),  # longer than the budget
        ([3, 1, 2], 100, 2, [((0, 2), ((1, 3), (1, 2))), ((1,), ((1, 1),))]),
        ([3, 1, 2], 100, 1, [((0,), ((1, 3),)), ((2,), ((1, 2),)), ((1,), ((1, 1),))]),
        ([3, 1, 2], 100, 3, [((0, 2, 1), ((1, 3), (1, 2), (1, 1)))]),
        ([3, 1, 2], 1, 100, [((0,), ((1, 3),)), ((2,), ((1, 2),)), ((1,), ((1, 1),))]),
    ],
)
def test_a_small_plan_is_the_one_written_down(
    lengths: list[int], batch_tokens: int, batch_size: int | None, expected: list[tuple[tuple[int, ...], tuple]]
) -> None:
    assert batches(lengths, batch_tokens, batch_size) == expected


@given(
    lengths=st.lists(st.integers(1, 40), max_size=60),
    batch_tokens=st.integers(1, 120),
    batch_size=st.none() | st.integers(1, 9),
)
@example(lengths=[40] * 9, batch_tokens=1, batch_size=None)
@settings(max_examples=300, deadline=None)
def test_whatever_the_lengths(lengths: list[int], batch_tokens: int, batch_size: int | None) -> None:
    packed = plan(lengths, batch_tokens, batch_size)
    check_plan(packed, lengths, batch_tokens, batch_size)
    for batch, following in pairwise(packed):
        full = batch.tokens + lengths[following.indices[0]] > batch_tokens or len(batch.indices) == batch_size
        assert full, "no batch is closed before it must be"
    assert plan(lengths, batch_tokens, batch_size) == packed, "the same again"


@given(lengths=st.lists(st.integers(1, 5), max_size=20))
@settings(max_examples=100, deadline=None)
def test_length_groups_hold_neighbours_of_equal_length(lengths: list[int]) -> None:
    groups = length_groups(lengths)
    assert [length for sentences, length in groups for _ in range(sentences)] == lengths
    assert [length for _, length in groups] == [length for length, _ in groupby(lengths)]
    assert all(sentences > 0 for sentences, _ in groups)


def test_a_plan_leaves_the_list_of_lengths_alone() -> None:
    lengths = [1, 3, 2]
    plan(lengths, 3)
    assert lengths == [1, 3, 2]


def test_a_batch_knows_what_it_costs_and_cannot_be_changed() -> None:
    batch = Batch((4, 7, 1), ((2, 5), (1, 3)))
    assert batch.tokens == 13
    with pytest.raises(AttributeError):
        batch.indices = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("tokens", "padding"),
    [
        (1, 7),
        (8, 0),
        (9, 3),
        (16, 0),
        (17, 3),
        (33, 7),
        (65, 15),
        (128, 0),
        (129, 15),
        (250, 6),
        (257, 15),
        (512, 0),
        (513, 31),
        (1500, 36),
    ],
)
def test_padding_tokens_fill_a_batch_up_to_the_next_of_a_few_sizes(tokens: int, padding: int) -> None:
    assert padding_tokens(tokens) == padding


@pytest.mark.parametrize(
    ("lengths", "threads", "tokens"),
    [
        ([], 2, []),
        ([7], 2, [7]),
        ([10] * 25, 2, [250]),  # two batches would have fewer than 128 tokens each
        ([10] * 26, 2, [130, 130]),
        ([10] * 25, 1, [250]),
        ([10] * 26, 1, [110, 150]),  # one after the other: 110 and 2 padding tokens, not 130 and 14
        ([7] * 48, 1, [126, 210]),  # not 140, 196: with 126 tokens, three quarters of a share of 168, it needs the fewest
        ([16] * 32, 2, [256, 256]),
        ([16] * 33, 2, [128, 128, 144, 128]),  # not 256, 256 and 16; 132 is between 8 and 9 sentences
        ([16] * 32, 4, [128] * 4),
        ([15] * 64, 2, [240] * 4),
        ([15] * 60, 2, [225] * 4),
        ([300, 200, 10, 10], 2, [300, 200, 20]),  # a sentence that is longer than any batch is one
        ([300, 300, 300], 2, [300, 300, 300]),
        ([200] * 4, 2, [200] * 4),
        ([150, 20, 20, 20, 20, 20], 2, [250]),
        ([150] * 3, 1, [150] * 3),  # 300 are more than a batch holds
        ([100] * 2, 2, [200]),
        ([200] * 2 + [10], 3, [200, 200, 10]),  # 410 tokens are one round for three threads
        ([200] * 2 + [20] * 3, 2, [200, 200, 60]),  # not 240: of what is left, a part is a share
        ([250] * 2 + [20] * 4, 2, [250, 250, 80]),  # less than 128 is not split,
        ([300] + [20] * 5, 3, [300, 100]),  # nor is it for a thread that would be idle
    ],
)
def test_small_balanced_batches_are_those_written_down(lengths: list[int], threads: int, tokens: list[int]) -> None:
    assert [batch.tokens for batch in balanced_batches(lengths, threads)] == tokens


def test_a_batch_of_an_even_plan_has_no_more_sentences_than_allowed() -> None:
    assert [batch.tokens for batch in balanced_batches([10] * 5, 2, batch_size=2)] == [20, 20, 10]


@given(
    lengths=st.lists(st.integers(1, 300), max_size=200),
    threads=st.integers(1, 9),
    batch_size=st.none() | st.integers(1, 9),
)
@example(lengths=[14] * 200, threads=2, batch_size=None)
@settings(max_examples=300, deadline=None)
def test_balanced_batches_of_any_lengths(lengths: list[int], threads: int, batch_size: int | None) -> None:
    packed = balanced_batches(lengths, threads, batch_size)
    check_plan(packed, lengths, MOST_TOKENS, batch_size)
    assert balanced_batches(lengths, threads, batch_size) == packed, "the same again"


@given(lengths=st.lists(st.integers(3, 40), min_size=1, max_size=400), threads=st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_balanced_batches_give_each_thread_about_as_many_tokens(lengths: list[int], threads: int) -> None:
    tokens = [batch.tokens for batch in balanced_batches(lengths, threads)]
    busy = [0] * threads
    for cost in tokens:  # each batch goes to the thread that is free first
        busy[busy.index(min(busy))] += cost
    if sum(tokens) < threads * LEAST_TOKENS:
        assert len(tokens) == max(1, sum(tokens) // LEAST_TOKENS), "less is not worth a thread of its own"
    else:
        assert max(busy) - min(busy) <= MOST_TOKENS - LEAST_TOKENS + 2 * max(lengths)


def test_balanced_batches_of_many_sentences_need_few_padding_tokens() -> None:
    """About 1 % of padding tokens, where steps of 256 tokens need 2 %."""
    lengths = [5 + 20 * index // 2000 for index in range(2000)]

    def computed(packed: list[Batch]) -> float:
        return sum(bucket_size(batch.tokens) for batch in packed) / sum(lengths)

    assert computed(balanced_batches(lengths, 2)) < 1.01
    assert computed(plan(lengths, MOST_TOKENS)) > 1.015


def test_the_sizes_are_multiples_of_4_few_and_near() -> None:
    sizes = {bucket_size(tokens) for tokens in range(1, 513)}
    assert all(size % 4 == 0 for size in sizes)
    assert len(sizes) == 39
    assert all(tokens <= bucket_size(tokens) < 1.25 * tokens for tokens in range(13, 513))
    assert all(bucket_size(size) == size for size in sizes)
    assert isinstance(bucket_size(1000), int)


def test_a_cpu_gets_balanced_batches_and_a_gpu_larger_ones_unless_the_caller_names_a_size() -> None:
    lengths = [14] * 5000
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for most in None, 3:
        assert pack(lengths, cpu, batch_size=most) == balanced_batches(lengths, torch.get_num_threads(), most)
    assert [batch.tokens for batch in pack(lengths, cuda)] == [32_760, 32_760, 4_480]  # 32,768 is no multiple of 14
    assert pack(lengths, cpu, 500, 7) == pack(lengths, cuda, 500, 7) == plan(lengths, 500, 7)
