"""The controller's own process: `python -m transfer_queue.process`, started by `TransferQueueController.start`.

Its orders come as one line of JSON on stdin; its answer, one line on stdout, is the address or the error. Then stdin
stays open: when it closes, the parent is gone, however it died, and the controller goes too. (A forked child of the
parent may hold the pipe open, so the parent's id is watched as well.)
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
from typing import Any

import msgspec

from transfer_queue.doors import TcpDoor, listen
from transfer_queue.engine import Settings, open_queue
from transfer_queue.errors import TransferQueueError
from transfer_queue.home import Home
from transfer_queue.ledger import QueueShape
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.samplers.travel import SamplerSpec, build
from transfer_queue.server import Server
from transfer_queue.service import Service
from transfer_queue.transport.descriptors import raise_limit

log = logging.getLogger("transfer_queue")

GAVE_UP = 70
"""Exit code of a controller that could not go on, such as with a full disk under its journal."""


class Orders(msgspec.Struct, frozen=True):
    """What the process is started with; `socket` is the folder that its socket lies in.

    They come through a pipe, so that the keys of the `door` show neither in arguments nor in the environment.
    """

    settings: Settings
    socket: str
    sampler: SamplerSpec | None
    task_samplers: dict[str, SamplerSpec]
    door: TcpDoor | None = None


def registry_of(shape: QueueShape, default: Any, task_samplers: dict[str, Any]) -> SamplerRegistry:
    """A registry with these samplers, checked against the sizes of the queue."""
    registry = SamplerRegistry(shape)
    if default is not None:
        registry.register(default)
    for task, sampler in task_samplers.items():
        registry.register(sampler, task)
    return registry


def serve(orders: Orders, parent: int) -> int:
    """Run the controller until it is not wanted any more; its exit code."""
    home = Home.hold(orders.socket, orders.settings.arenas)
    gave_up: list[Exception] = []

    def fatal(error: Exception) -> None:
        log.error("the controller ends, for it could not write what it did: %s", error)
        gave_up.append(error)
        server.stop()

    default = build(orders.sampler) if orders.sampler is not None else None
    tasks = {task: build(spec) for task, spec in orders.task_samplers.items()}
    registry = registry_of(orders.settings.shape, default, tasks)
    raise_limit()
    listeners, door = listen(home.socket_path, orders.door)
    server: Server[Service] = Server(lambda post: open_queue(orders.settings, registry, post, fatal), listeners)
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    _answer({"pid": os.getpid(), "listens": door.address if door is not None else None})
    gc.collect()
    gc.freeze()  # what is here now stays; and rows come and go by the thousand without ever forming cycles
    gc.set_threshold(100_000)
    server.run(sys.stdin.fileno(), still_wanted=lambda: os.getppid() == parent)
    server.receiver.close()
    if gave_up:
        return GAVE_UP
    home.remove()
    return 0


def main() -> int:
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="transfer_queue: %(message)s")
    try:
        return serve(msgspec.json.decode(_first_line(), type=Orders), parent)
    except TransferQueueError as error:
        _answer({"error": [type(error).__name__, str(error), error.details]})
        return 2


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
