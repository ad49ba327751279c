"""What changed in a status."""

from __future__ import annotations

from twinkle_operator.state import Condition, ConditionType, Queue, Status
from twinkle_operator.status_writer import only_polled


def condition(kind: ConditionType, reason: str) -> Condition:
    return Condition(
        type=kind,
        status="True",
        observed_generation=1,
        last_transition_time="2026-01-01T00:00:00Z",
        reason=reason,
        message="",
    )


def status(ready: str = "Running", queue: str = "Ready", rows: int = 1) -> Status:
    conditions = [condition("Ready", ready), condition("QueueReady", queue)]
    return Status(conditions=conditions, queue=Queue("train", rows, 8))


def test_what_polls_change_can_wait_and_nothing_else() -> None:
    assert only_polled(status(), status(rows=2))
    assert only_polled(status(), status(queue="MissingField"))
    assert not only_polled(status(), status(ready="Restarting", rows=2))
    assert not only_polled(Status(), status())
