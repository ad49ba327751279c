"""The counters of a status: attempts, failures, restarts. Each end of an attempt is counted once, whatever crashes."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from twinkle_operator.clock import elapsed, kept, stamp
from twinkle_operator.observed import Job, Poll
from twinkle_operator.state import Progress, Status
from twinkle_operator.verdict import Ended


class Note(msgspec.Struct, frozen=True):
    """What a RayJob carries of the counters at its beginning: the status may not have been written since."""

    failures: int = 0
    restarts: int = 0
    fruitless: int = 0
    checkpoint: int | None = None


def note(status: Status) -> str:
    """For a RayJob that begins now."""
    made = Note(status.failures, status.restarts, status.fruitless, status.checkpoint_at_restart)
    return msgspec.json.encode(made).decode()


def recovered(status: Status, jobs: tuple[Job, ...]) -> Status:
    """The counters, from the newest RayJob where the status does not know it; a note that cannot be read is none."""
    newest = max(jobs, key=lambda job: job.attempt, default=None)
    if newest is None or newest.attempt <= status.attempts:
        return replace(status, ended=min(status.ended, status.attempts))
    status = replace(status, attempts=newest.attempt, ended=newest.attempt - 1, ray_job=newest.name)
    try:
        read = msgspec.json.decode(newest.note, type=Note)
    except msgspec.DecodeError:
        return status
    return replace(
        status,
        failures=max(status.failures, read.failures),
        restarts=max(status.restarts, read.restarts),
        fruitless=max(0, read.fruitless),
        checkpoint_at_restart=read.checkpoint,
        stopping_since=None,
    )


def learned(status: Status, poll: Poll | None) -> Status:
    """With what the driver says of its progress; a new checkpoint makes the restarts before it fruitful."""
    if poll is None or poll.progress is None:
        return status
    old, new = status.progress or Progress(), poll.progress
    merged = Progress(
        step=old.step if new.step is None else new.step,
        reward=old.reward if new.reward is None else new.reward,
        version=old.version if new.version is None else new.version,
        checkpoint_step=old.checkpoint_step if new.checkpoint_step is None else new.checkpoint_step,
    )
    status = replace(status, progress=merged)
    known, before = merged.checkpoint_step, status.checkpoint_at_restart
    fruitful = known is not None and known > (-1 if before is None else before)
    return replace(status, fruitless=0) if fruitful else status


def counted(status: Status, ended: Ended) -> Status:
    """After the end of the newest attempt."""
    status = replace(status, ended=status.attempts)
    if ended.kind == "failure":
        return replace(status, failures=status.failures + 1)
    if ended.kind != "restart":
        return status
    step = status.progress.checkpoint_step if status.progress else None
    best = max((each for each in (step, status.checkpoint_at_restart) if each is not None), default=None)
    return replace(status, restarts=status.restarts + 1, fruitless=status.fruitless + 1, checkpoint_at_restart=best)


def clocked(status: Status, *, paused: bool, now: float) -> Status:
    """The time that counts against activeDeadlineSeconds: from the first attempt on, while it is not suspended."""
    if status.stopping_since is not None:
        status = replace(status, stopping_since=kept(status.stopping_since, now))
    if status.attempts == 0:
        return status
    if not paused:
        return replace(status, active_since=kept(status.active_since, now))
    if status.active_since is None:
        return status
    return replace(status, active_since=None, active_seconds=int(active(status, now)))


def active(status: Status, now: float) -> float:
    """Seconds counted so far."""
    return status.active_seconds + elapsed(status.active_since, now)


def stopping(status: Status, now: float) -> Status:
    """The driver is told to stop now, unless it was before."""
    return status if status.stopping_since is not None else replace(status, stopping_since=stamp(now))
