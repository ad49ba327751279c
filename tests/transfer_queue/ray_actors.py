"""Processes of a Ray cluster, for tests: producers and consumers on a node of one's choice."""

import hashlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from transfer_queue import BatchMeta, TransferQueueClient
from transfer_queue.storage.place import is_actor, place_of
from transfer_queue.wire import Locate, Located


class Member:
    """A process with a client of its own."""

    def __init__(self, name: str, info: dict[str, Any]) -> None:
        self._client = TransferQueueClient(name, info, call_timeout_s=20)

    def put(self, name: str, rows: int, row_bytes: int, step: int) -> list[int]:
        return self._client.put({name: made(rows, row_bytes)}, global_step=step).global_indexes

    def complete(self, meta: BatchMeta, name: str, row_bytes: int) -> None:
        self._client.put({name: made(len(meta), row_bytes)}, meta)

    def digest(self, meta: BatchMeta, name: str) -> str:
        return digest(self._client.get_data(meta)[name])

    def place(self) -> tuple[str, int]:
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def plane(self) -> str:
        return type(self._client._plane).__name__


def member(name: str, info: dict[str, Any], node: str | None = None) -> Any:
    """A process on that node."""
    where = NodeAffinitySchedulingStrategy(node or ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(Member).options(scheduling_strategy=where).remote(name, info)


def made(rows: int, row_bytes: int) -> np.ndarray[Any, Any]:
    """Values that are the same in every process."""
    return np.random.default_rng(rows * row_bytes).integers(0, 255, (rows, row_bytes), dtype=np.uint8)


def digest(values: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(np.asarray(values))).hexdigest()


def storage(client: TransferQueueClient, segment: int = 0) -> Any:
    """The storage actor that a segment is."""
    path = client.request(Located, Locate([segment]), "locate").paths[0]
    assert is_actor(path)
    return place_of(path).handle()


def where(client: TransferQueueClient) -> tuple[str, int]:
    """Node and process id of the first storage actor."""
    found: tuple[str, int] = ray.get(storage(client).where.remote())
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for what comes by itself."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
