"""Where a producer on this machine puts values: files of its own that every process of the run can map.

An arena belongs to one incarnation of a client. Its segments are files `<folder>/<owner>-<k>`; their space is reserved
when they are made, so a full file system is an error then and never a SIGBUS while values are written. Segments are
used again and again: the first touch of a page costs ten times what copying into it costs.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transfer_queue.errors import ConfigurationError, ExtentError, StorageFullError, TransferQueueError
from transfer_queue.storage.extents import PAGE, Extents, aligned, joined
from transfer_queue.storage.segment_file import new_file, reserve

SMALLEST_SEGMENT = 64 * 2**20
LARGEST_SEGMENT = 2**30
"""A new segment is as large as all before it together, within these; a put that needs more gets what it needs."""
Bytes = NDArray[np.uint8]


class Extent(NamedTuple):
    """A range of a segment."""

    segment: int
    offset: int
    size: int


class Arena:
    """Room for what one client incarnation puts. Threads may share it; a forked child makes its own.

    `attach(path, size)` tells the controller of a new segment and returns its id; `detach(segment)` says that its file
    is gone, nothing having lain there. Both may take their time: nobody who finds room or recycles waits for them.
    """

    def __init__(
        self, folder: Path, owner: str, attach: Callable[[str, int], int], detach: Callable[[int], None]
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", owner):
            raise ConfigurationError(f"owner {owner!r} of an arena must be a plain file name")
        self._folder, self._owner, self._attach, self._detach = folder, owner, attach, detach
        self._pid = os.getpid()
        self._extents = Extents()
        self._bytes: dict[int, Bytes] = {}
        self._paths: dict[int, Path] = {}
        self._locks: dict[
            int, int
        ] = {}  # a descriptor of each file, locked: who can lock it knows that this owner died
        self._made = 0
        self._lock = threading.Lock()  # around extents; never held while anything is copied, made or told
        self._growing = threading.Lock()  # one segment is made at a time; taken before _lock, never after it
        _alive.add(self)

    @property
    def mine(self) -> bool:
        """Whether this process may write here: False in a forked child of the arena's process, and after `close`."""
        return self._pid == os.getpid()

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        with self._lock:
            return sum(self._extents.segments.values())

    @property
    def used(self) -> int:
        """Bytes that hold values."""
        with self._lock:
            return sum(self._extents.segments.values()) - self._extents.free_bytes

    def write(self, frames: Sequence[Any]) -> list[Extent]:
        """Copy each frame (anything with contiguous bytes) once; where each lies. An empty one lies at (0, 0, 0).

        The frames of one call lie side by side where such a place is left, each aligned. All are written or none:
        `StorageFullError` when the file system has no room for another segment.
        """
        sources = _sources(frames)
        return self._copy(sources, self._room([len(source) for source in sources]))

    def write_if_room(self, frames: Sequence[Any]) -> list[Extent] | None:
        """The same without growing: None, and nothing written, where the segments that are there have no room."""
        sources = _sources(frames)
        extents = self._place([len(source) for source in sources])
        return None if extents is None else self._copy(sources, extents)

    def _copy(self, sources: list[Bytes], extents: list[Extent]) -> list[Extent]:
        try:
            for extent, source in zip(extents, sources, strict=True):
                if extent.size:
                    self._bytes[extent.segment][extent.offset : extent.offset + extent.size] = source
        except BaseException:
            self.recycle(extents)
            raise
        return extents

    def recycle(self, ranges: Iterable[Sequence[int]] | NDArray[np.int64]) -> None:
        """Take back ranges (segment, offset, size), any parts of what was written, in any order.

        A range that is not there or comes back twice is an `ExtentError`, raised after all others were taken back.
        """
        self._refuse_strangers()
        wrong: ExtentError | None = None
        with self._lock:
            for segment, offset, size in _in_order(ranges):
                try:
                    self._extents.free(segment, offset, size)
                except ExtentError as error:
                    wrong = wrong or error
        if wrong is not None:
            raise wrong

    def shrink(self) -> int:
        """Give back every wholly free segment but the largest of them; the bytes given back."""
        self._refuse_strangers()
        return self._give_back(spared=1)

    def close(self) -> None:
        """End writing. Segments where values lie stay: they are the controller's to remove, once nobody reads them.

        Idempotent; in a forked child it does nothing.
        """
        if not self.mine:
            return
        with contextlib.suppress(TransferQueueError):  # a controller that is gone need not be told
            self._give_back(spared=0)
        self._disown()

    def _disown(self) -> None:
        """Drop the mappings (they end with the copies that are under way) and write no more."""
        self._pid = -1
        self._bytes, self._paths = {}, {}
        for lock in self._locks.values():
            os.close(lock)
        self._locks = {}

    def _refuse_strangers(self) -> None:
        if not self.mine:
            raise ConfigurationError(
                f"arena {self._owner!r} was closed or belongs to another process than {os.getpid()}: make an arena here"
            )

    def _room(self, sizes: list[int]) -> list[Extent]:
        """Places for frames of these sizes; a new segment where there are none."""
        self._refuse_strangers()
        found = self._place(sizes)
        if found is None:
            with self._growing:
                found = self._place(sizes)  # another thread may have made room while this one waited
                while found is None:
                    self._grow(_offsets(sizes)[1])
                    found = self._place(sizes)
        return found

    def _place(self, sizes: list[int]) -> list[Extent] | None:
        self._refuse_strangers()
        with self._lock:
            return self._side_by_side(sizes) or self._scattered(sizes)

    def _side_by_side(self, sizes: list[int]) -> list[Extent] | None:
        offsets, total = _offsets(sizes)
        place = self._extents.allocate(total) if total else (0, 0)
        if place is None:
            return None
        segment, start = place
        end = 0
        for offset, size in zip(offsets, sizes, strict=True):
            if size and end < offset:
                self._extents.free(segment, start + end, offset - end)
            end = max(end, offset + size)
        return [_extent(segment, start + at, size) for at, size in zip(offsets, sizes, strict=True)]

    def _scattered(self, sizes: list[int]) -> list[Extent] | None:
        extents: list[Extent] = []
        for size in sizes:
            place = self._extents.allocate(size) if size else (0, 0)
            if place is None:
                for extent in filter(lambda extent: extent.size, extents):
                    self._extents.free(*extent)
                return None
            extents.append(_extent(*place, size))
        return extents

    def _grow(self, needed: int) -> None:
        """Add a segment with room for `needed` bytes, smaller than planned where the file system is nearly full."""
        needed = -(-needed // PAGE) * PAGE
        planned = max(needed, min(max(self.size, SMALLEST_SEGMENT), LARGEST_SEGMENT))
        path = self._folder / f"{self._owner}-{self._made}"
        self._made += 1
        with new_file(path) as descriptor:
            size = reserve(descriptor, planned, needed)
            if not size:
                raise self._full(needed)
            mapped = np.frombuffer(mmap.mmap(descriptor, size), np.uint8)
            lock = os.dup(descriptor)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                segment = self._attach(str(path), size)
            except BaseException:
                os.close(lock)
                raise
        self._bytes[segment], self._paths[segment], self._locks[segment] = mapped, path, lock
        with self._lock:
            self._extents.add(segment, size)

    def _full(self, needed: int) -> StorageFullError:
        room = os.statvfs(self._folder)
        free, total = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
        return StorageFullError(
            f"{self._folder} has no room for {needed} bytes more: {free} of {total} bytes are free, and {self.used} of "
            f"this client's {self.size} bytes hold values. Clear or consume steps, keep fewer of them, or set "
            "queue.shm_dir to a larger file system",
            {"needed": needed, "free": free, "total": total, "folder": str(self._folder)},
        )

    def _give_back(self, spared: int) -> int:
        with self._lock:
            sizes = self._extents.segments
            free = sorted((segment for segment in sizes if self._extents.is_free(segment)), key=sizes.__getitem__)
            gone = free[: len(free) - spared] if spared else free
            for segment in gone:
                self._extents.remove(segment)
        for segment in gone:
            del self._bytes[segment]
            self._paths.pop(segment).unlink(missing_ok=True)
        for segment in gone:
            self._detach(segment)
        return sum(sizes[segment] for segment in gone)


_NOTHING: Bytes = np.empty(0, np.uint8)
_alive: weakref.WeakSet[Arena] = weakref.WeakSet()


def _disown_all() -> None:
    for arena in list(_alive):
        arena._disown()


os.register_at_fork(after_in_child=_disown_all)  # a child must not write where its parent does, whatever it tries


def _sources(frames: Sequence[Any]) -> list[Bytes]:
    return [np.frombuffer(frame, np.uint8) if memoryview(frame).nbytes else _NOTHING for frame in frames]


def _extent(segment: int, offset: int, size: int) -> Extent:
    return Extent(segment, offset, size) if size else Extent(0, 0, 0)


def _offsets(sizes: list[int]) -> tuple[list[int], int]:
    """Where frames of these sizes start, side by side and aligned, and where the last one ends."""
    offsets, end = [], 0
    for size in sizes:
        start = aligned(end, size) if size else end
        offsets.append(start)
        end = start + size
    return offsets, end


def _in_order(ranges: Iterable[Sequence[int]] | NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """The ranges by address, neighbours as one, empty ones left out. One that is there twice stays there twice."""
    rows = np.asarray(ranges if isinstance(ranges, np.ndarray) else list(ranges), np.int64).reshape(-1, 3)
    rows = rows[rows[:, 2] != 0]
    return joined(rows[np.lexsort((rows[:, 1], rows[:, 0]))])
