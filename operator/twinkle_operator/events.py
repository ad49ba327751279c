"""What happened between two statuses of a stack, as events: a status that is written again makes none."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from twinkle_operator.state import Condition, ConditionType, Status

EXPECTED = frozenset({"Provisioning", "Replacing", "RollingOut", "Starting", "Running", "Restarting", "Suspending",
                      "Suspended", "Completed", "HeadNotReady", "PodsNotReady", "Queued"})  # fmt: skip
"""Reasons of Ready=False that need nobody."""


class Event(msgspec.Struct, frozen=True):
    """An event on the stack; `type` is Normal or Warning."""

    type: str
    reason: str
    message: str


def events(old: Status, new: Status, why: str) -> Iterator[Event]:
    """In the order in which they happened; `why` is the sentence about an attempt that ended."""
    if new.observed_generation > old.observed_generation and _is_finished(old):
        text = "the stack is finished: a change of its spec starts nothing; delete it and apply it again"
        yield Event("Warning", "Finished", text)
    if new.failures > old.failures:
        yield Event("Warning", "EntrypointFailed", why)
    if new.restarts > old.restarts:
        yield Event("Normal", "Restart", why)
    if new.attempts > old.attempts:
        yield Event("Normal", "AttemptBegan", f"attempt {new.attempts} began as RayJob {new.ray_job}")
    for kind in ("Durable", "Ready", "Suspended", "Complete", "Failed"):
        before, now = _of(old, kind), _of(new, kind)
        if now is not None and (before is None or (before.status, before.reason) != (now.status, now.reason)):
            yield from _told(kind, before, now)


def _told(kind: ConditionType, before: Condition | None, now: Condition) -> Iterator[Event]:
    if kind == "Durable" and now.status == "False":
        yield Event("Warning", now.reason, now.message)
    elif kind == "Ready" and now.status == "True":
        yield Event("Normal", now.reason, now.message)
    elif kind == "Ready" and now.reason not in EXPECTED:
        yield Event("Warning", now.reason, now.message)
    elif kind in ("Suspended", "Complete") and now.status == "True":
        yield Event("Normal", now.reason, now.message)


def _is_finished(status: Status) -> bool:
    return any(each.type in ("Complete", "Failed") and each.status == "True" for each in status.conditions)


def _of(status: Status, kind: ConditionType) -> Condition | None:
    return next((each for each in status.conditions if each.type == kind), None)
