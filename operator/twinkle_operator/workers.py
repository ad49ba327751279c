"""Passes over the stacks that are due, some at a time; a pass that fails comes again later, and only that one."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from twinkle_operator.errors import ApiError, NamespaceEnds, OperatorError, Outdated
from twinkle_operator.metrics import Metrics
from twinkle_operator.reconcile import SOON_S
from twinkle_operator.resources import Key
from twinkle_operator.work_queue import WorkQueue

log = logging.getLogger(__name__)

AT_ONCE = 8
RESYNC_S = 600.0
MOST_DOUBLINGS = 13
"""A stack that each pass changes is looked at more and more seldom, at last every 82 s."""


class Workers:
    """Takes keys from the queue and calls `reconcile` with them, never twice at a time with the same one.

    `reconcile` returns the seconds until the next pass, at most `resync`; None is the end of the stack.
    """

    def __init__(
        self,
        reconcile: Callable[[Key], Awaitable[float | None]],
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        resync: float = RESYNC_S,
    ) -> None:
        self._reconcile, self._metrics, self._clock, self._resync = reconcile, metrics, clock, resync
        self._queue: WorkQueue[Key] = WorkQueue(clock)
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._streaks: dict[Key, int] = {}

    def add(self, key: Key) -> None:
        """Something happened to the stack. To be called in the loop of `run`."""
        self._queue.add(key)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; passes that run then are cancelled, too."""
        try:
            while True:
                self._wake.clear()
                self._start_due()
                wait = self._queue.wait() if len(self._tasks) < AT_ONCE else None
                with suppress(TimeoutError):  # a key fell due
                    await asyncio.wait_for(self._wake.wait(), wait)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start_due(self) -> None:
        while len(self._tasks) < AT_ONCE and (key := self._queue.take()) is not None:
            task = asyncio.create_task(self._pass(key), name=f"pass {'/'.join(key)}")
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()

    async def _pass(self, key: Key) -> None:
        try:
            with self._metrics.seconds.time():
                again = await self._reconcile(key)
        except OperatorError as error:
            self._failed(key, error, (isinstance(error, ApiError) and error.retry_after) or 0.0)
        except Exception as error:
            log.exception("the pass over %s/%s broke", *key)
            self._failed(key, error, 0.0)
        else:
            self._done(key, again)

    def _failed(self, key: Key, error: Exception, at_least: float) -> None:
        delay = self._queue.failed(key, at_least=at_least)
        quiet = isinstance(error, Outdated | NamespaceEnds)  # nobody's fault: somebody else wrote, or deletes it all
        if not quiet:
            self._metrics.errors.labels(type(error).__name__).inc()
        log.log(logging.DEBUG if quiet else logging.WARNING, "%s/%s: %s; again in %.1f s", *key, error, delay)

    def _done(self, key: Key, again: float | None) -> None:
        if again is None:
            self._streaks.pop(key, None)
            self._queue.done(key)
            return
        if again > SOON_S:
            self._streaks.pop(key, None)
            delay = min(again, self._resync * (0.9 + 0.2 * random.random()))
        else:
            streak = self._streaks[key] = self._streaks.get(key, 0) + 1
            delay = SOON_S * 2.0 ** min(streak - 1, MOST_DOUBLINGS)
        self._queue.done(key, again=delay)
