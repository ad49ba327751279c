"""The controller as a Ray actor: the same server in a thread of the actor, reached over the same sockets.

With a journal Ray starts it again on the same node when it dies; it finds its folders, its port and its keys there, so
that clients reconnect to where they were.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from transfer_queue import doors
from transfer_queue.engine import open_queue
from transfer_queue.errors import ConfigurationError, ControllerLostError, FieldLostError
from transfer_queue.home import Home
from transfer_queue.options import settings_of
from transfer_queue.process import registry_of
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.samplers.travel import SamplerLike, instance_of
from transfer_queue.server import Server
from transfer_queue.service import Service
from transfer_queue.storage.place import CONTROLLER, is_actor, namespace_of, place_of
from transfer_queue.transport.descriptors import raise_limit
from transfer_queue.transport.keys import Keys

log = logging.getLogger("transfer_queue")

STOP_S = 5.0
STAY_S = 60.0
"""How often a controller that comes back says that its folders shall stay."""


class ControllerActor:
    """What runs inside the actor. `run` names what it comes back to: 8 hex digits."""

    def __init__(self, options: Mapping[str, Any], run: str) -> None:
        settings, registry = settings_of(options), _registry(options)
        self._namespace = namespace_of(run)
        self._durable = settings.journal_dir is not None
        self._storage, shm_dir = options.get("storage", "shm"), options.get("shm_dir")
        self._home = Home.make(
            self._storage, settings.capacity_bytes, Path(shm_dir) if shm_dir is not None else None, run
        )
        if self._home.warning is not None:
            log.warning("%s", self._home.warning)
        arenas = str(self._home.arenas.path) if self._home.arenas is not None else None
        settings = msgspec.structs.replace(settings, arenas=arenas, namespace=self._namespace)
        raise_limit()
        listeners, self._door = doors.listen(self._home.socket_path, self._door_to_open(options))
        self._server: Server[Service] = Server(
            lambda post: open_queue(settings, registry, post, self._give_up), listeners
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._server.run, name="transfer queue", daemon=True)
        self._thread.start()
        if self._durable:
            self._come_back()
        atexit.register(self._end)

    def _door_to_open(self, options: Mapping[str, Any]) -> doors.TcpDoor | None:
        """The one that the controller had before it died, or a new one; its keys are made here and stay here."""
        address = options.get("listen")
        if address is None and self._storage == "ray":
            address = f"tcp://{_node_ip()}:0"
        if address is None:
            return None
        kept = doors.kept_in(self._home.socket.path) if self._durable else None
        return kept or doors.TcpDoor(address, Keys.make())

    def _come_back(self) -> None:
        """Leave what is needed to be found again, if this process dies."""
        if self._door is not None:
            doors.keep(self._home.socket.path, self._door)

        def stay() -> None:
            while not self._ended.is_set():
                with contextlib.suppress(OSError):  # the folders go when the queue ends
                    self._home.stay()
                self._ended.wait(STAY_S)

        threading.Thread(target=stay, name="transfer queue stays", daemon=True).start()

    def _give_up(self, error: Exception) -> None:
        log.error("the controller ends, for it could not write what it did: %s", error)
        os._exit(70)  # nobody may hear of what is not written; Ray starts the actor again from its journal

    def get_info(self) -> dict[str, Any]:
        """What a `TransferQueueClient` needs to reach the controller, from any machine of the cluster."""
        if self._ended.is_set():
            raise ControllerLostError("the controller was stopped")
        info = {**self._home.info, "pid": os.getpid(), "durable": self._durable}
        if self._storage == "ray":
            info |= {"storage": "ray", "namespace": self._namespace}
        return info if self._door is None else info | self._door.info(_node_ip())

    def register_sampler(self, task_name: str, sampler: SamplerLike) -> None:
        """Let `sampler` serve the task; a `DPSampler` gives every caller of the task its default DP parameters."""
        made = instance_of(sampler)
        self._server.submit(lambda: self._server.receiver.register_sampler(made, task_name, None, None)).result()

    def stop(self) -> None:
        """End the server, the storage actors, and remove the folders; may be called twice."""
        if not self._ended.is_set():
            known = self._server.receiver.catalog.segments.known
            paths = self._server.submit(lambda: [each.path for each in known.values()]).result(STOP_S)
            self._end()
            _end_storage(filter(is_actor, paths))

    def _end(self) -> None:
        self._ended.set()
        self._server.stop()
        self._thread.join(STOP_S)
        self._server.receiver.close()
        self._home.remove()


def _end_storage(paths: Iterable[str]) -> None:
    import ray

    for path in paths:
        try:
            ray.kill(place_of(path).handle())
        except FieldLostError:
            continue  # dead already


def _node_ip() -> str:
    import ray

    return str(ray.util.get_node_ip_address())


def _registry(options: Mapping[str, Any]) -> SamplerRegistry:
    sampler: SamplerLike | None = options.get("sampler")
    default = instance_of(sampler) if sampler is not None else None
    tasks: Mapping[str, SamplerLike] = options.get("task_samplers") or {}
    return registry_of(settings_of(options).shape, default, {task: instance_of(each) for task, each in tasks.items()})


def start_actor(options: Mapping[str, Any]) -> Any:
    """The actor's handle. The samplers are made and checked here too, so that a wrong one raises in the caller.

    It runs on the caller's node, and with a journal comes back there; a soft wish would be passed over by Ray.
    """
    try:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ImportError:
        raise ConfigurationError(
            "TransferQueueController.remote needs Ray, which is not installed: install the extra [ray], or use "
            "TransferQueueController.start, which needs none"
        ) from None
    _registry(options)
    durable = options.get("journal_dir") is not None
    if not ray.is_initialized():
        ray.init()
    run = secrets.token_hex(4)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    again = {"max_restarts": -1, "max_task_retries": -1} if durable else {}
    actor = ray.remote(num_cpus=0)(ControllerActor).options(
        name=CONTROLLER, namespace=namespace_of(run), scheduling_strategy=here, **again
    )
    return actor.remote(dict(options), run)
