"""Which bytes of several segments are free: the allocator of an arena. Pure: it touches no memory and no file.

Bytes are counted one by one, so any part of what was allocated may come back alone: neighbours grow together again,
and when everything is back a segment is one free range. A range starts at a multiple of 64 bytes (a cache line, and
more than any dtype needs), from 64 KiB on at a multiple of 4096, so that it could be mapped by itself. The smallest
free range that is large enough is taken, of equals the one with the lowest address: that keeps segments wholly free,
and used memory warm.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray

from transfer_queue.errors import ExtentError

ALIGNMENT = 64
PAGE = 4096
PAGED_FROM = 64 * 1024
"""Ranges of this size and more start at a page."""
LOOK_AT = 8
"""Free ranges whose size would do that are tried for alignment, before one is taken that does however it lies."""
_BITS = 48
_OFFSET = (1 << _BITS) - 1
_CHUNK = 512


def alignment(size: int) -> int:
    """What the offset of a range of `size` bytes is a multiple of."""
    return PAGE if size >= PAGED_FROM else ALIGNMENT


def aligned(offset: int, size: int) -> int:
    """The first offset from `offset` on where a range of `size` bytes may start."""
    step = alignment(size)
    return -(-offset // step) * step


def joined(rows: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Ranges (n, 3: segment, offset, size; none of them empty) in their order, neighbours as one."""
    if not len(rows):
        return []
    breaks = (rows[1:, 0] != rows[:-1, 0]) | (rows[1:, 1] != rows[:-1, 1] + rows[:-1, 2])
    firsts = np.concatenate(([0], np.flatnonzero(breaks) + 1))
    sizes = np.add.reduceat(rows[:, 2], firsts)
    return list(zip(rows[firsts, 0].tolist(), rows[firsts, 1].tolist(), sizes.tolist(), strict=True))


class Extents:
    """Free and allocated ranges of the segments that were added; every operation costs O(log n) of the free ranges."""

    def __init__(self) -> None:
        self.free_bytes = 0
        self._segments: dict[int, int] = {}
        self._ends: dict[int, int] = {}  # of free ranges: start -> end, both addresses: segment << 48 | offset
        self._starts = SortedInts()
        self._by_size = SortedInts()  # size << 112 | start

    @property
    def segments(self) -> dict[int, int]:
        """Segment -> its size."""
        return dict(self._segments)

    @property
    def largest(self) -> int:
        """Bytes of the longest free range (its start may have to be aligned)."""
        last = self._by_size.last()
        return last >> 112 if last is not None else 0

    def add(self, segment: int, size: int) -> None:
        """A new segment, all of it free."""
        if segment in self._segments or segment < 0 or not 0 < size <= _OFFSET:
            raise ExtentError(f"segment {segment} of {size} bytes cannot be added: known already, or no such size")
        self._segments[segment] = size
        self.free_bytes += size
        self._insert(segment << _BITS, (segment << _BITS) + size)

    def remove(self, segment: int) -> None:
        """Forget a segment that is wholly free."""
        if not self.is_free(segment):
            raise ExtentError(f"segment {segment} cannot be removed: it is unknown, or something lies in it")
        self.free_bytes -= self._segments.pop(segment)
        self._delete(segment << _BITS)

    def is_free(self, segment: int) -> bool:
        """Whether nothing lies in the segment."""
        size = self._segments.get(segment)
        return size is not None and self._ends.get(segment << _BITS) == (segment << _BITS) + size

    def allocate(self, size: int) -> tuple[int, int] | None:
        """Segment and offset of `size` bytes that nobody has, or None where there is no such free range."""
        if size <= 0:
            raise ExtentError(f"{size} bytes cannot be allocated: ask for one or more")
        free = self._fitting(size)
        if free is None:
            return None
        end, start = self._ends[free], aligned(free, size)
        self._delete(free)
        if free < start:
            self._insert(free, start)
        if start + size < end:
            self._insert(start + size, end)
        self.free_bytes -= size
        return start >> _BITS, start & _OFFSET

    def free(self, segment: int, offset: int, size: int) -> None:
        """Take back a range, all or part of what was allocated; `ExtentError` if any byte of it is free already."""
        if not (offset >= 0 and size > 0 and offset + size <= self._segments.get(segment, -1)):
            raise ExtentError(f"segment {segment} has no {size} bytes at {offset}: they are not of this arena")
        start = (segment << _BITS) + offset
        end = start + size
        before, after = self._starts.around(start)
        if (before is not None and self._ends[before] > start) or (after is not None and after < end):
            raise ExtentError(f"segment {segment}: of {size} bytes at {offset} some are free already: freed twice")
        self.free_bytes += size
        if after == end:
            end = self._delete(after)
        if before is not None and self._ends[before] == start:
            self._delete(before)
            start = before
        self._insert(start, end)

    def _fitting(self, size: int) -> int | None:
        """Start of the smallest free range that has room for `size` bytes once its start is aligned."""
        near = self._first_with_room(self._by_size.upward(size << 112, LOOK_AT), size)
        if near is not None:
            return near
        sure = self._first_with_room(self._by_size.upward(size + alignment(size) - 1 << 112, 1), size)
        if sure is not None:
            return sure
        return self._first_with_room(self._by_size.upward(size << 112, len(self._ends)), size)  # before saying no

    def _first_with_room(self, keys: list[int], size: int) -> int | None:
        for key in keys:
            start = key & (1 << 112) - 1
            if aligned(start, size) + size <= self._ends[start]:
                return start
        return None

    def _insert(self, start: int, end: int) -> None:
        self._ends[start] = end
        self._starts.add(start)
        self._by_size.add(end - start << 112 | start)

    def _delete(self, start: int) -> int:
        end = self._ends.pop(start)
        self._starts.discard(start)
        self._by_size.discard(end - start << 112 | start)
        return end


