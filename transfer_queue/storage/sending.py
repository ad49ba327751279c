"""How values reach the storage actor of a node: what several callers put within a moment travels in one call."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from transfer_queue.errors import ControllerLostError, StorageTimeoutError, TransferQueueError
from transfer_queue.storage.place import CONTROLLER
from transfer_queue.storage.storage_actor import Block, storage_here
from transfer_queue.wire import Extent

log = logging.getLogger("transfer_queue")

CALLS = 2
"""Calls under way at once. Small puts wait for the one under way, and gather; only large ones go beside it."""
CALL_BYTES = 32 << 20
BLOCK_BYTES = 1 << 20
"""Small puts share a block up to this size: a block costs Ray a millisecond, however small it is."""
PAUSE_S = 0.2
"""Between two tries to reach a storage actor that died or has not started."""


@dataclass(slots=True, eq=False)
class _Put:
    """The arrays of one put, that stay together, and who waits for it."""

    arrays: list[NDArray[np.uint8]]
    deadline: float
    done: Future[list[Extent]] = field(default_factory=Future)

    @property
    def size(self) -> int:
        return sum(array.nbytes for array in self.arrays)


class Sender:
    """Sends what its callers put. Threads may share it; it has no thread of its own until something is put."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._lock = threading.Lock()
        self._waiting: deque[_Put] = deque()
        self._sending = 0
        self._threads = ThreadPoolExecutor(CALLS, "transfer queue put")
        self._actor: Any = None
        self._actors: dict[int, Any] = {}
        """By the number of its segment."""

    def put(self, arrays: Sequence[NDArray[np.uint8]], timeout_s: float) -> Future[list[Extent]]:
        """Where each of these arrays lies, once they are there."""
        put = _Put(list(arrays), time.monotonic() + timeout_s)
        with self._lock:
            self._waiting.append(put)
            starts = self._sending < (CALLS if put.size >= BLOCK_BYTES else 1)
            self._sending += starts
        if starts:
            self._threads.submit(self._send_all)
        return put.done

    def take_back(self, extents: Sequence[Extent], sizes: Sequence[int]) -> None:
        """These arrays are not wanted after all; nobody waits for the storage actor to hear of it."""
        actor = self._actors.get(extents[0][0])
        if actor is not None:
            actor.free.remote([(offset, size) for (_, offset), size in zip(extents, sizes, strict=True)])

    def close(self) -> None:
        """Send nothing more."""
        self._threads.shutdown(wait=False)

    def _send_all(self) -> None:
        while puts := self._next():
            try:
                self._send(puts)
            except StorageTimeoutError as error:
                self._give_up_late(puts, error)
            except BaseException as error:  # noqa: BLE001 - it becomes the answer of whoever put
                for put in puts:
                    put.done.set_exception(error)

    def _give_up_late(self, puts: list[_Put], error: StorageTimeoutError) -> None:
        """Those whose deadline came fail; the others, that were in the same call, are sent again."""
        late = min(put.deadline for put in puts)
        with self._lock:
            self._waiting.extendleft(put for put in reversed(puts) if put.deadline > late)
        for put in puts:
            if put.deadline <= late:
                put.done.set_exception(error)

    def _next(self) -> list[_Put]:
        """What goes into the next call."""
        with self._lock:
            puts: list[_Put] = []
            room = CALL_BYTES
            while self._waiting and (not puts or self._waiting[0].size <= room):
                put = self._waiting.popleft()
                if put.done.running() or put.done.set_running_or_notify_cancel():
                    puts.append(put)
                    room -= put.size
            if not puts:
                self._sending -= 1
            return puts

    def _send(self, puts: list[_Put]) -> None:
        blocks = _in_blocks(puts)
        values: list[Block] = [[array for put in block for array in put.arrays] for block in blocks]
        segment, starts = self._until_kept(values, min(put.deadline for put in puts))
        for start, block in zip(starts, blocks, strict=True):
            for put in block:
                extents = []
                for array in put.arrays:
                    extents.append((segment, start))
                    start += array.nbytes
                put.done.set_result(extents)

    def _until_kept(self, values: list[Block], deadline: float) -> tuple[int, list[int]]:
        """Try until a storage actor has them: the one there is may die, and another takes its place."""
        while True:
            try:
                if self._actor is None:
                    self._actor = storage_here(self._namespace)
                left = max(deadline - time.monotonic(), 0.001)
                sent = self._actor.put.remote(values)
                segment, starts = ray.get(sent, timeout=left)
                self._actors[segment] = self._actor
                return segment, starts
            except ray.exceptions.GetTimeoutError as error:
                _forget(self._actor, sent, values)
                self._look_around(error, deadline)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, TransferQueueError) else error from None
            except (ray.exceptions.RayError, ValueError) as error:
                self._look_around(error, deadline)
            time.sleep(PAUSE_S)

    def _look_around(self, error: Exception, deadline: float) -> None:
        """Raise if it is too late or in vain to try once more."""
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if self._actor is not None:
            log.warning("the storage actor of this node did not take what was put, which is sent again: %s", said)
        self._actor = None
        if time.monotonic() + PAUSE_S > deadline:
            text = f"put: the storage actor of this node did not take the values in time: {said}"
            raise StorageTimeoutError(text) from error
        try:
            ray.get_actor(CONTROLLER, self._namespace)
        except ValueError:
            raise ControllerLostError(f"put: the controller of {self._namespace} is gone, and its storage") from error


def _forget(actor: Any, sent: Any, values: list[Block]) -> None:
    """What the actor is late with is not wanted when it comes."""
    sizes = [sum(array.nbytes for array in block) for block in values]

    def free(done: Future[tuple[int, list[int]]]) -> None:
        if done.exception() is None:
            actor.free.remote(list(zip(done.result()[1], sizes, strict=True)))

    sent.future().add_done_callback(free)


def _in_blocks(puts: list[_Put]) -> list[list[_Put]]:
    """The same puts in blocks; one of its own for each that is large."""
    blocks: list[list[_Put]] = []
    room = 0
    for put in puts:
        if put.size > room:
            blocks.append([])
            room = BLOCK_BYTES
        blocks[-1].append(put)
        room -= put.size
    return blocks
