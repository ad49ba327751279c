"""get_meta while the journal is compacted or a checkpoint is written. Ours only."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import torch

from benchmarks.queue.work.scattered import BATCH, FIELDS
from benchmarks.queue.work.timing import percentile, timed

CHURN_ROWS = 256


def latencies(system: Any, step: int, task: str, journal: str, seconds: float) -> dict[str, Any]:
    """Milliseconds of get_meta for `seconds`, in all and while the journal's folder was being rewritten.

    A rewrite shows from outside as a file that is still called `.tmp`, and ends with files that go; what happens up to
    a second before files go is taken to be part of it.
    """
    calls: list[tuple[float, float, bool]] = []
    ends: list[float] = []
    files, deadline = _files(journal), time.monotonic() + seconds
    while time.monotonic() < deadline:
        took, meta = timed(lambda: system.get_meta(FIELDS, BATCH, step, task))
        system.give_back([meta])
        before, files = files, _files(journal)
        calls.append((time.monotonic(), took, any(name.endswith(".tmp") for name in before | files)))
        if any(not name.endswith(".tmp") for name in before - files):
            ends.append(time.monotonic())
    during = [took for at, took, seen in calls if seen or any(0 <= end - at <= 1.0 for end in ends)]
    return {
        "rewrites": len(ends),
        "p99": percentile([took for _, took, _ in calls], 99),
        "p99_during": percentile(during, 99) if ends else None,
        "largest": max(took for _, took, _ in calls),
    }


def beside_checkpoint(system: Any, step: int, task: str, path: str) -> dict[str, Any]:
    """Milliseconds of get_meta while another client has a checkpoint written, and how long that took."""

    def write() -> None:
        with system.another() as client:
            client.checkpoint(path)

    thread, began, times = threading.Thread(target=write), time.monotonic(), []
    thread.start()
    while thread.is_alive():
        took, meta = timed(lambda: system.get_meta(FIELDS, BATCH, step, task))
        times.append(took)
        system.give_back([meta])
    thread.join()
    assert os.path.getsize(path) > 0, "no checkpoint was written"
    return {"p99": percentile(times, 99), "largest": max(times), "seconds": time.monotonic() - began}


def churn(system: Any, first_step: int, rows: int, seconds: float) -> int:
    """Put, get and acknowledge rows for `seconds`, so that the journal grows; `rows` fill a step."""
    data, done, step = system.prepared({"tokens": torch.zeros(CHURN_ROWS, 16, dtype=torch.int64)}), 0, first_step
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        system.put(data, step)
        system.done(system.get_meta(["tokens"], CHURN_ROWS, step, "churn"))
        done += CHURN_ROWS
        if done // (rows // CHURN_ROWS * CHURN_ROWS) > step - first_step:
            system.clear(step)
            step += 1
    return done


def _files(journal: str) -> set[str]:
    return {name for _, _, names in os.walk(journal) for name in names}
