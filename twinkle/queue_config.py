"""Settings of a queue that runs alone; importable without torch."""

from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from transfer_queue import BaseSampler, DPSampler, GRPOSampler, SequentialSampler
from transfer_queue.options import Options
from twinkle.choices import nearest
from twinkle.errors import ConfigError

BUILT_IN = {"sequential": SequentialSampler, "grpo": GRPOSampler}


@dataclass(frozen=True)
class AloneConfig:
    """One queue: every setting that bears the name of an argument of ``TransferQueueController.start`` becomes it.

    Attributes:
        global_batch_size: prompts of one step.
        num_global_batch: steps alive at once; a producer beyond them waits.
        num_n_samples: rows of one prompt.
        tasks: those that must all have consumed a step before it clears itself; without any, only ``clear`` frees it.
        sampler: serves every task without its own: ``sequential``, ``grpo``, or ``module:Class``, made without
            arguments.
        task_samplers: task -> the same.
        sampler_timeout_s: deadline of one call of a custom sampler.
        capacity_bytes: bytes of all values at which producers of new rows wait; null: the steps alone bound them.
        storage: ``shm``, large values in memory that the processes of this machine share, or ``memory``, all of them
            in the queue's process.
        shm_dir: folder of large values instead of /dev/shm.
        listen: address for clients on other machines, such as ``tcp://10.0.0.5:0``; null: this machine's alone.
        journal_dir: folder of the journal, from which the queue comes back when its process dies, and where a queue
            that is started later with the same folder and sizes goes on; null: its rows die with it.
        restore: checkpoint that a queue without a journal of its own begins with.
        fsync_ms: milliseconds of the journal that a loss of power may cost.
        info_file: where to say how clients reach the queue; readable by its owner only, gone with the queue.
    """

    global_batch_size: int = 64
    num_global_batch: int = 1
    num_n_samples: int = 1
    tasks: list[str] = field(default_factory=list)
    sampler: str = "sequential"
    task_samplers: dict[str, str] = field(default_factory=dict)
    sampler_timeout_s: float = 30.0
    capacity_bytes: int | None = None
    storage: str = "shm"
    shm_dir: str | None = None
    listen: str | None = None
    journal_dir: str | None = None
    restore: str | None = None
    fsync_ms: float = 50.0
    info_file: str = "queue.json"

    def validate(self) -> None:
        """Raise ConfigError for what the controller itself would not notice."""
        if not self.info_file or not Path(self.info_file).absolute().parent.is_dir():
            raise ConfigError(f"queue.info_file={self.info_file!r} lies in no folder: make the folder first.")

    def arguments(self) -> dict[str, Any]:
        """For ``TransferQueueController.start``."""
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.name in Options.__annotations__}
        tasks = {
            task: sampler_named(f"queue.task_samplers.{task}", name, self.num_n_samples)
            for task, name in self.task_samplers.items()
        }
        return {
            **given,
            "sampler": sampler_named("queue.sampler", self.sampler, self.num_n_samples),
            "task_samplers": tasks,
        }


def sampler_named(setting: str, name: str, num_n_samples: int) -> BaseSampler:
    """The sampler of a short name, of a built-in class, or of an import path; ConfigError names the setting."""
    known = {**BUILT_IN, **{made.__name__: made for made in BUILT_IN.values()}}
    found = known.get(name)
    if found is None and ":" not in name:
        raise ConfigError(
            f"{setting}={name!r} is no sampler: choose one of {', '.join(BUILT_IN)}, or name a class as "
            f"module:Class{nearest(name, known)}"
        )
    made: Any = found if found is not None else _imported(setting, name)
    if made is DPSampler:
        raise ConfigError(f"{setting}={name!r} gives one rank its place: each rank registers its own, as a client.")
    return made(num_n_samples=num_n_samples) if made is GRPOSampler else _made(setting, name, made)


def _imported(setting: str, path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigError(f"{setting}={path!r} cannot be imported: {type(error).__name__}: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, BaseSampler)):
        raise ConfigError(f"{setting}={path!r} is no subclass of transfer_queue.BaseSampler.")
    return found


def _made(setting: str, path: str, sampler: type[BaseSampler]) -> BaseSampler:
    try:
        return sampler()
    except Exception as error:
        raise ConfigError(f"{setting}={path!r} cannot be made without arguments: {error}.") from error


@dataclass(frozen=True)
class EndpointConfig:
    """The HTTP endpoint with /metrics, /readyz, /why and /v1/status.

    Attributes:
        port: 0 = off.
        host: address that it listens on.
    """

    port: int = 0
    host: str = "127.0.0.1"

    def validate(self) -> None:
        """Raise ConfigError for a number that is no port."""
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"metrics.port={self.port} is no port: 0 (off) to 65535.")


@dataclass(frozen=True)
class QueueProgramConfig:
    """What ``twinkle-queue`` runs; ``debug`` lets exceptions show their tracebacks."""

    queue: AloneConfig = field(default_factory=AloneConfig)
    metrics: EndpointConfig = field(default_factory=EndpointConfig)
    debug: bool = False

    def validate(self) -> None:
        """Raise ConfigError for the first setting that cannot work."""
        self.queue.validate()
        self.metrics.validate()
