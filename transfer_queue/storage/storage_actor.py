"""The storage actor of a node: it puts what producers send it into Ray's store, as the owner, and drops what is freed.

It belongs to no producer and not to the controller either, so that neither death costs a value. It is a client of the
controller: attached as one segment, told by `Recycle` which bytes are free, and gone soon after the queue is.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

import ray
from numpy.typing import NDArray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from transfer_queue import wire
from transfer_queue.client import TransferQueueClient
from transfer_queue.errors import ControllerLostError, StorageFullError, TransferQueueError
from transfer_queue.storage.blocks import Blocks
from transfer_queue.storage.place import ADDRESSES, CONTROLLER, Place
from transfer_queue.storage.recycling import Recycling

log = logging.getLogger("transfer_queue")

CALLS = 32
"""Calls that one storage actor carries out at once."""
STAY_S = 60.0
"""How long one call of `stay` takes; whoever watches calls again."""
RECYCLE_S = 10.0
GATHER_S = 0.05
"""Between two questions for free bytes: rows that go one by one are not worth a message each."""
INFO_S = 20.0

Block = list[NDArray[Any]]
"""What lies in one object of Ray's store: arrays of bytes, one after the other."""


class StorageActor:
    """What runs inside the actor; its methods run in threads, side by side."""

    def __init__(self, namespace: str, name: str) -> None:
        self._namespace, self._name = namespace, name
        self._lock = threading.Lock()
        self._blocks: Blocks[ray.ObjectRef] = Blocks()
        self._client = self._connected()
        place = Place(namespace, name, ray.get_runtime_context().get_actor_id())
        self._segment = self._client.request(wire.Attached, wire.Attach(str(place), ADDRESSES), "attach").segment
        threading.Thread(target=self._recycle_for_ever, name="recycle", daemon=True).start()

    def put(self, blocks: list[Block]) -> tuple[int, list[int]]:
        """Keep these; the segment that they lie in, and where each begins."""
        try:
            refs = [ray.put(block) for block in blocks]
        except ray.exceptions.ObjectStoreFullError as error:
            raise StorageFullError(f"Ray's object store of node {self._name} is full: {error}") from None
        with self._lock:
            return self._segment, [
                self._blocks.add(sum(array.nbytes for array in block), ref)
                for block, ref in zip(blocks, refs, strict=True)
            ]

    def find(self, addresses: list[int]) -> list[tuple[int, ray.ObjectRef]]:
        """The blocks that these addresses lie in, and where each begins."""
        with self._lock:
            return list(self._blocks.find(addresses).items())

    def free(self, ranges: list[tuple[int, int]]) -> None:
        """Nobody will ask for these bytes (offset, size) any more."""
        with self._lock:
            for offset, size in ranges:
                self._blocks.free(offset, size)

    def stay(self) -> None:
        """Return after a while: whoever calls hears at once of the actor's death."""
        time.sleep(STAY_S)

    def held(self) -> tuple[int, int]:
        """How many blocks there are, and their bytes."""
        with self._lock:
            return len(self._blocks), self._blocks.size

    def where(self) -> tuple[str, int]:
        """Node and process id."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def _recycle_for_ever(self) -> None:
        recycling = Recycling(lambda ranges: self.free([where[1:] for where in ranges]))
        while True:
            try:
                self._client.carry_out(recycling.ask([self._segment], RECYCLE_S, "recycle waited"))
                time.sleep(GATHER_S)
            except TransferQueueError as error:
                log.info("the storage actor %s lost its controller: %s", self._name, error)
                self._client.close()
                self._client = self._connected()

    def _connected(self) -> TransferQueueClient:
        """A client of the controller, wherever that is now. Once it is gone for good there is nothing to be kept."""
        while True:
            try:
                controller = ray.get_actor(CONTROLLER, self._namespace)
                info = ray.get(controller.get_info.remote(), timeout=INFO_S)
            except (ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError):
                time.sleep(0.5)  # it is on its way back
            except (ValueError, ray.exceptions.RayError, ControllerLostError):
                os._exit(0)
            else:
                info.pop("storage", None)
                return TransferQueueClient(self._name, info, call_timeout_s=RECYCLE_S)


def storage_here(namespace: str) -> Any:
    """The storage actor of this node, made if there is none."""
    node = ray.get_runtime_context().get_node_id()
    name = f"storage-{node}"
    options = ray.remote(num_cpus=0, max_restarts=0)(StorageActor).options(
        name=name, namespace=namespace, get_if_exists=True, lifetime="detached", max_concurrency=CALLS,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    )  # fmt: skip
    return options.remote(namespace, name)
