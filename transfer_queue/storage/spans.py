"""Which bytes are taken: ranges that do not overlap, in order, neighbours as one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Spans:
    """A set of whole numbers, kept as the ranges from `start` up to and without `end`."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def meets(self, start: int, end: int) -> bool:
        """Whether any of the range is in the set."""
        before = bisect_left(self._starts, end)
        return start < end and before > 0 and self._ends[before - 1] > start

    def add(self, start: int, end: int) -> None:
        """Take in a range that is not empty."""
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]

    def cut(self, start: int, end: int) -> None:
        """Take out a range, whatever of it is there."""
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        if first < last:
            around = [(self._starts[first], start), (end, self._ends[last - 1])]
            left = [piece for piece in around if piece[0] < piece[1]]
            self._starts[first:last], self._ends[first:last] = [at for at, _ in left], [at for _, at in left]
