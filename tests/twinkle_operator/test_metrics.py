"""Series of stacks come and go with them."""

from __future__ import annotations

from prometheus_client import generate_latest

from tests.twinkle_operator import raw
from twinkle_operator.cache import Cache
from twinkle_operator.metrics import Metrics
from twinkle_operator.resources import STACKS


def condition(kind: str, status: str, reason: str) -> dict[str, object]:
    return {"type": kind, "status": status, "reason": reason, "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip


def text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_a_stack_has_series_while_it_is_there() -> None:
    cache = Cache()
    metrics = Metrics(cache)
    conditions = [condition("Ready", "True", "Running"), condition("QueueReady", "False", "MissingField")]
    stack = raw.stack(1, status={"conditions": conditions, "progress": {"step": 12}})
    cache.seen(STACKS, stack)

    assert 'trainingstack_queue_ready{name="s",namespace="n"} 0.0' in text(metrics)
    assert 'trainingstack_step{name="s",namespace="n"} 12.0' in text(metrics)
    assert 'trainingstack_condition{name="s",namespace="n",reason="Running",status="True",type="Ready"} 1.0' in text(
        metrics
    )

    cache.gone(STACKS, raw.stack(2))
    assert 'name="s"' not in text(metrics)


def test_a_queue_of_which_nothing_is_known_has_no_series() -> None:
    cache = Cache()
    cache.seen(STACKS, raw.stack(1, status={"conditions": [condition("QueueReady", "Unknown", "Timeout")]}))

    assert "trainingstack_step{" not in text(Metrics(cache))
    assert "trainingstack_queue_ready{" not in text(Metrics(cache))
