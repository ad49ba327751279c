"""The controller's own process: `python -m transfer_queue.process`, started by `TransferQueueController.start`.

Its orders come as one line of JSON on stdin; its answer, one line on stdout, is the address or the error. Then stdin
stays open: when it closes, the parent is gone, however it died, and the controller goes too. (A forked child of the
parent may hold the pipe open, so the parent's id is watched as well.)
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from typing import Any

import msgspec

from transfer_queue.errors import TransferQueueError
from transfer_queue.ledger import Ledger, QueueShape
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.samplers.travel import SamplerSpec, build
from transfer_queue.server import Server
from transfer_queue.service import Service
from transfer_queue.socket_directory import SocketDirectory
from transfer_queue.transport.descriptors import Descriptors, raise_limit
from transfer_queue.transport.unix import UnixListener


class Orders(msgspec.Struct, frozen=True):
    """What the process is started with."""

    shape: QueueShape
    sampler: SamplerSpec | None
    task_samplers: dict[str, SamplerSpec]
    sampler_timeout_s: float


def registry_of(shape: QueueShape, default: Any, task_samplers: dict[str, Any]) -> SamplerRegistry:
    """A registry with these samplers, checked against the sizes of the queue."""
    registry = SamplerRegistry(shape)
    if default is not None:
        registry.register(default)
    for task, sampler in task_samplers.items():
        registry.register(sampler, task)
    return registry


def server_of(
    shape: QueueShape, registry: SamplerRegistry, directory: SocketDirectory, sampler_timeout_s: float
) -> Server[Service]:
    """A server for a new queue, that listens in this folder."""
    ledger = Ledger(shape, time.monotonic)
    listener = UnixListener(directory.socket, Descriptors())
    return Server(lambda post: Service(ledger, registry, post, sampler_timeout_s), [listener])


def main() -> int:
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_limit()
    orders = msgspec.json.decode(_first_line(), type=Orders)
    try:
        default = build(orders.sampler) if orders.sampler is not None else None
        tasks = {task: build(spec) for task, spec in orders.task_samplers.items()}
        registry = registry_of(orders.shape, default, tasks)
    except TransferQueueError as error:
        _answer({"error": [type(error).__name__, str(error), error.details]})
        return 2
    directory = SocketDirectory()
    try:
        server = server_of(orders.shape, registry, directory, orders.sampler_timeout_s)
        signal.signal(signal.SIGTERM, lambda *_: server.stop())
        _answer({"endpoint": directory.endpoint, "pid": os.getpid(), "directory": str(directory.path)})
        gc.collect()
        gc.freeze()  # what is here now stays; and rows come and go by the thousand without ever forming cycles
        gc.set_threshold(100_000)
        server.run(sys.stdin.fileno(), still_wanted=lambda: os.getppid() == parent)
    finally:
        directory.remove()
    return 0


def _first_line() -> bytes:
    """The line of orders, and not a byte more: what follows belongs to the loop."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 65536)
        if not byte:
            raise SystemExit(0)  # the parent died before it gave its orders
        line += byte
    return bytes(line)


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a sampler's print must not fill the parent's pipe


if __name__ == "__main__":
    sys.exit(main())
