"""`TransferQueueController`: the queue in a process of its own (`start`) or as a Ray actor (`remote`)."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import msgspec

from transfer_queue import wire
from transfer_queue.client import TransferQueueClient
from transfer_queue.errors import ConfigurationError, ControllerLostError, nearest, rebuild
from transfer_queue.ledger import QueueShape
from transfer_queue.process import Orders, registry_of
from transfer_queue.samplers.travel import SamplerLike, build, spec_of

START_S = 60.0
"""A controller is there in a fraction of a second; one whose samplers import torch takes some seconds."""
STOP_S = 5.0
ARGUMENTS = (
    "global_batch_size", "num_global_batch", "num_n_samples", "sampler", "task_samplers", "tasks", "sampler_timeout_s",
)  # fmt: skip


class TransferQueueController:
    """A running queue. Made by `start`, ended by `stop`, by the end of a `with` block, or with this process.

    Arguments of `start` and `remote`: `global_batch_size` prompts per step, `num_global_batch` steps alive at once,
    `num_n_samples` rows per prompt; `sampler` for all tasks and `task_samplers` by name (each an instance, a class, or
    a callable that makes one); `tasks` that must all have consumed a partition before it clears itself;
    `sampler_timeout_s` for one call of a custom sampler.
    """

    def __init__(self, process: subprocess.Popen[bytes], answer: Mapping[str, Any]) -> None:
        self._process = process
        self._directory = str(answer["directory"])
        self._info = {"endpoint": answer["endpoint"], "pid": answer["pid"]}
        self._owner = os.getpid()
        _running.add(self)

    @classmethod
    def start(
        cls,
        *,
        global_batch_size: int,
        num_global_batch: int = 1,
        num_n_samples: int = 1,
        sampler: SamplerLike | None = None,
        task_samplers: Mapping[str, SamplerLike] | None = None,
        tasks: Sequence[str] = (),
        sampler_timeout_s: float = 30.0,
        **unknown: object,
    ) -> TransferQueueController:
        """A controller in a process of its own, reached through a unix socket; wrong arguments raise here, at once."""
        _refuse_unknown(unknown)
        shape = _shape(global_batch_size, num_global_batch, num_n_samples, tasks)
        default = spec_of(sampler) if sampler is not None else None
        specs = {task: spec_of(each) for task, each in (task_samplers or {}).items()}
        registry_of(shape, build(default) if default else None, {task: build(spec) for task, spec in specs.items()})
        orders = Orders(shape, default, specs, sampler_timeout_s)
        process = subprocess.Popen(
            [sys.executable, "-m", "transfer_queue.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        return cls(process, _handshake(process, msgspec.json.encode(orders) + b"\n"))

    @staticmethod
    def remote(
        *,
        global_batch_size: int,
        num_global_batch: int = 1,
        num_n_samples: int = 1,
        sampler: SamplerLike | None = None,
        task_samplers: Mapping[str, SamplerLike] | None = None,
        tasks: Sequence[str] = (),
        sampler_timeout_s: float = 30.0,
        **unknown: object,
    ) -> Any:
        """The same as a Ray actor that takes no CPU; its handle has `get_info`, `register_sampler` and `stop`.

        Samplers travel as actor arguments, so a lambda or a class of `__main__` will do.
        """
        _refuse_unknown(unknown)
        shape = _shape(global_batch_size, num_global_batch, num_n_samples, tasks)
        from transfer_queue.ray_actor import start_actor

        return start_actor(shape, sampler, dict(task_samplers or {}), sampler_timeout_s)

    @property
    def pid(self) -> int:
        """Process id of the controller."""
        return self._process.pid

    def get_info(self) -> dict[str, Any]:
        """What a `TransferQueueClient` needs to reach this controller: plain data."""
        return dict(self._info)

    def register_sampler(self, task_name: str, sampler: SamplerLike) -> None:
        """Let `sampler` serve the task; a `DPSampler` gives every caller of the task its default DP parameters."""
        with TransferQueueClient("controller", self._info) as client:
            body = wire.RegisterSampler(task_name, spec_of(sampler), everyone=True)
            client.request(wire.Done, body, f"register_sampler for task {task_name!r}")

    def wait(self) -> int:
        """Return when the process has ended, with its exit code (negative: the signal that killed it)."""
        return self._process.wait()

    def stop(self) -> None:
        """End the process and remove its socket; may be called twice, and does nothing in a forked child."""
        if self._owner != os.getpid():
            return
        _running.discard(self)
        _end(self._process)
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> TransferQueueController:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


_running: weakref.WeakSet[TransferQueueController] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for controller in list(_running):
        controller.stop()


def _handshake(process: subprocess.Popen[bytes], orders: bytes) -> Mapping[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(orders)
        process.stdin.flush()
        readable, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if readable else b""
    except BrokenPipeError:
        line = b""
    except BaseException:
        _end(process)
        raise
    process.stdout.close()
    if line:
        answer: Mapping[str, Any] = json.loads(line)
        if "error" not in answer:
            return answer
        _end(process)
        raise rebuild(*answer["error"])
    code = process.poll()
    _end(process)
    what = f"ended with code {code}" if code is not None else f"did not answer for {START_S:g} s"
    raise ControllerLostError(f"the controller's process {what} while it started; its own words are above, on stderr")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask by closing stdin, then insist."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    asks: list[Callable[[], None]] = [lambda: None, process.terminate, process.kill]
    for ask in asks:
        ask()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
            return


def _shape(prompts: int, partitions: int, samples: int, tasks: Sequence[str]) -> QueueShape:
    if isinstance(tasks, str):
        raise ConfigurationError(f"tasks={tasks!r} is one string: give a list of names")
    return QueueShape(prompts, partitions, samples, tuple(tasks)).validate()


def _refuse_unknown(unknown: Mapping[str, object]) -> None:
    for name in unknown:
        raise ConfigurationError(
            f"TransferQueueController has no argument {name!r}{nearest(name, ARGUMENTS)}; "
            f"it takes {', '.join(ARGUMENTS)}"
        )
