"""The largest differencing method: cardinalities, bounds, and the best there is on small cases."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer_queue.samplers.karmarkar_karp import balanced_split, exchanged, karmarkar_karp, largest_sum


def best_largest_sum(numbers: list[int], k: int) -> int:
    """By trying every way to deal the numbers into k sets of equal size."""
    size = len(numbers) // k
    places = set(range(len(numbers)))

    def least(left: frozenset[int]) -> int:
        if not left:
            return 0
        first = min(left)
        return min(
            max(sum(numbers[i] for i in (first, *others)), least(left - {first, *others}))
            for others in itertools.combinations(sorted(left - {first}), size - 1)
        )

    return least(frozenset(places))


@settings(max_examples=3000, deadline=None)
@given(st.data())
def test_a_balanced_split_has_equal_cardinalities_and_is_never_worse_than_the_list_in_pieces(
    data: st.DataObject,
) -> None:
    k, size = data.draw(st.integers(1, 6), "k"), data.draw(st.integers(1, 8), "size")
    number = st.integers(0, 50) | st.integers(0, 10**6) | st.floats(0, 1e6)
    numbers = data.draw(st.lists(number, min_size=k * size, max_size=k * size), "numbers")
    sets = balanced_split(numbers, k)
    pieces = [list(range(i * size, (i + 1) * size)) for i in range(k)]

    assert [len(each) for each in sets] == [size] * k
    assert sorted(itertools.chain(*sets)) == list(range(k * size))
    assert largest_sum(numbers, sets) <= largest_sum(numbers, pieces)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(1, 6))
def test_the_method_places_every_number_once_and_keeps_the_bound_of_its_difference(numbers: list[int], k: int) -> None:
    sets = karmarkar_karp(numbers, k)
    sums = [sum(numbers[place] for place in each) for each in sets]

    assert sorted(itertools.chain(*sets)) == list(range(len(numbers)))
    assert max(sums) - min(sums) <= max(numbers)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_equal_sizes_keep_the_bound_of_the_difference_too(data: st.DataObject) -> None:
    k, size = data.draw(st.integers(1, 5), "k"), data.draw(st.integers(1, 8), "size")
    numbers = data.draw(st.lists(st.integers(0, 10**6), min_size=k * size, max_size=k * size), "numbers")
    sums = [sum(numbers[place] for place in each) for each in karmarkar_karp(numbers, k, equal_size=True)]

    assert max(sums) - min(sums) <= max(numbers) - min(numbers)


def test_on_tiny_cases_it_is_near_the_best_there_is() -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for k, size in ((2, 2), (2, 3), (2, 4), (3, 2), (4, 2), (3, 3)):
        for _ in range(60):
            numbers = rng.integers(1, 1000, k * size).tolist()
            ratios.append(largest_sum(numbers, balanced_split(numbers, k)) / best_largest_sum(numbers, k))

    assert min(ratios) >= 1
    assert np.mean(np.array(ratios) == 1) > 0.5
    assert max(ratios) < 1.2


def test_two_a_set_is_solved_exactly() -> None:
    """The largest with the smallest, and so on, is the best there is."""
    rng = np.random.default_rng(1)
    for k in (2, 3, 4):
        for _ in range(50):
            numbers = rng.integers(1, 100, 2 * k).tolist()

            assert largest_sum(numbers, balanced_split(numbers, k)) == best_largest_sum(numbers, k)


def test_log_normal_lengths_come_out_nearly_equal() -> None:
    rng = np.random.default_rng(2)
    ours, in_order = [], []
    for _ in range(50):
        lengths = np.ceil(rng.lognormal(6, 1, 128)).tolist()
        pieces = [list(range(i * 16, (i + 1) * 16)) for i in range(8)]
        mean = sum(lengths) / 8
        ours.append(largest_sum(lengths, balanced_split(lengths, 8)) / mean)
        in_order.append(largest_sum(lengths, pieces) / mean)

    assert np.median(ours) < 1.002
    assert np.median(in_order) > 1.3


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_exchanges_never_make_the_heaviest_set_heavier(data: st.DataObject) -> None:
    k, size = data.draw(st.integers(1, 5), "k"), data.draw(st.integers(1, 6), "size")
    numbers = data.draw(st.lists(st.integers(0, 10**6), min_size=k * size, max_size=k * size), "numbers")
    before = karmarkar_karp(numbers, k, equal_size=True)
    after = exchanged(numbers, before)

    assert sorted(itertools.chain(*after)) == list(range(k * size))
    assert [len(each) for each in after] == [size] * k
    assert largest_sum(numbers, after) <= largest_sum(numbers, before)


def test_equal_numbers_give_the_same_sets_every_time_and_nonsense_is_refused() -> None:
    assert karmarkar_karp([1, 1, 1, 1], 2, equal_size=True) == karmarkar_karp([1, 1, 1, 1], 2, equal_size=True)
    assert karmarkar_karp([], 3) == [[], [], []]
    with pytest.raises(ValueError, match="5 numbers do not go into 2 sets of equal size"):
        karmarkar_karp([1] * 5, 2, equal_size=True)
    with pytest.raises(ValueError, match="k=0"):
        karmarkar_karp([1], 0)
