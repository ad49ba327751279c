"""The controller as a Ray actor: the same server in a thread of the actor, reached over the same socket."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from transfer_queue.engine import open_queue
from transfer_queue.errors import ConfigurationError
from transfer_queue.home import Home
from transfer_queue.options import settings_of
from transfer_queue.process import registry_of
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.samplers.travel import SamplerLike, instance_of
from transfer_queue.server import Server
from transfer_queue.service import Service
from transfer_queue.transport.descriptors import Descriptors, raise_limit
from transfer_queue.transport.unix import UnixListener

log = logging.getLogger("transfer_queue")


class ControllerActor:
    """What runs inside the actor."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        settings = settings_of(options)
        registry = _registry(options)
        shm_dir = options.get("shm_dir")
        self._home = Home.make(
            options.get("storage", "shm"), settings.capacity_bytes, Path(shm_dir) if shm_dir is not None else None
        )
        if self._home.warning is not None:
            log.warning("%s", self._home.warning)
        arenas = str(self._home.arenas.path) if self._home.arenas is not None else None
        settings = msgspec.structs.replace(settings, arenas=arenas)
        raise_limit()
        listener = UnixListener(self._home.socket_path, Descriptors())
        self._server: Server[Service] = Server(
            lambda post: open_queue(settings, registry, post, self._give_up), [listener]
        )
        self._durable = settings.journal_dir is not None
        self._thread = threading.Thread(target=self._server.run, name="transfer queue", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def _give_up(self, error: Exception) -> None:
        log.error("the controller ends, for it could not write what it did: %s", error)
        os._exit(70)  # nobody may hear of what is not written; Ray starts the actor again from its journal

    def get_info(self) -> dict[str, Any]:
        """What a `TransferQueueClient` on this machine needs to reach the controller."""
        return {**self._home.info, "pid": os.getpid(), "durable": self._durable}

    def register_sampler(self, task_name: str, sampler: SamplerLike) -> None:
        """Let `sampler` serve the task; a `DPSampler` gives every caller of the task its default DP parameters."""
        made = instance_of(sampler)
        self._server.submit(lambda: self._server.receiver.register_sampler(made, task_name, None, None)).result()

    def stop(self) -> None:
        """End the server and remove its folders; may be called twice."""
        self._server.stop()
        self._thread.join(5.0)
        self._server.receiver.close()
        self._home.remove()


def _registry(options: Mapping[str, Any]) -> SamplerRegistry:
    sampler: SamplerLike | None = options.get("sampler")
    default = instance_of(sampler) if sampler is not None else None
    tasks: Mapping[str, SamplerLike] = options.get("task_samplers") or {}
    return registry_of(settings_of(options).shape, default, {task: instance_of(each) for task, each in tasks.items()})


def start_actor(options: Mapping[str, Any]) -> Any:
    """The actor's handle. The samplers are made and checked here too, so that a wrong one raises in the caller."""
    try:
        import ray
    except ImportError:
        raise ConfigurationError(
            "TransferQueueController.remote needs Ray, which is not installed: install the extra [ray], or use "
            "TransferQueueController.start, which needs none"
        ) from None
    _registry(options)
    actor = ray.remote(num_cpus=0)(ControllerActor)
    return actor.remote(dict(options))
