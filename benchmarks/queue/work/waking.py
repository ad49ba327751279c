"""Waiting for rows: how soon a waiting call wakes, and what waiting calls cost the others. Ours only."""

from __future__ import annotations

import threading
import time
from typing import Any

import torch

from benchmarks.queue.work.timing import timed

BATCH = 32
FIELDS = ["prompt", "response"]
NEVER = "a field that nobody puts"
WAIT_S = 120.0


def complete(system: Any, step: int, count: int, pause_s: float) -> list[float]:
    """`count` times: put a batch whose last field is missing, pause, put it; the moments just before those puts."""
    column = torch.arange(BATCH)[:, None]
    moments = []
    for _ in range(count):
        meta = system.put(system.prepared({"prompt": column}), step)
        system.fill(system.pick(meta, range(BATCH - 1)), system.prepared({"response": column[1:]}))
        last, data = system.pick(meta, [BATCH - 1]), system.prepared({"response": column[:1]})
        time.sleep(pause_s)
        moments.append(time.monotonic())
        system.fill(last, data)
    return moments


def wake(system: Any, step: int, count: int) -> list[tuple[float, float]]:
    """`count` times wait for a batch: the moments of asking and of having it."""
    moments = []
    for _ in range(count):
        asked = time.monotonic()
        meta = system.get_meta(FIELDS, BATCH, step, "train")
        moments.append((asked, time.monotonic()))
        system.done(meta)
    return moments


def occupy(system: Any, step: int) -> None:
    """Put a row, so that the step is alive and clearing it ends the waits for it."""
    system.put(system.prepared({"prompt": torch.zeros(1, 1, dtype=torch.int64)}), step)


class Waiters:
    """Threads of this process whose get_meta waits, with a client each."""

    def __init__(self, system: Any, tasks: list[str], step: int) -> None:
        self.endings: list[str] = []
        self._threads = [threading.Thread(target=self._wait, args=(system, task, step), daemon=True) for task in tasks]
        for thread in self._threads:
            thread.start()

    def _wait(self, system: Any, task: str, step: int) -> None:
        try:
            with system.another() as client:
                client.get_meta([NEVER], BATCH, step, task, timeout_s=WAIT_S)
        except Exception as error:  # noqa: BLE001 - its name is the result
            self.endings.append(type(error).__name__)

    def join(self) -> list[str]:
        """How each wait ended, once all have."""
        for thread in self._threads:
            thread.join(WAIT_S)
        return self.endings


_waiters: list[Waiters] = []


def begin_waiting(system: Any, tasks: list[str], step: int) -> None:
    """Let one thread for each task wait for rows of `step` that never come."""
    _waiters.append(Waiters(system, tasks, step))
    time.sleep(0.5)


def end_waiting(system: Any) -> list[str]:
    """How the waits ended; their steps have to be cleared before."""
    return [ending for waiters in (_waiters.pop() for _ in list(_waiters)) for ending in waiters.join()]


def rounds(system: Any, step: int, count: int) -> list[float]:
    """Milliseconds of each round of putting a batch and getting it."""
    data = system.prepared({"prompt": torch.arange(BATCH)[:, None]})

    def once() -> Any:
        system.put(data, step)
        return system.get_meta(["prompt"], BATCH, step, "train")

    times = []
    for _ in range(count):
        milliseconds, meta = timed(once)
        times.append(milliseconds)
        system.done(meta)
    return times
