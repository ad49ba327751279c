"""What a run holds on Ray: a connection, device groups for its workers, and the queue's controller as an actor."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

import twinkle
from transfer_queue import TransferQueueController
from twinkle.errors import ConfigError, RunError
from twinkle.infra import DeviceGroup

QUEUE_S = 60.0
FOR_MANY = ("ray", "memory")
"""Storages that clients on other machines reach."""


@contextmanager
def connected(*, address: str | None, timeout_s: float) -> Iterator[None]:
    """This process is connected to Ray while the block runs; a Ray that it had to start ends with it."""
    twinkle.initialize("ray", address=address, timeout_s=timeout_s)
    try:
        yield
    finally:
        twinkle.initialize("local")


def set_apart(groups: Sequence[DeviceGroup], *, storage: str, address: str | None, timeout_s: float) -> None:
    """Set the ranks of device groups apart, as long as the connection lasts; ``storage`` is the queue's.

    Raises:
        ConfigError: the cluster has not got the ranks, or has several machines and a queue of one.
    """
    twinkle.initialize("ray", groups, address=address, timeout_s=timeout_s)
    nodes = sum(node["Alive"] for node in ray.nodes())
    if nodes > 1 and storage not in FOR_MANY:
        raise ConfigError(
            f"the Ray cluster has {nodes} machines, but queue.storage={storage} is for one: set queue.storage=ray."
        )


@contextmanager
def queue_on_ray(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The controller_info of a queue whose controller is an actor without a CPU, on the machine of this process.

    With storage ``memory`` it listens for other machines too, which with ``ray`` it does anyway. With a journal Ray
    starts the actor again where it was.
    """
    if options.get("storage") == "memory":
        options = {**options, "listen": f"tcp://{ray.util.get_node_ip_address()}:0"}
    actor = TransferQueueController.remote(**options)
    try:
        yield _started(actor)
    finally:
        with suppress(RayError):  # it may be what was lost
            ray.get(actor.stop.remote(), timeout=QUEUE_S)
        ray.kill(actor)


def _started(actor: Any) -> dict[str, Any]:
    try:
        info: dict[str, Any] = ray.get(actor.get_info.remote(), timeout=QUEUE_S)
    except GetTimeoutError as error:
        raise RunError(f"The queue's controller did not start on this machine within {QUEUE_S:g} s.") from error
    except RayActorError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RunError(f"The queue's controller did not start on this machine: {lines[-1]}") from error
    return info