class SortedInts:
    """Different integers in order, in short lists of at most `_CHUNK`: what changes is never a list of them all."""

    def __init__(self) -> None:
        self._chunks: list[list[int]] = []
        self._lasts: list[int] = []  # of each chunk, which are never empty

    def last(self) -> int | None:
        """The greatest."""
        return self._lasts[-1] if self._lasts else None

    def add(self, value: int) -> None:
        """Put in a value that is not there."""
        at = bisect_left(self._lasts, value)
        if at == len(self._chunks):
            if not at or len(self._chunks[-1]) >= _CHUNK:
                self._chunks.append([value])
                self._lasts.append(value)
                return
            at -= 1
        chunk = self._chunks[at]
        insort(chunk, value)
        if len(chunk) > _CHUNK:
            half = len(chunk) // 2
            self._chunks.insert(at, chunk[:half])
            self._lasts.insert(at, chunk[half - 1])
            del chunk[:half]
            at += 1
        self._lasts[at] = chunk[-1]

    def discard(self, value: int) -> None:
        """Take out a value that is there."""
        at = bisect_left(self._lasts, value)
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, value)]
        if chunk:
            self._lasts[at] = chunk[-1]
        else:
            del self._chunks[at], self._lasts[at]

    def around(self, value: int) -> tuple[int | None, int | None]:
        """The greatest that is less than or equal to `value`, and the least that is greater."""
        at = bisect_left(self._lasts, value + 1)
        if at == len(self._chunks):
            return self.last(), None
        chunk = self._chunks[at]
        place = bisect_left(chunk, value + 1)
        if place:
            return chunk[place - 1], chunk[place]
        return (self._lasts[at - 1] if at else None), chunk[0]

    def upward(self, value: int, most: int) -> list[int]:
        """At most `most` of those that are at least `value`, the least first."""
        at = bisect_left(self._lasts, value)
        if at == len(self._chunks):
            return []
        place = bisect_left(self._chunks[at], value)
        found = self._chunks[at][place : place + most]
        while len(found) < most and (at := at + 1) < len(self._chunks):
            found += self._chunks[at][: most - len(found)]
        return found
