"""Holds: rows that were consumed without a lease keep their values until they are read, or for `HOLD_S`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transfer_queue.ledger.cells import Cells
from transfer_queue.ledger.lease import Part
from transfer_queue.ledger.partition import Partition
from transfer_queue.ledger.view import Rows

HOLD_S = 300.0
"""How long rows that were consumed without a lease, and never read, keep their partition from clearing itself."""


@dataclass(slots=True)
class Hold:
    """The rows that one request of a task was given, by serial, of which `unread` are unread.

    It ends at `deadline` anyway.
    """

    task: str
    deadline: float
    parts: list[tuple[int, Rows]]
    unread: int


class Holds:
    """The holds in order of their deadlines. For each task a row bears the number of its latest hold, or 0."""

    def __init__(self) -> None:
        self.open: dict[int, Hold] = {}
        self.next_id = 1

    def add(self, task: str, parts: Sequence[Part], now: float) -> None:
        """Keep these rows until the task has read them."""
        hold = Hold(task, now + HOLD_S, [(partition.serial, rows) for partition, rows in parts], 0)
        for partition, rows in parts:
            stand = partition.task(task)
            if stand.holds is None:
                stand.holds = Cells(partition.size, np.int64)
            self.read(task, partition, rows)
            stand.holds.array[rows] = self.next_id
            partition.held += len(rows)
            hold.unread += len(rows)
        self.open[self.next_id] = hold
        self.next_id += 1

    def read(self, task: str, partition: Partition, rows: Rows) -> bool:
        """These rows need not be kept for the task any more; whether any of them was."""
        stand = partition.tasks.get(task)
        if not partition.held or stand is None or stand.holds is None:
            return False
        held = stand.holds.array[rows]
        kept = held != 0
        rows, held = rows[kept], held[kept]
        stand.holds.array[rows] = 0
        partition.held -= len(rows)
        for number in held.tolist():
            hold = self.open[number]
            hold.unread -= 1
            if not hold.unread:
                del self.open[number]
        return len(rows) > 0

    def forget(self, partition: Partition) -> None:
        """The partition is cleared: nothing of it is kept."""
        for task, stand in partition.tasks.items():
            if stand.holds is not None:
                self.read(task, partition, np.flatnonzero(stand.holds.array))

    def next_deadline(self) -> float | None:
        """When the next hold ends by itself, or None."""
        return next((hold.deadline for hold in self.open.values()), None)

    def due(self, now: float) -> tuple[int, Hold] | None:
        """The number of one hold whose deadline has passed, and the hold itself."""
        for number, hold in self.open.items():
            return (number, hold) if hold.deadline <= now else None
        return None

    def rows_of(self, number: int, partition: Partition, rows: Rows) -> Rows:
        """Those of its rows that this hold still keeps there."""
        holds = partition.task(self.open[number].task).holds
        assert holds is not None
        kept: Rows = rows[holds.array[rows] == number]
        return kept
