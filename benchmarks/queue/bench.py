"""`Bench`: the processes of both systems while the figures are measured, and how fast the machine was meanwhile."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import echo, table
from benchmarks.queue.sides import Side
from benchmarks.table import Figure

STOP_S = 60.0
HEAD_START_S = 1.0


@dataclass(frozen=True)
class Queue:
    """A running queue: the process that started it, and what another needs to attach."""

    owner: Side
    info: Any

    def call(self, work: str, **arguments: Any) -> Any:
        """Work in the process that started the queue."""
        return self.owner.call(work, **arguments)


class Bench:
    """Starts, keeps and ends processes, since a start of the peer takes many seconds. `close` ends them all."""

    def __init__(self, repetitions: int, quick: bool) -> None:
        self.repetitions = repetitions
        self.quick = quick
        self.echoes: list[float] = []
        self._peer: Queue | None = None
        self._workers: dict[str, list[Side]] = {"ours": [], "peer": []}

    def pick(self, full: int, quick: int) -> int:
        """A size: the full one, or that of a smoke run."""
        return quick if self.quick else full

    @contextmanager
    def ours(self, **arguments: Any) -> Iterator[Queue]:
        """A queue of ours in a process of its own, ended afterwards."""
        owner = Side("ours")
        try:
            yield Queue(owner, owner.call("start", **arguments))
            owner.call("stop")
        finally:
            owner.close()

    def peer(self) -> Queue:
        """The peer's queue, started when it is first asked for and kept until `without_peer`."""
        if self._peer is None:
            owner = Side("peer")
            try:
                self._peer = Queue(owner, owner.call("start"))
            except BaseException:
                owner.close()
                raise
        return self._peer

    def without_peer(self) -> None:
        """End the peer's processes, so that figures without it have the machine to themselves."""
        if self._peer is not None:
            self._peer.owner.order("stop")
            try:
                self._peer.owner.result(STOP_S)
            finally:
                self._peer.owner.close()
                self._peer = None
        self._end_workers("peer")

    def workers(self, queue: Queue, count: int) -> list[Side]:
        """`count` more processes that are attached to the queue; kept for the next figure."""
        sides = self._workers[queue.owner.system]
        while len(sides) < count:
            sides.append(Side(queue.owner.system))
        for side in sides[:count]:
            side.call("attach", info=queue.info)
        return sides[:count]

    def soon(self) -> float:
        """A moment of CLOCK_MONOTONIC at which several processes begin together."""
        return time.monotonic() + HEAD_START_S

    def echo(self) -> float:
        """The median round trip of pyzmq just now, in ms; kept to be shown."""
        self.echoes.append(echo.median_ms())
        return self.echoes[-1]

    def close(self) -> None:
        """End every process."""
        self.without_peer()
        self._end_workers("ours")

    def _end_workers(self, system: str) -> None:
        while self._workers[system]:
            self._workers[system].pop().close()


def at_most_or_echo(name: str, values: Sequence[float], limit: float, echoes: Sequence[float]) -> Figure:
    """Milliseconds whose median may not exceed `limit`, or three times the echo if that is more."""
    echo_ms = statistics.median(echoes)
    figure = table.median_at_most(name, values, max(limit, 3 * echo_ms), "ms")
    return replace(figure, target=f"median <= {limit:g} (3 x echo: {3 * echo_ms:.3g})")


@contextmanager
def journal_folder() -> Iterator[str]:
    """A folder for a journal on the disk that temporary files are on."""
    with tempfile.TemporaryDirectory(prefix="bench-journal-") as folder:
        yield folder


Measure = Callable[[Bench], list[Figure]]
