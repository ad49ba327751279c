"""Reading what storage actors hold: their blocks fetched through Ray's store, rows gathered into private memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from transfer_queue.errors import FieldLostError, StorageTimeoutError
from transfer_queue.storage.buffers import BufferPool
from transfer_queue.storage.place import place_of

Bytes = NDArray[np.uint8]
Rows = NDArray[np.int64]

PAUSE_S = 0.2
"""Between two tries to reach an actor that cannot be reached at the moment, though it lives."""


class RayReader:
    """Fetches blocks of any storage actor. Threads may share it. `path_of(segment)` is asked once per segment."""

    def __init__(self, path_of: Callable[[int], str]) -> None:
        self._path_of = path_of
        self._actors: dict[int, Any] = {}
        self._pool = BufferPool()

    def fetch(self, rows: Rows, deadline: float) -> Fetched:
        """All arrays that these rows (n, 3: segment, offset, size) lie in; `FieldLostError` if their storage died."""
        found = {}
        for segment in np.unique(rows[:, 0]).tolist():
            offsets = np.unique(rows[rows[:, 0] == segment][:, 1]).tolist()
            found[segment] = _Arrays.of(self._blocks(segment, offsets, deadline))
        return Fetched(found, self._pool)

    def _blocks(self, segment: int, offsets: list[int], deadline: float) -> list[tuple[int, list[Bytes]]]:
        while True:
            try:
                return self._once(segment, offsets, deadline)
            except (ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError) as error:
                if time.monotonic() + PAUSE_S > deadline:
                    raise StorageTimeoutError(
                        f"get_data: the storage actor of segment {segment} did not answer in time: {error}"
                    ) from error
            except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
                raise FieldLostError(
                    f"the values of segment {segment} are lost: their storage actor died ({type(error).__name__})"
                ) from error
            time.sleep(PAUSE_S)

    def _once(self, segment: int, offsets: list[int], deadline: float) -> list[tuple[int, list[Bytes]]]:
        actor = self._actors.get(segment)
        if actor is None:
            actor = self._actors[segment] = place_of(self._path_of(segment)).handle()
        blocks = ray.get(actor.find.remote(offsets), timeout=_left(deadline))
        values = ray.get([ref for _, ref in blocks], timeout=_left(deadline))
        return sorted(zip([start for start, _ in blocks], values, strict=True), key=lambda block: block[0])


@dataclass(frozen=True, slots=True)
class _Arrays:
    """The arrays of a segment that were fetched, by address."""

    starts: Rows
    arrays: list[Bytes]

    @classmethod
    def of(cls, blocks: Sequence[tuple[int, list[Bytes]]]) -> _Arrays:
        starts, arrays = [], []
        for start, block in blocks:
            for array in block:
                starts.append(start)
                arrays.append(array)
                start += array.nbytes
        return cls(np.array(starts, np.int64), arrays)


class Fetched:
    """Blocks that are here; what is taken of them stays after the storage actor has dropped them."""

    def __init__(self, segments: dict[int, _Arrays], pool: BufferPool) -> None:
        self._segments, self._pool = segments, pool

    def view(self, segment: int, offset: int, size: int) -> Bytes:
        """The bytes themselves, read-only; `FieldLostError` if they are in no block that was fetched."""
        found = self._segments[segment]
        at = int(np.searchsorted(found.starts, offset, "right")) - 1
        start = offset - int(found.starts[at]) if at >= 0 else -1
        if start < 0 or start + size > len(found.arrays[at]):
            raise FieldLostError(f"segment {segment} holds no {size} bytes at {offset} any more")
        return found.arrays[at][start : start + size]

    def gather(self, rows: Rows, here: Any) -> Bytes:
        """The bytes of all rows one after the other, private and writable; those of segment -1 lie in `here`."""
        rows = rows[rows[:, 2] != 0]
        result = self._pool.take(int(rows[:, 2].sum()))
        inline, at = np.frombuffer(here, np.uint8) if len(here) else result[:0], 0
        for segment, offset, size in rows.tolist():
            value = inline[offset : offset + size] if segment < 0 else self.view(segment, offset, size)
            result[at : at + size] = value
            at += size
        return result

    def as_they_lie(self, rows: Rows) -> Bytes | None:
        """All rows as one view, where they lie one after the other in one array."""
        segment, offset = int(rows[0, 0]), int(rows[0, 1])
        ends = rows[:, 1] + rows[:, 2]
        if segment < 0 or (rows[:, 0] != segment).any() or (ends[:-1] != rows[1:, 1]).any():
            return None
        try:
            return self.view(segment, offset, int(rows[:, 2].sum()))
        except FieldLostError:
            return None


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)
