"""What a run holds on Ray: a connection, device groups for its workers, and the queue's controller as an actor."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

import twinkle
from transfer_queue import TransferQueueController
from twinkle.config import TrainConfig
from twinkle.errors import ConfigError, RunError

QUEUE_S = 60.0
FOR_MANY = ("ray", "memory")
"""Storages that clients on other machines reach."""


@contextmanager
def connected(config: TrainConfig) -> Iterator[None]:
    """This process is connected to Ray while the block runs; a Ray that it had to start ends with it."""
    twinkle.initialize("ray", address=config.infra.address, timeout_s=config.infra.timeout_s)
    try:
        yield
    finally:
        twinkle.initialize("local")


def set_apart(config: TrainConfig) -> None:
    """Set the ranks of the run's device groups apart, as long as the connection lasts.

    Raises:
        ConfigError: the cluster has not got the ranks, or has several machines and a queue of one.
    """
    twinkle.initialize("ray", config.device_groups(), address=config.infra.address, timeout_s=config.infra.timeout_s)
    nodes = sum(node["Alive"] for node in ray.nodes())
    if nodes > 1 and config.queue.storage not in FOR_MANY:
        raise ConfigError(
            f"the Ray cluster has {nodes} machines, but queue.storage={config.queue.storage} is for one: set "
            "queue.storage=ray."
        )


@contextmanager
def queue_on_ray(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The controller_info of a queue whose controller is an actor without a CPU, on the machine of this process.

    With storage ``memory`` it listens for other machines too, which with ``ray`` it does anyway. With a journal Ray
    starts the actor again where it was.
    """
    if options["storage"] == "memory":
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
