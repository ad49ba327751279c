"""Data plane `shm`: large values lie in files that every process of the run maps; the controller only says where."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer_queue import wire
from transfer_queue.errors import FieldLostError, StorageFullError
from transfer_queue.exchange import Ask, Steps
from transfer_queue.storage.arena import Arena, Extent
from transfer_queue.storage.base import Stored, inline
from transfer_queue.storage.reader import Reader
from transfer_queue.storage.recycling import Recycling
from transfer_queue.storage.run_folder import READING

TELL_S = 60.0
WAIT_S = 5.0
"""How long one request for recycled room waits in the controller before this client looks again by itself."""

Request = Callable[[type[Any], wire.Body, str], Any]
"""Carries out one request of its own, blocking: a new segment is rare."""


class Mapped:
    """The reads whose values this process keeps mapped: while there are any, it holds a file that says so.

    The controller looks at it where it cannot know by a connection: after a restart, or when the connection has ended.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._pid = folder, os.getpid()
        self._reads: set[int] = set()
        self._lock = threading.RLock()  # values may be let go at any moment, within these very lines too
        self._file = -1

    def add(self, read: int) -> None:
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._reads, self._file = os.getpid(), set(), -1
            self._reads.add(read)
            if self._file < 0:
                self._path = self._folder / f"{secrets.token_hex(6)}{READING}"
                with contextlib.suppress(OSError):  # a folder that is gone has no controller any more
                    self._file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                    fcntl.flock(self._file, fcntl.LOCK_EX)

    def discard(self, read: int) -> None:
        with self._lock:
            self._reads.discard(read)
            if not self._reads and self._file >= 0:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
                os.close(self._file)
                self._file = -1


