"""The plan: small ones written down by hand, and what holds for all of them."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minisbert.batching import LEAST_TOKENS, MOST_TOKENS, Batch, fair_share, filled, plan, runs_of, spare_tokens


def batches(lengths: list[int], batch_tokens: int, batch_size: int | None = None) -> list[tuple[tuple[int, ...], tuple]]:
    return [(batch.order, batch.runs) for batch in plan(lengths, batch_tokens, batch_size)]


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
    order = [index for batch in packed for index in batch.order]

    assert sorted(order) == list(range(len(lengths))), "every sentence once"
    assert order == sorted(order, key=lambda index: (-lengths[index], index)), "longest first, ties in the caller's order"
    for batch in packed:
        assert batch.order, "no batch is empty"
        assert batch.tokens == sum(lengths[index] for index in batch.order)
        assert batch.tokens <= batch_tokens or len(batch.order) == 1, "within the budget, but for one that is longer by itself"
        assert batch_size is None or len(batch.order) <= batch_size
        assert [length for sentences, length in batch.runs for _ in range(sentences)] == [lengths[index] for index in batch.order]
        assert len({length for _, length in batch.runs}) == len(batch.runs), "equal lengths are one run"
    for batch, following in pairwise(packed):
        full = batch.tokens + lengths[following.order[0]] > batch_tokens or len(batch.order) == batch_size
        assert full, "no batch is closed before it must be"
    assert plan(lengths, batch_tokens, batch_size) == packed, "the same again"


@given(lengths=st.lists(st.integers(1, 5), max_size=20))
@settings(max_examples=100, deadline=None)
def test_runs_are_the_stretches_of_equal_length(lengths: list[int]) -> None:
    runs = runs_of(lengths)
    assert [length for sentences, length in runs for _ in range(sentences)] == lengths
    assert [length for _, length in runs] == [length for length, _ in groupby(lengths)]
    assert all(sentences > 0 for sentences, _ in runs)


def test_a_plan_leaves_the_list_of_lengths_alone() -> None:
    lengths = [1, 3, 2]
    plan(lengths, 3)
    assert lengths == [1, 3, 2]


def test_a_batch_knows_what_it_costs_and_cannot_be_changed() -> None:
    batch = Batch((4, 7, 1), ((2, 5), (1, 3)))
    assert batch.tokens == 13
    with pytest.raises(AttributeError):
        batch.order = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("tokens", "spare"),
    [(1, 7), (8, 0), (9, 3), (16, 0), (17, 3), (33, 7), (65, 15), (128, 0), (129, 15), (250, 6), (257, 31), (512, 0), (1500, 36)],
)
def test_the_spare_tokens_fill_up_to_the_next_of_a_few_sizes(tokens: int, spare: int) -> None:
    assert spare_tokens(tokens) == spare


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
def test_a_fair_share_is_an_equal_part_rounded_up_within_its_bounds(threads: int) -> None:
    for share in LEAST_TOKENS, LEAST_TOKENS + 1, MOST_TOKENS - 1, MOST_TOKENS:
        assert fair_share(share * threads, threads) == share
    assert fair_share(LEAST_TOKENS * threads + 1, threads) == LEAST_TOKENS + 1
    assert fair_share(0, threads) == fair_share(1, threads) == LEAST_TOKENS
    assert fair_share(10**9, threads) == MOST_TOKENS


def test_the_sizes_are_multiples_of_4_few_and_near() -> None:
    sizes = {filled(tokens) for tokens in range(1, 513)}
    assert all(size % 4 == 0 for size in sizes)
    assert len(sizes) == 31
    assert all(tokens <= filled(tokens) < 1.25 * tokens for tokens in range(13, 513))
    assert all(filled(size) == size for size in sizes)
