"""What a run holds on Ray: device groups for its workers, and the queue's controller as an actor."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

import twinkle
from transfer_queue import TransferQueueController
from twinkle.errors import ConfigError
from twinkle.infra import DeviceGroup

QUEUE_S = 60.0


@contextmanager
def groups_on_ray(
    groups: Sequence[DeviceGroup], *, storage: str, address: str | None, timeout_s: float
) -> Iterator[None]:
    """The device groups are set apart while the block runs; a Ray that had to be started ends with it.

    Raises:
        ConfigError: the cluster has not got the ranks, or has several machines and a queue whose ``storage`` is of one.
    """
    twinkle.initialize("ray", groups, address=address, timeout_s=timeout_s)
    try:
        nodes = sum(node["Alive"] for node in ray.nodes())
        if nodes > 1 and storage != "ray":
            raise ConfigError(
                f"the Ray cluster has {nodes} machines, but the queue's storage={storage} is for one: set "
                "queue.storage=ray."
            )
        yield
    finally:
        twinkle.initialize("local")


@contextmanager
def queue_on_ray(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The controller_info of a queue whose controller is an actor without a CPU, on the machine of this process."""
    actor = TransferQueueController.remote(**options)
    try:
        yield ray.get(actor.get_info.remote(), timeout=QUEUE_S)
    finally:
        try:
            ray.get(actor.stop.remote(), timeout=QUEUE_S)
        finally:
            ray.kill(actor)
