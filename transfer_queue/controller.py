"""`TransferQueueController`: the queue in a process of its own (`start`) or as a Ray actor (`remote`)."""

from __future__ import annotations

import atexit
import os
import warnings
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

import msgspec

from transfer_queue import wire
from transfer_queue.client import TransferQueueClient
from transfer_queue.doors import TcpDoor
from transfer_queue.errors import ConfigurationError
from transfer_queue.home import Home
from transfer_queue.options import Options, settings_of
from transfer_queue.process import Orders, registry_of
from transfer_queue.samplers.travel import SamplerLike, build, spec_of
from transfer_queue.supervisor import Supervisor
from transfer_queue.transport.keys import Keys


class TransferQueueController:
    """A running queue. Made by `start`, ended by `stop`, by the end of a `with` block, or with this process.

    The arguments of `start` and `remote` are those of `transfer_queue.options.Options`; only `global_batch_size` has to
    be given.
    """

    def __init__(self, home: Home, supervisor: Supervisor, *, durable: bool) -> None:
        self._home, self._supervisor, self._durable = home, supervisor, durable
        self._owner = os.getpid()
        _running.add(self)

    @classmethod
    def start(cls, **options: Unpack[Options]) -> TransferQueueController:
        """A controller in a process of its own, reached through a unix socket; wrong arguments raise here, at once.

        With `journal_dir` it is started again whenever it dies, its clients reconnect by themselves, and a controller
        that is started later with the same folder and sizes goes on where this one ended.
        """
        settings = settings_of(options)
        if options.get("storage") == "ray":
            raise ConfigurationError("storage='ray' needs a controller in Ray: TransferQueueController.remote(...)")
        sampler = options.get("sampler")
        default = spec_of(sampler) if sampler is not None else None
        specs = {task: spec_of(each) for task, each in (options.get("task_samplers") or {}).items()}
        made = {task: build(spec) for task, spec in specs.items()}
        registry_of(settings.shape, build(default) if default else None, made)
        shm_dir = options.get("shm_dir")
        home = Home.make(
            options.get("storage", "shm"), settings.capacity_bytes, Path(shm_dir) if shm_dir is not None else None
        )
        if home.warning is not None:
            warnings.warn(home.warning, stacklevel=2)
        arenas = str(home.arenas.path) if home.arenas is not None else None
        address = options.get("listen")
        door = TcpDoor(address, Keys.make()) if address is not None else None
        settings = msgspec.structs.replace(settings, arenas=arenas)
        orders = Orders(settings, str(home.socket.path), default, specs, door)
        durable = settings.journal_dir is not None
        try:
            return cls(home, Supervisor(orders, restart=durable), durable=durable)
        except BaseException:
            home.remove()
            raise

    @staticmethod
    def remote(**options: Unpack[Options]) -> Any:
        """The same as a Ray actor that takes no CPU; its handle has `get_info`, `register_sampler` and `stop`.

        Samplers travel as actor arguments, so a lambda or a class of `__main__` will do.
        """
        settings_of(options)
        from transfer_queue.ray_actor import start_actor

        return start_actor(dict(options))

    @property
    def pid(self) -> int:
        """Process id of the controller that runs now."""
        return self._supervisor.pid

    def get_info(self) -> dict[str, Any]:
        """What a `TransferQueueClient` needs to reach this controller: plain data."""
        info = {**self._home.info, "pid": self.pid, "durable": self._durable}
        door = self._supervisor.door
        return info if door is None else info | door.info()

    def register_sampler(self, task_name: str, sampler: SamplerLike) -> None:
        """Let `sampler` serve the task; a `DPSampler` gives every caller of the task its default DP parameters."""
        with TransferQueueClient("controller", self.get_info()) as client:
            body = wire.RegisterSampler(task_name, spec_of(sampler), everyone=True)
            client.request(wire.Done, body, f"register_sampler for task {task_name!r}")

    def wait(self) -> int:
        """Return when the queue has ended for good, with its process's exit code (negative: the signal that killed it).

        A process that is started again, as it is with `journal_dir`, is no end.
        """
        return self._supervisor.wait()

    def stop(self) -> None:
        """End the process and remove its folders; may be called twice, and does nothing in a forked child."""
        if self._owner != os.getpid():
            return
        _running.discard(self)
        self._supervisor.stop()
        self._home.remove()

    def __enter__(self) -> TransferQueueController:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


_running: weakref.WeakSet[TransferQueueController] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for controller in list(_running):
        controller.stop()
