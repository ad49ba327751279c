"""The controller as a Ray actor: the same server in a thread of the actor, reached over the same socket."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from typing import Any

from transfer_queue.errors import ConfigurationError
from transfer_queue.ledger import QueueShape
from transfer_queue.process import registry_of, server_of
from transfer_queue.samplers.travel import SamplerLike, instance_of
from transfer_queue.socket_directory import SocketDirectory
from transfer_queue.transport.descriptors import raise_limit


class ControllerActor:
    """What runs inside the actor."""

    def __init__(
        self,
        shape: QueueShape,
        sampler: SamplerLike | None,
        task_samplers: Mapping[str, SamplerLike],
        sampler_timeout_s: float,
    ) -> None:
        default = instance_of(sampler) if sampler is not None else None
        registry = registry_of(shape, default, {task: instance_of(each) for task, each in task_samplers.items()})
        raise_limit()
        self._directory = SocketDirectory()
        self._server = server_of(shape, registry, self._directory, sampler_timeout_s)
        self._thread = threading.Thread(target=self._server.run, name="transfer queue", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def get_info(self) -> dict[str, Any]:
        """What a `TransferQueueClient` on this machine needs to reach the controller."""
        return {"endpoint": self._directory.endpoint, "pid": os.getpid()}

    def register_sampler(self, task_name: str, sampler: SamplerLike) -> None:
        """Let `sampler` serve the task; a `DPSampler` gives every caller of the task its default DP parameters."""
        made = instance_of(sampler)
        self._server.submit(lambda: self._server.receiver.register_sampler(made, task_name, None)).result()

    def stop(self) -> None:
        """End the server and remove its socket; may be called twice."""
        self._server.stop()
        self._thread.join(5.0)
        self._directory.remove()


def start_actor(
    shape: QueueShape,
    sampler: SamplerLike | None,
    task_samplers: Mapping[str, SamplerLike],
    sampler_timeout_s: float,
) -> Any:
    """The actor's handle. The samplers are made and checked here too, so that a wrong one raises in the caller."""
    try:
        import ray
    except ImportError:
        raise ConfigurationError(
            "TransferQueueController.remote needs Ray, which is not installed: install the extra [ray], or use "
            "TransferQueueController.start, which needs none"
        ) from None
    default = instance_of(sampler) if sampler is not None else None
    registry_of(shape, default, {task: instance_of(each) for task, each in task_samplers.items()})
    actor = ray.remote(num_cpus=0)(ControllerActor)
    return actor.remote(shape, sampler, dict(task_samplers), sampler_timeout_s)
