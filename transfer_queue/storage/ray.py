"""Data plane `ray`: large values lie in Ray's store, put there by a storage actor of the producer's node."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from transfer_queue import wire
from transfer_queue.errors import FieldLostError
from transfer_queue.exchange import Ask, Steps, Work
from transfer_queue.storage.base import MemoryPlane, Plane, Stored, inline
from transfer_queue.storage.place import CONTROLLER
from transfer_queue.storage.ray_reader import Fetched, RayReader
from transfer_queue.storage.sending import Sender

READS = 4
"""Reads of one client under way at once."""
GRACE_S = 5.0
"""How much longer than its thread a call waits: the thread's own error says more."""


def plane_in(namespace: str, timeout_s: float) -> Plane:
    """The plane of a process that is connected to the Ray cluster of the run; the controller reads for any other."""
    try:
        if ray.is_initialized():
            ray.get_actor(CONTROLLER, namespace)
            return RayPlane(namespace, timeout_s)
    except ValueError:
        pass  # it is another cluster
    return MemoryPlane(far=True)


class RayPlane:
    """One client's way to the storage actors; `timeout_s` bounds a read. Threads may share it."""

    far = False

    def __init__(self, namespace: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._sender = Sender(namespace)
        self._paths: dict[int, str] = {}
        self._reader = RayReader(self._paths.__getitem__)
        self._threads = ThreadPoolExecutor(READS, "transfer queue get")

    def store(self, frames: Sequence[Any], timeout_s: float) -> Steps[Stored]:
        """Large columns go to the storage actor of this node, which has them when this returns."""
        here = inline([len(frame) for frame in frames])
        if all(here):
            return Stored([], wire.joined(frames))
        large = [np.frombuffer(frame, np.uint8) for frame, stays in zip(frames, here, strict=True) if not stays]
        put = self._sender.put(large, timeout_s)
        try:
            found: list[wire.Extent] = yield Work(put, timeout_s + GRACE_S)
        except BaseException:  # cancelled, say: what was sent is not wanted any more
            put.add_done_callback(lambda done: self._take_back(done, large))
            raise
        placed = iter(found)
        extents = [wire.INLINE if stays else next(placed) for stays in here]
        inside = wire.joined([frame for frame, stays in zip(frames, here, strict=True) if stays])
        return Stored(extents, inside, lambda: self._take_back(put, large))

    def _take_back(self, put: Future[list[wire.Extent]], large: Sequence[NDArray[np.uint8]]) -> None:
        if not put.cancelled() and put.exception() is None:
            self._sender.take_back(put.result(), [frame.nbytes for frame in large])

    def load(self, values: wire.Values, rows: int, frames: Sequence[Any], zero_copy: bool) -> Steps[list[Any]]:
        """Fetch the blocks, and gather rows into private memory; with `zero_copy`, rows that lie together as they lie.

        Ray keeps what is seen without a copy until it is let go, so the read is over when this returns.
        """
        if not values.placed:
            return list(wire.separate(rows, values.columns, frames))
        count = len(values.columns)
        places = [np.frombuffer(frames[column], dtype=np.int64).reshape(rows, 3) for column in values.placed]
        over = Ask(None, wire.EndRead(values.read), (), self._timeout_s, str)
        try:
            fetched = yield from self._fetch(np.concatenate(places))
        except GeneratorExit:
            raise
        except BaseException:
            yield over
            raise
        yield over
        result = list(frames[:count])
        for column, where, here in zip(values.placed, places, frames[count:], strict=True):
            view = fetched.as_they_lie(where) if zero_copy else None
            result[column] = fetched.gather(where, here) if view is None else view
        return result

    def _fetch(self, places: NDArray[np.int64]) -> Steps[Fetched]:
        placed = places[(places[:, 0] >= 0) & (places[:, 2] > 0)]
        segments = np.unique(placed[:, 0]).tolist()
        yield from self._learn(segments)
        deadline = time.monotonic() + self._timeout_s
        try:
            work = Work(self._threads.submit(self._reader.fetch, placed, deadline), self._timeout_s + GRACE_S)
            fetched: Fetched = yield work
        except FieldLostError:
            yield Ask(wire.Done, wire.Lost(segments), (), self._timeout_s, lambda: "telling that storage died waited")
            raise
        return fetched

    def _learn(self, segments: Sequence[int]) -> Steps[None]:
        """Ask where segments lie that this client has not seen yet."""
        unknown = [number for number in segments if number not in self._paths]
        if unknown:
            ask = Ask(wire.Located, wire.Locate(unknown), (), self._timeout_s, lambda: "get_data waited for addresses")
            reply, _ = yield ask
            self._paths.update(zip(unknown, reply.paths, strict=True))

    def close(self) -> None:
        """Send and fetch nothing more; what was put stays."""
        self._sender.close()
        self._threads.shutdown(wait=False)
