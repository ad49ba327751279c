"""What happened between two statuses of a stack, as events: a status that is written again makes none."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from twinkle_operator.state import Condition, ConditionType, Status

EXPECTED = frozenset({"Provisioning", "Replacing", "RollingOut", "Starting", "Running", "Restarting", "Suspending",
                      "Suspended", "Completed", "HeadNotReady", "PodsNotReady", "Queued", "NoDriver"})  # fmt: skip
"""Reasons of Ready=False that need nobody."""


BEGINNING, COURSE, END = range(3)


class Event(msgspec.Struct, frozen=True):
    """An event on the stack; `type` is Normal or Warning, `place` an attempt and a part of it, in the order of time."""

    type: str
    reason: str
    message: str
    place: tuple[int, int]


def events(old: Status, new: Status, why: str) -> Iterator[Event]:
    """In the order in which they happened; `why` is the sentence about an attempt that ended."""
    failed = _of(new, "Failed")
    if new.observed_generation > old.observed_generation and _is_finished(old):
        text = "the stack is finished: a change of its spec starts nothing; delete it and apply it again"
        yield Event("Warning", "Finished", text, (new.attempts, END))
    if new.failures > old.failures:
        yield Event("Warning", "EntrypointFailed", why, (new.ended, END))
    if new.restarts > old.restarts and (failed is None or failed.status != "True"):
        yield Event("Normal", "Restart", why, (new.ended, END))
    if new.attempts > old.attempts:
        said = f"attempt {new.attempts} began as RayJob {new.ray_job}"
        yield Event("Normal", "AttemptBegan", said, (new.attempts, BEGINNING))
    for kind in ("Durable", "Ready", "Suspended", "Complete", "Failed"):
        before, now = _of(old, kind), _of(new, kind)
        if now is not None and (before is None or (before.status, before.reason) != (now.status, now.reason)):
            weight = _weight(kind, now)
            if weight:
                part = COURSE if new.ended < new.attempts else END
                yield Event(weight, now.reason, now.message, (new.attempts, part))


def _weight(kind: ConditionType, now: Condition) -> str:
    """The type of the event that a changed condition is worth; empty if none."""
    if kind == "Durable":
        return "Warning" if now.status == "False" else ""
    if kind == "Ready" and now.status == "False":
        return "" if now.reason in EXPECTED else "Warning"
    return "Normal" if kind in ("Ready", "Suspended", "Complete") and now.status == "True" else ""


def _is_finished(status: Status) -> bool:
    return any(each.type in ("Complete", "Failed") and each.status == "True" for each in status.conditions)


def _of(status: Status, kind: ConditionType) -> Condition | None:
    return next((each for each in status.conditions if each.type == kind), None)
