"""The shell around the queue: passes side by side, failures apart, and stacks that never settle."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from twinkle_operator.cache import Cache
from twinkle_operator.errors import Busy, NamespaceEnds, Outdated
from twinkle_operator.metrics import Metrics
from twinkle_operator.reconcile import SOON_S
from twinkle_operator.resources import Key
from twinkle_operator.workers import AT_ONCE, Workers

WITHIN_S = 10.0


def run(reconcile: Callable[[Key], Awaitable[float | None]], until: Callable[[], bool], *keys: str) -> Metrics:
    """Run workers over these keys until something is true."""
    metrics = Metrics(Cache())

    async def scene() -> None:
        workers = Workers(reconcile, metrics, time.monotonic)
        for key in keys:
            workers.add(("n", key))
        task = asyncio.create_task(workers.run())
        async with asyncio.timeout(WITHIN_S):
            while not until():
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    return metrics


def test_stacks_are_looked_at_side_by_side_but_only_so_many_at_once() -> None:
    now, most, done = 0, 0, 0

    async def reconcile(key: Key) -> float | None:
        nonlocal now, most, done
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        done += 1
        return None

    run(reconcile, lambda: done == 50, *(str(number) for number in range(50)))

    assert most == AT_ONCE


@pytest.mark.parametrize(
    "error",
    [Busy("PATCH", status=503), Outdated("late"), NamespaceEnds("POST", status=403), ZeroDivisionError("a bug")],
)
def test_a_stack_that_fails_is_tried_again_and_stops_no_other(error: Exception) -> None:
    passes: Counter[str] = Counter()

    async def reconcile(key: Key) -> float | None:
        passes[key[1]] += 1
        if key[1] == "bad" and passes["bad"] < 3:
            raise error
        return None

    metrics = run(reconcile, lambda: passes["bad"] == 3 and passes["good"] == 1, "bad", "good")

    counted = metrics.registry.get_sample_value("trainingstack_reconcile_errors_total", {"error": type(error).__name__})
    assert counted == (None if isinstance(error, Outdated | NamespaceEnds) else 2)


def test_a_stack_that_every_pass_changes_is_looked_at_more_and_more_seldom() -> None:
    at: list[float] = []

    async def reconcile(key: Key) -> float | None:
        at.append(time.monotonic())
        return SOON_S

    run(reconcile, lambda: len(at) == 6, "flaps")

    assert at[5] - at[4] >= SOON_S * 8


def test_a_stack_that_is_gone_is_not_looked_at_again() -> None:
    passes: Counter[str] = Counter()

    async def reconcile(key: Key) -> float | None:
        passes[key[1]] += 1
        return None if key[1] == "gone" else 0.02

    run(reconcile, lambda: passes["here"] == 5, "gone", "here")

    assert passes["gone"] == 1


def test_news_of_a_stack_that_is_looked_at_lead_to_one_more_pass() -> None:
    passes = 0
    workers: list[Workers] = []

    async def reconcile(key: Key) -> float | None:
        nonlocal passes
        passes += 1
        if passes == 1:
            workers[0].add(key)
            workers[0].add(key)
        return None

    async def scene() -> None:
        workers.append(Workers(reconcile, Metrics(Cache()), time.monotonic))
        workers[0].add(("n", "a"))
        task = asyncio.create_task(workers[0].run())
        async with asyncio.timeout(WITHIN_S):
            while passes < 2:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())

    assert passes == 2
