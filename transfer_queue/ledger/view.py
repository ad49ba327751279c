"""Which units of a partition a task could take now: kept up to date per event, never searched from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from transfer_queue.ledger.cells import Cells

if TYPE_CHECKING:
    from transfer_queue.ledger.partition import Partition

Rows = NDArray[np.intp]
FREE, LEASED, CONSUMED, DROPPED = range(4)

BLOCK_BITS = 8
BLOCK = 1 << BLOCK_BITS
NO_ROWS: Rows = np.empty(0, dtype=np.intp)


class View:
    """The units that one task could take for one set of fields; a unit is one row, or one whole group of `unit` rows.

    A row is *complete* if it has every field of the view. Counted at each event, in the cost of the rows that it
    touches: `free_rows` (not taken), `ready_units` (free and complete), and how many of those lie in each block of
    256 units, so that `pop` costs the batch that it finds, however the ready ones are scattered.
    """

    def __init__(self, partition: Partition, free: Rows, fields: tuple[str, ...], unit: int) -> None:
        self.partition, self.fields, self.unit = partition, fields, unit
        self.free_rows = self.ready_units = self._cursor = 0
        self._ready, self._in_block, self._complete = Cells(0), Cells(0, np.int32), Cells(0, np.int32)
        self._offsets = np.arange(unit)
        self.grow()
        self.arrive(free)

    @property
    def ready(self) -> NDArray[Any]:
        """A byte per unit, not 0 where the unit is ready."""
        return self._ready.array

    @property
    def ready_rows(self) -> int:
        return self.ready_units * self.unit

    @property
    def pending_rows(self) -> int:
        """Rows that are free but not ready."""
        return self.free_rows - self.ready_rows

    def grow(self) -> None:
        """Follow the partition's size."""
        units = self.partition.size // self.unit
        blocks = (units >> BLOCK_BITS) + 1
        self._in_block.grow(blocks)
        self._ready.grow(blocks << BLOCK_BITS)
        if self.unit > 1:
            self._complete.grow(units)

    def complete(self, rows: Rows) -> Rows:
        """Those of `rows` that have every field."""
        there: NDArray[Any] | None = None
        for field in self.fields:
            cells = self.partition.fields.get(field)
            if cells is None:
                return NO_ROWS
            there = cells.array[rows] if there is None else there & cells.array[rows]
        return rows if there is None else rows[(there & 1) != 0]

    def has_all(self, row: int) -> bool:
        """Whether this row has every field."""
        for field in self.fields:
            cells = self.partition.fields.get(field)
            if cells is None or not cells.at[row] & 1:
                return False
        return True

    def arrive(self, rows: Rows) -> bool:
        """These rows have become free; whether more units are ready now."""
        self.free_rows += len(rows)
        return self.gain(self.complete(rows))

    def leave(self, rows: Rows) -> None:
        """These rows are free no more."""
        self.free_rows -= len(rows)
        self.lose(self.complete(rows))

    def gain(self, rows: Rows) -> bool:
        """These rows have become free and complete; whether more units are ready now."""
        units = rows
        if self.unit > 1:
            groups = rows // self.unit
            np.add.at(self._complete.array, groups, 1)
            units = np.unique(groups[self._complete.array[groups] == self.unit])
        self._mark(units, 1)
        return len(units) > 0

    def gain_one(self, row: int) -> bool:
        """`gain` for one row."""
        if self.unit > 1:
            row //= self.unit
            self._complete.at[row] += 1
            if self._complete.at[row] < self.unit:
                return False
        self._ready.at[row] = 1
        self.ready_units += 1
        block = row >> BLOCK_BITS
        self._in_block.at[block] += 1
        if block < self._cursor:
            self._cursor = block
        return True

    def lose(self, rows: Rows) -> None:
        """These rows were free and complete and are so no more."""
        units = rows
        if self.unit > 1:
            groups = rows // self.unit
            units = np.unique(groups[self._complete.array[groups] == self.unit])
            np.subtract.at(self._complete.array, groups, 1)
        self._mark(units, 0)

    def _mark(self, units: Rows, ready: int) -> None:
        if not len(units):
            return
        self._ready.array[units] = ready
        self.ready_units += len(units) if ready else -len(units)
        blocks = units >> BLOCK_BITS
        if len(blocks) > BLOCK:
            counts = np.bincount(blocks)
            self._in_block.array[: len(counts)] += counts if ready else -counts
        else:
            (np.add if ready else np.subtract).at(self._in_block.array, blocks, 1)
        if ready:
            self._cursor = min(self._cursor, int(blocks.min()))

    def pop(self, count: int) -> Rows:
        """Take the first `count` ready units (fewer if there are fewer) out of the view; their rows, in order."""
        missing = min(count, self.ready_units)
        if not missing:
            return NO_ROWS
        units = self._pop_units(missing)
        self._ready.array[units] = 0
        self.ready_units -= missing
        self.free_rows -= missing * self.unit
        if self.unit == 1:
            return units
        self._complete.array[units] = 0
        return (units[:, None] * self.unit + self._offsets).ravel()

    def _pop_units(self, missing: int) -> Rows:
        """The first ready units, which the counts of their blocks forget; nothing before the cursor is ready."""
        block, left = self._cursor, self._in_block.at[self._cursor] - missing
        if left >= 0:
            self._in_block.at[block] = left
            start = block << BLOCK_BITS
            return self._ready.array[start : start + BLOCK].nonzero()[0][:missing] + start
        found: list[Rows] = []
        span, counts = 64, self._in_block.array
        while missing:
            blocks = (counts[block : block + span] != 0).nonzero()[0] + block
            total = counts[blocks].cumsum()
            enough = int(total.searchsorted(missing))
            blocks = blocks[: enough + 1]
            which, inside = self._ready.array.reshape(-1, BLOCK)[blocks].nonzero()
            found.append(((blocks[which] << BLOCK_BITS) + inside)[:missing])
            counts[blocks] = 0
            if enough < len(total):
                self._cursor = int(blocks[-1])
                counts[self._cursor] = total[enough] - missing
            missing -= len(found[-1])
            block, span = block + span, 2 * span
        return found[0] if len(found) == 1 else np.concatenate(found)
