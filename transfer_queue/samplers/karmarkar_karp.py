"""Numbers into k sets of nearly equal sums: the largest differencing method of Karmarkar and Karp (1982), k-way.

A partial solution is k sets, kept by descending sum; its difference is the largest sum less the smallest. Merging two
of them joins the heaviest set of one with the lightest of the other, and so on. The two solutions of largest
difference are merged until one is left: their differences cancel out. For sets of equal cardinality the method starts
from solutions that hold one number in each set, k neighbours in sorted order (the balanced variant of Michiels,
Aarts, Korst, van Leeuwen and Spieksma, 2003), so that every merge keeps the cardinalities equal.

With equal cardinalities and heavy tails (one long response outweighs several others) differencing alone leaves the
largest of 8 sets of 16 log-normal lengths (sigma 1) 16 % above the mean; exchanging numbers between the heaviest set
and others, as long as that helps, brings it to 0.1 %. `balanced_split` does both, and returns the list cut into k
pieces as it stands where even that has the smaller largest sum.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class _Solution:
    """k sets by descending sum: (sum, places in the list of numbers)."""

    sets: list[tuple[float, list[int]]]

    @property
    def difference(self) -> float:
        return self.sets[0][0] - self.sets[-1][0]

    def merged(self, other: _Solution) -> _Solution:
        """The heaviest set of one joined with the lightest of the other, and so on."""
        pairs = zip(self.sets, reversed(other.sets), strict=True)
        return _sorted([(a + b, places + more) for (a, places), (b, more) in pairs])


def karmarkar_karp(numbers: Sequence[float], k: int, *, equal_size: bool = False) -> list[list[int]]:
    """The places of the numbers in k sets of nearly equal sums; with `equal_size`, of equally many numbers each.

    The sets come in the order of their first places, each sorted. O(n k log k + n log n).
    """
    if k < 1:
        raise ValueError(f"k={k}: numbers are split into at least one set")
    if equal_size and len(numbers) % k:
        raise ValueError(f"{len(numbers)} numbers do not go into {k} sets of equal size")
    heap = [(-each.difference, i, each) for i, each in enumerate(_beginnings(numbers, k, equal_size))]
    heapq.heapify(heap)
    count = len(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap)[2].merged(heapq.heappop(heap)[2])
        heapq.heappush(heap, (-merged.difference, count, merged))
        count += 1
    places = [sorted(places) for _, places in heap[0][2].sets] if heap else [[] for _ in range(k)]
    return sorted(places, key=lambda each: each[0] if each else len(numbers))


def balanced_split(numbers: Sequence[float], k: int) -> list[list[int]]:
    """k sets of equally many numbers, whose largest sum is never above that of the list cut into k pieces."""
    size = len(numbers) // k
    pieces = [list(range(i * size, (i + 1) * size)) for i in range(k)]
    found = exchanged(numbers, karmarkar_karp(numbers, k, equal_size=True))
    return found if largest_sum(numbers, found) <= largest_sum(numbers, pieces) else pieces


def exchanged(numbers: Sequence[float], sets: Sequence[Sequence[int]], within: float = 0.001) -> list[list[int]]:
    """The sets after exchanges, each the best between the heaviest set and any other, that lighten the heaviest.

    Ends when none helps, when the heaviest sum is `within` that part of the mean, or after as many as there are
    numbers. O(size * n) an exchange.
    """
    values = np.asarray(numbers, dtype=np.float64)
    places = np.array(sets, dtype=np.intp)
    for _ in range(places.size):
        sums = values[places].sum(axis=1)
        heaviest = int(sums.argmax())
        if sums[heaviest] <= (1 + within) * sums.mean():
            break
        moved = values[places[heaviest]][:, None, None] - values[places][None, :, :]
        after = np.maximum(sums[heaviest] - moved, sums[None, :, None] + moved)
        mine, other, theirs = np.unravel_index(int(after.argmin()), after.shape)
        if after[mine, other, theirs] >= sums[heaviest]:
            break
        pair = places[heaviest, mine], places[other, theirs]
        places[other, theirs], places[heaviest, mine] = pair
    return sorted(sorted(each) for each in places.tolist())


def largest_sum(numbers: Sequence[float], sets: Sequence[Sequence[int]]) -> float:
    """The sum of the heaviest set: what the slowest rank has to do."""
    return max(sum(numbers[place] for place in each) for each in sets)


def _beginnings(numbers: Sequence[float], k: int, equal_size: bool) -> list[_Solution]:
    order = sorted(range(len(numbers)), key=lambda place: (-numbers[place], place))
    if equal_size:
        rows = [order[start : start + k] for start in range(0, len(order), k)]
        return [_Solution([(numbers[place], [place]) for place in row]) for row in rows]
    empty: list[tuple[float, list[int]]] = [(0, [])] * (k - 1)
    return [_sorted([(numbers[place], [place]), *empty]) for place in order]


def _sorted(sets: list[tuple[float, list[int]]]) -> _Solution:
    return _Solution(sorted(sets, key=lambda each: -each[0]))
