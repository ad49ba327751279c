"""Between a loader and its workers: the leases they report, the errors they send, and how they are told to leave."""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from transfer_queue.client import TransferQueueClient
from transfer_queue.errors import LeaseError, TransferQueueError
from transfer_queue.meta import BatchMeta

log = logging.getLogger(__name__)

WATCH_S = 1.0
"""How often a worker looks whether its parent still lives."""
GRACE_S = 0.5
"""A request that has not been answered for so long waits for rows."""
LEFT_S = 10.0
"""Workers that have been told to leave are gone by then."""
LOOK_S = 0.01
"""Between two looks whether the workers have left."""
LEASE = struct.Struct("<q")


class Failure(NamedTuple):
    """An error of a worker, on its way to the loop in its own words."""

    name: str
    message: str
    details: dict[str, Any]


class Ties(NamedTuple):
    """What ties a worker to its parent: where it reports its leases, and where it is told to leave, by one byte each.

    Pipes, and messages that the system writes and reads whole: a worker may be killed at any moment.
    """

    report: Connection
    leave: Connection


class WayOut:
    """How a worker leaves: not between being given rows and reporting their lease, unless it waits for rows there."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asking = self._leaving = False

    def begins_to_ask(self) -> bool:
        """Whether there is still time for one more request."""
        with self._changed:
            self._asking = not self._leaving
            return self._asking

    def has_reported(self) -> None:
        with self._changed:
            self._asking = False
            self._changed.notify_all()

    def watch(self, leave: Connection, parent: int) -> None:
        """End the process when told so, or when its parent is gone."""
        while not leave.poll(WATCH_S):
            if os.getppid() != parent:
                os._exit(0)
        os.read(leave.fileno(), 1)
        with self._changed:
            self._leaving = True
            self._changed.wait_for(lambda: not self._asking, GRACE_S)
        os._exit(0)


class Held:
    """The leases that workers took and that were not settled yet, as far as they have reported them."""

    def __init__(self, reader: Connection, workers: Sequence[BaseProcess]) -> None:
        self._reader, self._workers = reader, workers
        self._leases: set[int] = set()

    def over(self, meta: BatchMeta) -> None:
        """The loop is through with these rows."""
        self._read()
        self._leases.discard(-1 if meta.lease is None else meta.lease)

    def release(self, client: TransferQueueClient) -> None:
        """Once every worker has left, or after `LEFT_S`, give back all that they have reported.

        A worker that is only about to leave may still wait for rows, and what is given back would be given to it.
        """
        deadline = time.monotonic() + LEFT_S
        for worker in self._workers:
            while worker.is_alive() and time.monotonic() < deadline:
                self._read()  # no worker must wait for room in the pipe
                worker.join(LOOK_S)
        self._read()
        while self._leases:
            give_back(client, BatchMeta([], [], [], [], lease=self._leases.pop()))

    def _read(self) -> None:
        try:
            while self._reader.poll():
                self._leases.add(LEASE.unpack(self._reader.recv_bytes())[0])
        except EOFError:
            return  # no worker is left to report anything


def give_back(client: TransferQueueClient, meta: BatchMeta) -> None:
    """Release a lease while a loop ends, perhaps with an error of its own that must not be hidden by one of ours."""
    try:
        client.release(meta)
    except LeaseError:
        return  # the rows went back by themselves
    except TransferQueueError as error:
        log.warning("lease %s was not given back and ends when it expires: %s", meta.lease, error)
