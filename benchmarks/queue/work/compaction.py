"""get_meta while the journal is compacted or a checkpoint is written. Ours only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.queue.work.scattered import BATCH, FIELDS
from benchmarks.queue.work.timing import percentile, timed

CHURN_ROWS = 256


def latencies(system: Any, step: int, task: str, journal: str, seconds: float) -> dict[str, Any]:
    """Milliseconds of get_meta for `seconds`, in all and while the journal's folder was being rewritten.

    A rewrite shows from outside as a file that appears or goes; calls from a second before it to a second after are
    taken to be during it.
    """
    calls: list[tuple[float, float]] = []
    changes: list[float] = []
    files, end = _files(journal), time.monotonic() + seconds
    while time.monotonic() < end:
        took, meta = timed(lambda: system.get_meta(FIELDS, BATCH, step, task))
        calls.append((time.monotonic(), took))
        system.give_back([meta])
        now = _files(journal)
        if now != files:
            files = now
            changes.append(time.monotonic())
    during = [took for moment, took in calls if any(abs(moment - change) <= 1.0 for change in changes)]
    return {
        "changes": len(changes),
        "p99": percentile([took for _, took in calls], 99),
        "p99_during": percentile(during, 99) if during else None,
        "largest": max(took for _, took in calls),
    }


def churn(system: Any, first_step: int, seconds: float) -> int:
    """Put, get and acknowledge rows for `seconds`, so that the journal grows; the number of rows."""
    data, rows, step = system.prepared({"tokens": torch.zeros(CHURN_ROWS, 128, dtype=torch.int64)}), 0, first_step
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        system.put(data, step)
        system.done(system.get_meta(["tokens"], CHURN_ROWS, step, "churn"))
        system.clear(step)
        rows, step = rows + CHURN_ROWS, step + 1
    return rows


def _files(journal: str) -> set[str]:
    return {str(path) for path in Path(journal).rglob("*")}
