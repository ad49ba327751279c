"""The allocator beside an obviously right model: an owner for every byte."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from transfer_queue.errors import ExtentError
from transfer_queue.storage.extents import ALIGNMENT, PAGE, PAGED_FROM, Extents, SortedInts, alignment

SIZES = st.one_of(st.integers(1, 300), st.sampled_from([4096, PAGED_FROM - 1, PAGED_FROM, PAGED_FROM + 1, 100_000]))
SEGMENT_SIZES = st.sampled_from([4096, 70_000, 200_000])
PICK = st.integers(0, 10_000)


class ExtentsMachine(RuleBasedStateMachine):
    extents_class = Extents

    @initialize()
    def begin(self) -> None:
        self.extents = self.extents_class()
        self.owners: dict[int, np.ndarray] = {}
        self.live: list[tuple[int, int, int]] = []
        self.made = 0

    @rule(size=SEGMENT_SIZES)
    def add(self, size: int) -> None:
        if len(self.owners) < 3:
            self.extents.add(self.made, size)
            self.owners[self.made] = np.zeros(size, np.uint8)
            self.made += 1

    @rule(size=SIZES)
    def allocate(self, size: int) -> None:
        found = self.extents.allocate(size)
        if found is None:
            assert not any(self.fits(owners, size) for owners in self.owners.values())
            return
        segment, offset = found
        assert offset % alignment(size) == 0
        self.give(segment, offset, size)

    def fits(self, owners: np.ndarray, size: int) -> bool:
        starts = range(0, len(owners) - size + 1, alignment(size))
        return any(not owners[start : start + size].any() for start in starts)

    def give(self, segment: int, offset: int, size: int) -> None:
        owners = self.owners[segment][offset : offset + size]
        assert len(owners) == size
        assert not owners.any()
        owners[:] = 1
        self.live.append((segment, offset, size))

    @rule(pick=PICK, first=st.floats(0, 1), length=st.floats(0, 1))
    def free_a_part(self, pick: int, first: float, length: float) -> None:
        if not self.live:
            return
        segment, offset, size = self.live.pop(pick % len(self.live))
        skipped = min(int(first * size), size - 1)
        taken = max(1, int(length * (size - skipped)))
        self.take_back(segment, offset + skipped, taken)
        rest = [(segment, offset, skipped), (segment, offset + skipped + taken, size - skipped - taken)]
        self.live += [part for part in rest if part[2]]

    @rule(pick=PICK)
    def free_all_of_one(self, pick: int) -> None:
        if self.live:
            self.take_back(*self.live.pop(pick % len(self.live)))

    def take_back(self, segment: int, offset: int, size: int) -> None:
        self.extents.free(segment, offset, size)
        self.owners[segment][offset : offset + size] = 0

    @rule(segment=st.integers(0, 4), offset=st.integers(-10, 210_000), size=st.integers(-1, 5000))
    def free_what_was_not_allocated(self, segment: int, offset: int, size: int) -> None:
        owners = self.owners.get(segment, np.zeros(0, np.uint8))
        inside = offset >= 0 and size > 0 and offset + size <= len(owners)
        if not inside or not owners[offset : offset + size].all():
            with pytest.raises(ExtentError):
                self.extents.free(segment, offset, size)

    @rule(pick=PICK)
    def remove(self, pick: int) -> None:
        if not self.owners:
            return
        segment = sorted(self.owners)[pick % len(self.owners)]
        if self.owners[segment].any():
            with pytest.raises(ExtentError, match="cannot be removed"):
                self.extents.remove(segment)
        else:
            self.extents.remove(segment)
            del self.owners[segment]

    @rule()
    def everything_that_comes_back_is_one_range_again(self) -> None:
        for part in self.live:
            self.take_back(*part)
        self.live = []
        for segment, owners in self.owners.items():
            assert self.extents.is_free(segment)
            self.give(*self.taken_whole(len(owners)), len(owners))

    def taken_whole(self, size: int) -> tuple[int, int]:
        found = self.extents.allocate(size)
        assert found is not None
        return found

    @invariant()
    def the_sums_are_right(self) -> None:
        if not hasattr(self, "extents"):
            return
        assert self.extents.segments == {segment: len(owners) for segment, owners in self.owners.items()}
        assert self.extents.free_bytes == sum(int((owners == 0).sum()) for owners in self.owners.values())
        assert self.extents.largest == max((longest(owners) for owners in self.owners.values()), default=0)


def longest(owners: np.ndarray) -> int:
    """Length of the longest run of zeros."""
    taken = np.flatnonzero(owners)
    edges = np.concatenate(([-1], taken, [len(owners)]))
    return int(np.diff(edges).max()) - 1


ExtentsMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestExtents = ExtentsMachine.TestCase


class ForgetsToGrowTogether(Extents):
    """An allocator with a fault: a range that comes back just before a free one is not joined with it."""

    def free(self, segment: int, offset: int, size: int) -> None:
        if size > 1:
            super().free(segment, offset, size - 1)
            self.free_bytes += 1
            self._insert((segment << 48) + offset + size - 1, (segment << 48) + offset + size)
        else:
            super().free(segment, offset, size)


def test_an_allocator_that_does_not_coalesce_is_caught() -> None:
    class Mutant(ExtentsMachine):
        extents_class = ForgetsToGrowTogether

    quick = settings(
        max_examples=100, stateful_step_count=30, deadline=None, derandomize=True, phases=[Phase.generate]
    )  # fmt: skip
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Mutant, settings=quick)


def test_the_rows_of_a_batch_may_come_back_one_by_one_in_any_order() -> None:
    extents = Extents()
    extents.add(7, 1 << 20)
    taken = extents.allocate(1000 * 1000)
    assert taken == (7, 0)

    for row in np.random.default_rng(0).permutation(1000):
        extents.free(7, int(row) * 1000, 1000)
    with pytest.raises(ExtentError, match="segment 7: of 1000 bytes at 5000 some are free already: freed twice"):
        extents.free(7, 5000, 1000)
    assert extents.largest == extents.free_bytes == 1 << 20


def test_the_smallest_free_range_is_taken_and_large_ones_start_at_a_page() -> None:
    extents = Extents()
    extents.add(0, 1 << 20)
    assert extents.allocate(100) == (0, 0)
    assert extents.allocate(PAGED_FROM) == (0, PAGE)
    assert extents.allocate(100) == (0, 2 * ALIGNMENT)
    assert extents.allocate(1 << 20) is None
    extents.add(1, PAGED_FROM)
    assert extents.allocate(PAGED_FROM) == (1, 0)


def test_the_one_range_that_lies_well_is_found_among_many_that_do_not() -> None:
    extents = Extents()
    for segment in range(20):
        extents.add(segment, 192)
        assert extents.allocate(192) == (segment, 0)
    for segment in range(19):
        extents.free(segment, 1, 64)
    assert extents.allocate(64) is None
    extents.free(19, 64, 70)
    assert extents.allocate(64) == (19, 64)


@pytest.mark.parametrize(("segment", "size"), [(0, 64), (-1, 64), (1, 0), (1, 1 << 48)])
def test_a_segment_is_added_once_and_has_a_size(segment: int, size: int) -> None:
    extents = Extents()
    extents.add(0, 64)
    with pytest.raises(ExtentError, match=f"segment {segment} of {size} bytes"):
        extents.add(segment, size)


def test_nothing_is_not_allocated() -> None:
    with pytest.raises(ExtentError, match="0 bytes"):
        Extents().allocate(0)


@given(st.sets(st.integers(0, 5000), max_size=1500), st.sets(st.integers(0, 5000)), st.integers(0, 5000))
def test_sorted_integers(added: set[int], removed: set[int], value: int) -> None:
    numbers = SortedInts()
    for each in added:
        numbers.add(each)
    for each in added & removed:
        numbers.discard(each)
    left = sorted(added - removed)
    below = [each for each in left if each <= value]
    above = [each for each in left if each > value]

    assert numbers.last() == (left[-1] if left else None)
    assert numbers.around(value) == (below[-1] if below else None, above[0] if above else None)
    assert numbers.upward(value, 5) == [each for each in left if each >= value][:5]


def test_sorted_integers_beyond_one_list() -> None:
    numbers, order = SortedInts(), np.random.default_rng(1).permutation(5000)
    for each in order:
        numbers.add(int(each))
    assert numbers.upward(0, 6000) == list(range(5000))
    for each in order[:4990]:
        numbers.discard(int(each))
    assert numbers.upward(0, 6000) == sorted(order[4990:])
