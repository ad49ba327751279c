"""Which units of a partition a task could take now: kept up to date per event, never searched from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transfer_queue.ledger.partition import Partition, TaskRows

Rows = NDArray[np.intp]
FREE, LEASED, CONSUMED, DROPPED = range(4)


class View:
    """The units that one task could take for one set of fields; a unit is one row, or one whole group of `unit` rows.

    `ready_units` and `pending_rows` (rows put and not taken, but not ready) are counters kept by `refresh`, whose cost
    is the units that it touches. `first` costs the batch that it finds: nothing before `cursor` is ready.
    """

    def __init__(self, partition: Partition, rows: TaskRows, fields: tuple[str, ...], unit: int) -> None:
        self.partition, self.rows, self.fields, self.unit = partition, rows, fields, unit
        units = partition.capacity // unit
        self.ready: NDArray[np.bool_] = np.zeros(units, dtype=np.bool_)
        self.pending: NDArray[np.int32] = np.zeros(units, dtype=np.int32)
        self.ready_units = self.pending_rows = 0
        self.cursor = units
        self._offsets = np.arange(unit)
        self.refresh(np.arange(units))

    @property
    def ready_rows(self) -> int:
        return self.ready_units * self.unit

    def refresh(self, units: Rows) -> None:
        """Recompute these units (each named once) from the partition's bitmaps."""
        rows = units if self.unit == 1 else (units[:, None] * self.unit + self._offsets).ravel()
        free = self.partition.exists[rows] & (self.rows.state[rows] == FREE)
        ready: NDArray[np.bool_] = self.complete(rows, free)
        if self.unit == 1:
            pending = (free & ~ready).astype(np.int32)
        else:
            ready = np.asarray(ready.reshape(-1, self.unit).all(axis=1))
            pending = free.reshape(-1, self.unit).sum(axis=1, dtype=np.int32) - np.int32(self.unit) * ready
        self.ready_units += int(np.count_nonzero(ready)) - int(np.count_nonzero(self.ready[units]))
        self.pending_rows += int(pending.sum()) - int(self.pending[units].sum())
        self.ready[units] = ready
        self.pending[units] = pending
        if ready.any():
            self.cursor = min(self.cursor, int(units[ready].min()))

    def complete(self, rows: Rows, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of `rows` are in `among` and have every field of this view."""
        result = among.copy()
        for field in self.fields:
            produced = self.partition.fields.get(field)
            if produced is None:
                return np.zeros(len(rows), dtype=np.bool_)
            result &= produced[rows]
        return result

    def first(self, count: int) -> Rows:
        """The rows of the first `count` ready units (fewer if there are fewer), in order."""
        found: list[Rows] = []
        missing, start, block = min(count, self.ready_units), self.cursor, max(1024, 4 * count)
        while missing:
            units = np.flatnonzero(self.ready[start : start + block])[:missing] + start
            if len(units) and not found:
                self.cursor = int(units[0])
            found.append(units)
            missing -= len(units)
            start += block
        units = np.concatenate(found) if found else np.empty(0, dtype=np.intp)
        return units if self.unit == 1 else (units[:, None] * self.unit + self._offsets).ravel()
