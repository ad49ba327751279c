"""Requests that wait in the controller: first come first served within a task, found by what they wait for."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from transfer_queue import wire
from transfer_queue.ledger import Want
from transfer_queue.ledger.explain import Reason
from transfer_queue.samplers.registry import Choice
from transfer_queue.storage.chunk import Chunk
from transfer_queue.transport.link import Link


@dataclass(slots=True, eq=False)
class Caller:
    """Where a reply goes: the connection, and the session and sequence number that it must bear."""

    link: Link
    sequence: int
    client: str
    session: int = 0


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that waits until its deadline; `asleep` since it could not be served when it came."""

    caller: Caller
    since: float
    deadline: float
    over: bool = field(default=False, kw_only=True)
    asleep: bool = field(default=False, kw_only=True)


@dataclass(slots=True, eq=False)
class Consumer(Waiter):
    """A `get_meta` that waits; with `values`, these shall come with the rows.

    `tried` says at which version of a partition a custom sampler found too little there, `withheld` why it offered
    no more.
    """

    want: Want
    choice: Choice
    values: bool = False
    running: bool = False
    number: int = 0
    tried: dict[int, int] = field(default_factory=dict)
    withheld: dict[int, tuple[Reason, ...]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Producer(Waiter):
    """A `put` of new rows that waits for room; its values wait with it.

    `serial` is that of the partition of its step, since there is one: should that be cleared, the wait ends.
    """

    put: wire.Put
    chunks: list[Chunk]
    frames: list[wire.Frame]
    size: int
    serial: int | None = None


@dataclass(slots=True, eq=False)
class Recycler(Waiter):
    """A producer's `recycle` that waits until some of its bytes are free again."""

    segments: list[int]


class Line:
    """The consumers that wait, by task, in order of arrival."""

    def __init__(self) -> None:
        self._tasks: dict[str, dict[int, Consumer]] = {}
        self._numbers = itertools.count()
        self.custom: dict[int, Consumer] = {}
        """Those whose sampler is a custom one: it may choose otherwise after any change."""

    def __iter__(self) -> Iterator[Consumer]:
        return itertools.chain.from_iterable(list(line.values()) for line in list(self._tasks.values()))

    def __contains__(self, consumer: Consumer) -> bool:
        return not consumer.over

    def add(self, consumer: Consumer) -> None:
        """The consumer waits behind all others of its task."""
        consumer.number = next(self._numbers)
        self._tasks.setdefault(consumer.want.task, {})[consumer.number] = consumer
        if consumer.choice.custom is not None:
            self.custom[consumer.number] = consumer

    def remove(self, consumer: Consumer) -> None:
        """Its wait is over."""
        consumer.over = True
        line = self._tasks[consumer.want.task]
        del line[consumer.number]
        self.custom.pop(consumer.number, None)
        if not line:
            del self._tasks[consumer.want.task]

    def ahead_of(self, consumer: Consumer) -> Consumer | None:
        """An earlier request for rows that this one could take from it: same task, and a step in common."""
        for other in self._tasks.get(consumer.want.task, {}).values():
            if other is consumer:
                return None
            if meet(other.want.step, consumer.want.step):
                return other
        return None

    def of_task(self, task: str) -> list[Consumer]:
        return list(self._tasks.get(task, {}).values())

    def stirred(self, task: str, step: int) -> list[Consumer]:
        """Those who wait for rows of this step of this task."""
        line = self._tasks.get(task)
        return [each for each in line.values() if meet(each.want.step, step)] if line else []


def meet(one: int | None, other: int | None) -> bool:
    """Whether two requests can be for the same rows; None is every step."""
    return one is None or other is None or one == other


class Deadlines:
    """When the next wait ends by itself."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Waiter]] = []
        self._numbers = itertools.count()
        self._clean_at = 64

    def add(self, waiter: Waiter) -> None:
        if len(self._heap) >= self._clean_at:  # most waits are over long before their deadline
            self._heap = [entry for entry in self._heap if not entry[2].over]
            heapq.heapify(self._heap)
            self._clean_at = 2 * len(self._heap) + 64
        heapq.heappush(self._heap, (waiter.deadline, next(self._numbers), waiter))

    def next(self) -> float | None:
        """The nearest deadline of a wait that is not over, or None."""
        while self._heap and self._heap[0][2].over:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[Waiter]:
        """The waits whose deadline has passed."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            waiter = heapq.heappop(self._heap)[2]
            if not waiter.over:
                found.append(waiter)
        return found
