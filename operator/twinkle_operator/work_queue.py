"""Which stack is looked at next: each key once however often it is added, never by two workers at a time.

Pure: time comes from the clock that is given, which never goes back (`time.monotonic`), so clock jumps move nothing.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_S = 0.25
MOST_S = 30.0


class WorkQueue(Generic[K]):
    """Keys in the order in which they fell due.

    A key that is added while a worker has it comes again when that worker is done. A failure delays its key by
    `first * 2**(failures - 1)` seconds, at most `most`, each shortened by up to a fifth so that keys that failed
    together do not come together; adding the key does not cut that short.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        first: float = FIRST_S,
        most: float = MOST_S,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock, self._first, self._most, self._jitter = clock, first, most, jitter
        self._heap: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._count = itertools.count()
        self._taken: set[K] = set()
        self._again: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._not_before: dict[K, float] = {}

    def __len__(self) -> int:
        """Keys that wait, for a worker or for their time."""
        return len(self._due.keys() | self._again.keys())

    def add(self, key: K, *, delay: float = 0.0) -> None:
        """Let the key come in `delay` seconds, or earlier if it was to come earlier; not before its backoff is over."""
        due = max(self._clock() + max(delay, 0.0), self._not_before.get(key, 0.0))
        if key in self._taken:
            self._again[key] = min(due, self._again.get(key, due))
        elif due < self._due.get(key, float("inf")):
            self._push(key, due)

    def take(self) -> K | None:
        """The key that fell due first, None if none is due; give it back by `done` or `failed`."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > self._clock():
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._taken.add(key)
        return key

    def wait(self) -> float | None:
        """Seconds until a key falls due, 0 if one is; None if no key waits."""
        self._drop_stale()
        return max(0.0, self._heap[0][0] - self._clock()) if self._heap else None

    def done(self, key: K, *, again: float | None = None) -> None:
        """The worker succeeded: forget failures; come again in `again` seconds, at once if it was added meanwhile."""
        self._failures.pop(key, None)
        self._not_before.pop(key, None)
        self._return(key, again)

    def failed(self, key: K, *, at_least: float = 0.0) -> float:
        """The worker failed: come again after the backoff, or `at_least` seconds (Retry-After); returns the delay."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        backoff = min(self._most, self._first * 2.0 ** min(failures - 1, 32)) * (1 - self._jitter() / 5)
        delay = max(backoff, min(at_least, self._most))
        self._not_before[key] = self._clock() + delay
        self._return(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key is no more: its failures and its place are dropped; a worker that has it may still give it back."""
        for book in (self._due, self._again, self._failures, self._not_before):
            book.pop(key, None)

    def _return(self, key: K, delay: float | None) -> None:
        self._taken.discard(key)
        dues = [] if delay is None else [self._clock() + delay]
        if key in self._again:
            dues.append(max(self._again.pop(key), self._not_before.get(key, 0.0)))
        if dues and min(dues) < self._due.get(key, float("inf")):
            self._push(key, min(dues))

    def _push(self, key: K, due: float) -> None:
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._count), key))

    def _drop_stale(self) -> None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
