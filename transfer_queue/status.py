"""`GET /v1/status`: one document about a queue and the run around it, bounded whatever the queue holds."""

from __future__ import annotations

import math

import msgspec

from transfer_queue.ledger.explain import Explanation
from transfer_queue.wire import MOST_TASKS, Stats, Surveyed, TaskStats

MOST_BYTES = 1 << 16
MOST_REASONS = 16
TEXT = 256
"""Characters of any text in the document."""


class Figures(msgspec.Struct, frozen=True):
    """Where training stands; None is what nobody said.

    `attempt` counts the starts of the run, `lineage` its histories of weights, `step` and `checkpoint_step` optimizer
    steps done and saved, `version` names the newest weights, `reward` is the mean of the newest step, and `eval_reward`
    that of the newest evaluation, on prompts that nobody trains on.
    """

    attempt: int | None = None
    lineage: int | None = None
    step: int | None = None
    version: str | None = None
    reward: float | None = None
    checkpoint_step: int | None = None
    eval_reward: float | None = None


class Progress:
    """The figures of a run, set by whoever runs the loop and read by the endpoint's threads, all of one moment."""

    def __init__(self) -> None:
        self.now = Figures()

    def update(
        self,
        *,
        attempt: int | None = None,
        lineage: int | None = None,
        step: int | None = None,
        version: str | None = None,
        reward: float | None = None,
        checkpoint_step: int | None = None,
        eval_reward: float | None = None,
    ) -> None:
        """Set what is given; a reward that is no finite number is left out, as JSON has none."""
        given = {
            "attempt": attempt, "lineage": lineage, "step": step, "version": version,
            "checkpoint_step": checkpoint_step, "reward": _finite(reward), "eval_reward": _finite(eval_reward),
        }  # fmt: skip
        changes = {name: value for name, value in given.items() if value is not None}
        self.now = msgspec.structs.replace(self.now, **changes)


class ReasonStatus(msgspec.Struct, frozen=True):
    """Why so many rows are not ready; `code` is one of `transfer_queue.ledger.explain.CODES`."""

    code: str
    rows: int
    detail: str


class TaskStatus(msgspec.Struct, frozen=True):
    """One task: `ready` of the `required` rows of its request; `waiting` requests are in line."""

    task: str
    ready: int
    required: int
    is_ready: bool
    waiting: int
    reasons: list[ReasonStatus]


class QueueStatus(msgspec.Struct, frozen=True):
    """The queue in one line: the last task of the pipeline that has asked, and "ready/required" of it."""

    task: str | None = None
    ready: int = 0
    required: int = 0
    summary: str = "0/0"


class Partitions(msgspec.Struct, frozen=True):
    """Steps alive, of at most `limit` at once; the oldest and the newest."""

    alive: int
    limit: int
    oldest: int | None
    newest: int | None


class Bytes(msgspec.Struct, frozen=True):
    """Bytes of all values; `capacity` None: not limited."""

    stored: int
    capacity: int | None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The document; a reader refuses a `schema` that it does not know, and passes over fields that it does not know."""

    schema: int = 1
    attempt: int | None
    lineage: int | None
    step: int | None
    version: str | None
    reward: float | None
    checkpoint_step: int | None
    eval_reward: float | None = None
    queue: QueueStatus
    tasks: list[TaskStatus]
    partitions: Partitions
    bytes: Bytes
    ready: bool
    reason: str


def status_of(surveyed: Surveyed, figures: Figures, hindrance: str | None) -> Status:
    """The document of one moment; `hindrance` is what /readyz says."""
    stats, stands = surveyed.stats, surveyed.explanations
    tasks = [_task(stats.tasks[stand.task], stand) for stand in stands if stand.task in stats.tasks]
    return Status(
        **msgspec.structs.asdict(figures),
        queue=_queue(tasks),
        tasks=tasks[-MOST_TASKS:],  # those of `tasks=` come last
        partitions=_partitions(stats),
        bytes=Bytes(stats.stored_bytes, stats.capacity_bytes),
        ready=hindrance is None,
        reason=_cut(hindrance or ""),
    )


def encode(status: Status) -> bytes:
    """JSON of at most 64 KiB: of many long reasons, the last of each task go first."""
    for most in (MOST_REASONS, 8, 4, 2, 1, 0):
        tasks = [msgspec.structs.replace(task, reasons=task.reasons[:most]) for task in status.tasks]
        text = msgspec.json.encode(msgspec.structs.replace(status, tasks=tasks))
        if len(text) <= MOST_BYTES:
            break
    return text


def _task(stats: TaskStats, stand: Explanation) -> TaskStatus:
    reasons = [ReasonStatus(each.code, each.rows, _cut(each.detail)) for each in stand.reasons[:MOST_REASONS]]
    return TaskStatus(_cut(stand.task), stand.ready, stand.needed, stand.is_ready, stats.waiting, reasons)


def _queue(tasks: list[TaskStatus]) -> QueueStatus:
    for task in reversed(tasks):
        if task.required:
            return QueueStatus(task.task, task.ready, task.required, f"{task.ready}/{task.required}")
    return QueueStatus()


def _partitions(stats: Stats) -> Partitions:
    steps = stats.partitions
    return Partitions(len(steps), stats.partitions_limit, steps[0] if steps else None, steps[-1] if steps else None)


def _finite(figure: float | None) -> float | None:
    return figure if figure is not None and math.isfinite(figure) else None


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"
