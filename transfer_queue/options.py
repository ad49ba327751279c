"""The arguments of a controller, in one place: how they are named, checked, and turned into plain settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Required, TypedDict

from transfer_queue.doors import check_address
from transfer_queue.engine import Settings
from transfer_queue.errors import ConfigurationError, nearest
from transfer_queue.ledger import QueueShape
from transfer_queue.ledger.request import check_seconds
from transfer_queue.samplers.travel import SamplerLike

PLANES = ("shm", "ray", "memory")


class Options(TypedDict, total=False):
    """What `TransferQueueController.start` and `.remote` take.

    Attributes:
        global_batch_size: prompts per step.
        num_global_batch: steps alive at once; a put that needs another waits.
        num_n_samples: rows per prompt.
        sampler: serves all tasks without their own: an instance, a class, or a callable that makes one.
        task_samplers: samplers by task.
        tasks: those that must all have consumed a partition before it clears itself.
        sampler_timeout_s: for one call of a custom sampler.
        capacity_bytes: bytes of all values; a put of new rows beyond that waits (None: bounded by the steps alone).
        storage: ``shm`` (large values in memory that the processes of this machine share), ``ray`` (in Ray's object
            store, for many machines; only ``remote``), or ``memory`` (all values in the controller).
        shm_dir: folder for large values instead of /dev/shm; an error if it has no room for ``capacity_bytes``.
        journal_dir: folder of the journal, from which the queue comes back when its controller dies, and where an
            earlier one left off (None: no journal).
        listen: ``tcp://host:port`` for clients on other machines (port 0: a free one), besides the unix socket; only
            who has what ``get_info`` returns comes in. With ``storage="ray"`` a free port of the node is the default.
        restore: a checkpoint (``client.checkpoint``) that the queue begins with, unless its journal holds more already.
        fsync_ms: how much of the journal a loss of power may cost, in milliseconds.
    """

    global_batch_size: Required[int]
    num_global_batch: int
    num_n_samples: int
    sampler: SamplerLike | None
    task_samplers: Mapping[str, SamplerLike] | None
    tasks: Sequence[str]
    sampler_timeout_s: float
    capacity_bytes: int | None
    storage: str
    shm_dir: str | Path | None
    journal_dir: str | Path | None
    listen: str | None
    restore: str | Path | None
    fsync_ms: float


def settings_of(options: Mapping[str, Any]) -> Settings:
    """The checked settings; `ConfigurationError` names argument, value and fix."""
    for name in options:
        if name not in Options.__annotations__:
            raise ConfigurationError(
                f"TransferQueueController has no argument {name!r}{nearest(name, Options.__annotations__)}; "
                f"it takes {', '.join(Options.__annotations__)}"
            )
    if "global_batch_size" not in options:
        raise ConfigurationError("TransferQueueController needs global_batch_size: the prompts of one step")
    tasks = options.get("tasks", ())
    if isinstance(tasks, str):
        raise ConfigurationError(f"tasks={tasks!r} is one string: give a list of names")
    shape = QueueShape(
        options["global_batch_size"], options.get("num_global_batch", 1), options.get("num_n_samples", 1), tuple(tasks)
    ).validate()
    check_seconds("sampler_timeout_s", options.get("sampler_timeout_s", 30.0))
    check_seconds("fsync_ms", options.get("fsync_ms", 50.0))
    if options.get("storage", "shm") not in PLANES:
        raise ConfigurationError(
            f"storage={options['storage']!r} is no data plane{nearest(str(options['storage']), PLANES)}: "
            f"it is one of {', '.join(PLANES)}"
        )
    check_address(options.get("listen"))
    capacity = options.get("capacity_bytes")
    if capacity is not None and (isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1):
        raise ConfigurationError(f"capacity_bytes must be a whole number of bytes of at least 1, not {capacity!r}")
    return Settings(
        shape=shape,
        sampler_timeout_s=options.get("sampler_timeout_s", 30.0),
        capacity_bytes=capacity,
        journal_dir=_path(options.get("journal_dir")),
        restore=_path(options.get("restore")),
        fsync_ms=options.get("fsync_ms", 50.0),
    )


def _path(given: str | Path | None) -> str | None:
    return str(Path(given).absolute()) if given is not None else None