class ShmPlane:
    """One client's arena and its view of everybody else's. Threads may share it; a forked child makes its own arena."""

    far = False

    def __init__(self, folder: Path, client: str, request: Request, tell: Callable[[wire.EndRead], None]) -> None:
        self._folder, self._client, self._request, self._tell = folder, client, request, tell
        self._arena: Arena | None = None
        self._making = threading.Lock()
        self._segments: list[int] = []
        self._recycling = Recycling(lambda ranges: self._own_arena().recycle(ranges))
        self._paths: dict[int, str] = {}
        self._reader = Reader(self._path_of)
        self._mapped = Mapped(folder)

    def store(self, frames: Sequence[Any], timeout_s: float) -> Steps[Stored]:
        """Large columns go to the arena, in one copy; its recycled room is used before it grows."""
        here = inline([len(frame) for frame in frames])
        if all(here):
            return Stored([], wire.joined(frames))
        large = [frame for frame, stays in zip(frames, here, strict=True) if not stays]
        arena, written = yield from self._write(large, timeout_s)
        places = iter(written)
        extents = [wire.INLINE if stays else next(places)[:2] for stays in here]
        small = wire.joined([frame for frame, stays in zip(frames, here, strict=True) if stays])
        return Stored(extents, small, lambda: arena.recycle(written) if arena.mine else None)

    def _write(self, frames: Sequence[Any], timeout_s: float) -> Steps[tuple[Arena, list[Extent]]]:
        arena, deadline = self._own_arena(), time.monotonic() + timeout_s
        found = arena.write_if_room(frames)
        if found is None and self._segments:
            yield from self._recycle(0.0)
            found = arena.write_if_room(frames)
        while found is None:
            try:
                found = arena.write(frames)
            except StorageFullError as full:
                left = deadline - time.monotonic()
                if left <= 0 or not self._segments:
                    raise (yield from self._explained(full)) from None
                yield from self._recycle(min(left, WAIT_S))
        return arena, found

    def _explained(self, full: StorageFullError) -> Steps[StorageFullError]:
        """The error, and who holds back what was freed, if somebody does."""
        stats, _ = yield Ask(wire.Stats, wire.GetStats(), (), TELL_S, lambda: "asking who holds room back waited")
        if not stats.held_bytes:
            return full
        return StorageFullError(
            f"{full}. {stats.held_bytes} bytes were freed but wait for {stats.held_by!r}, which has read for "
            f"{stats.held_s:.0f} s: let go of zero_copy views sooner, or copy what is kept",
            {**full.details, "held": stats.held_bytes, "held_by": stats.held_by},
        )

    def _recycle(self, timeout_s: float) -> Steps[None]:
        return self._recycling.ask(self._segments, timeout_s, "put waited for room in shared memory")

    def load(self, values: wire.Values, rows: int, frames: Sequence[Any], zero_copy: bool) -> Steps[list[Any]]:
        """Gather what lies in arenas into private memory; with `zero_copy`, map it read-only where it is contiguous."""
        if not values.placed:
            return list(wire.separate(rows, values.columns, frames))
        try:
            yield from self._learn(values.placed, frames)
            result, pins = self._read(values, rows, frames, zero_copy)
        except BaseException as error:
            self._tell(wire.EndRead(values.read))  # whatever went wrong, the bytes may be written again
            if isinstance(error, FieldLostError):
                numbers = sorted(_segments_of(values.placed, frames))
                yield Ask(wire.Done, wire.Lost(numbers), (), TELL_S, lambda: "telling that storage died waited")
            raise
        if not pins:
            yield Ask(None, wire.EndRead(values.read), (), TELL_S, str)
        return result

    def _read(
        self, values: wire.Values, rows: int, frames: Sequence[Any], zero_copy: bool
    ) -> tuple[list[Any], list[Any]]:
        """The columns, and those of them that are mapped: the read ends when the last of these is let go."""
        count = len(values.columns)
        result, pins = list(frames[:count]), []
        for column, here in zip(values.placed, frames[count:], strict=True):
            places = np.frombuffer(frames[column], dtype=np.int64).reshape(rows, 3)
            view = self._view(places) if zero_copy else None
            if view is None:
                result[column] = self._gather(places, here)
            else:
                pins.append(_Pin(view))
                result[column] = np.asarray(pins[-1])
        if pins:
            self._mapped.add(values.read)
        left = set(range(len(pins)))
        for number, pin in enumerate(pins):
            weakref.finalize(pin, self._let_go, os.getpid(), values.read, left, number)
        return result, pins

    def _let_go(self, reader: int, read: int, left: set[int], number: int) -> None:
        left.discard(number)
        if not left and reader == os.getpid():  # a forked child has the mapping too, but not the say
            self._mapped.discard(read)
            self._tell(wire.EndRead(read))

    def _learn(self, placed: Sequence[int], frames: Sequence[Any]) -> Steps[None]:
        """Ask where segments lie that this client has not seen yet, and let go of those that are gone meanwhile."""
        unknown = sorted(_segments_of(placed, frames) - self._paths.keys())
        if unknown:
            for number in [number for number, path in list(self._paths.items()) if not os.path.exists(path)]:
                self._reader.forget(number)  # a file that is removed keeps its memory while somebody maps it
            reply, _ = yield Ask(
                wire.Located, wire.Locate(unknown), (), TELL_S, lambda: "get_data waited for addresses"
            )
            self._paths.update(zip(unknown, reply.paths, strict=True))

    def _gather(self, places: NDArray[np.int64], here: Any) -> NDArray[np.uint8]:
        if (places[:, 0] >= 0).all():
            return self._reader.gather(places)
        total = int(places[:, 2].sum())
        result = np.empty(total, dtype=np.uint8)
        source, at = np.frombuffer(here, dtype=np.uint8), 0
        for segment, offset, size in places.tolist():
            value = source[offset : offset + size] if segment < 0 else self._reader.view(segment, offset, size)
            result[at : at + size] = value
            at += size
        return result

    def _view(self, places: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """The rows as they lie, where they lie one after the other."""
        segment, offset = int(places[0, 0]), int(places[0, 1])
        ends = places[:, 1] + places[:, 2]
        if segment < 0 or (places[:, 0] != segment).any() or (ends[:-1] != places[1:, 1]).any():
            return None
        return self._reader.view(segment, offset, int(places[:, 2].sum()))

    def _path_of(self, segment: int) -> str:
        return self._paths[segment]

    def _own_arena(self) -> Arena:
        with self._making:
            if self._arena is None or not self._arena.mine:
                self._segments = []
                owner = f"{''.join(c if c.isalnum() else '_' for c in self._client)[:40]}-{secrets.token_hex(6)}"
                self._arena = Arena(self._folder, owner, self._attach, self._detach)
            return self._arena

    def _attach(self, path: str, size: int) -> int:
        segment: int = self._request(wire.Attached, wire.Attach(path, size), "a new segment").segment
        self._segments.append(segment)
        return segment

    def _detach(self, segment: int) -> None:
        self._segments.remove(segment)
        self._request(wire.Done, wire.Detach([segment]), "detaching a segment")

    def close(self) -> None:
        """End writing; the controller removes each segment with its last row."""
        if self._arena is not None and self._arena.mine:
            self._arena.close()
            if self._segments:
                self._request(wire.Done, wire.Detach(self._segments), "detaching segments")


class _Pin:
    """What a mapped column and everything made of it keep alive: arrays made of arrays only keep the first of them."""

    def __init__(self, view: NDArray[np.uint8]) -> None:
        self._view, self.__array_interface__ = view, view.__array_interface__


def _segments_of(placed: Sequence[int], frames: Sequence[Any]) -> set[int]:
    numbers: set[int] = set()
    for column in placed:
        numbers.update(np.unique(np.frombuffer(frames[column], dtype=np.int64)[::3]).tolist())
    return numbers - {-1}
