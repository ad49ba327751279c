"""The rows of one global step: which exist, which fields they have, and where each task stands with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer_queue.errors import FieldError
from transfer_queue.ledger.cells import Cells
from transfer_queue.ledger.seats import Seats
from transfer_queue.ledger.shape import first_index
from transfer_queue.ledger.stand import Stand
from transfer_queue.ledger.view import CONSUMED, DROPPED, FREE, LEASED, NO_ROWS, Rows, View

ABSENT, THERE = 0, 1
"""Whether a row has a field: bit 0 of its cell."""


class Partition:
    """One step of `capacity` rows; `size` is how many the arrays have cells for."""

    def __init__(self, step: int, serial: int, capacity: int, group_size: int, stirred: set[tuple[str, int]]) -> None:
        self.step, self.serial, self.group_size = step, serial, group_size
        self.capacity = self.size = capacity
        self.base = first_index(serial)
        self.seats = Seats(self.base, capacity // group_size, group_size)
        self.rows = Cells(capacity)
        self.fields: dict[str, Cells] = {}
        self.produced = 0
        self.version = 0
        self.tasks: dict[str, Stand] = {}
        self.stirred = stirred
        self.holds: Cells | None = None
        self.held = 0
        """Rows that are kept for a reader (`hold`)."""
        self.dropped: list[tuple[Rows, str]] = []

    @property
    def exists(self) -> NDArray[Any]:
        """A byte per row, not 0 where the row was put."""
        return self.rows.array

    def has(self, field: str) -> NDArray[np.bool_]:
        """For each row, whether it has this field."""
        cells = self.fields.get(field)
        return np.zeros(self.size, dtype=np.bool_) if cells is None else (cells.array & THERE) != 0

    def add(self, rows: Rows, fields: Iterable[str]) -> None:
        """Let new rows exist, with these fields."""
        names = set(fields)
        self.exists[rows] = 1
        self.produced += len(rows)
        for field in names:
            self._cells(field).array[rows] = THERE
        for stand in self.tasks.values():
            stand.added(rows, names)
        self.version += 1

    def add_one(self, row: int, fields: Iterable[str]) -> None:
        """`add` for one row."""
        names = set(fields)
        self.rows.at[row] = 1
        self.produced += 1
        for field in names:
            self._cells(field).at[row] = THERE
        for stand in self.tasks.values():
            stand.added_one(row, names)
        self.version += 1

    def _cells(self, field: str) -> Cells:
        cells = self.fields.get(field)
        if cells is None:
            cells = self.fields[field] = Cells(self.size)
        return cells

    def check_writable(self, fields: Sequence[str], rows: Rows) -> None:
        """A field is written once per row: otherwise `FieldError` naming field and rows."""
        for field in fields:
            cells = self.fields.get(field)
            written = NO_ROWS if cells is None else rows[(cells.array[rows] & THERE) != 0]
            if len(written):
                twice = (written + self.base).tolist()
                raise FieldError(
                    f"field {field!r} of rows {twice[:8]} in step {self.step} was written already; a field is written "
                    "once per row: put new rows, or give the field another name"
                )

    def write(self, fields: Iterable[str], rows: Rows) -> None:
        """Mark these fields as produced for these rows."""
        names = set(fields)
        for field in names:
            self._cells(field).array[rows] = THERE
        for stand in self.tasks.values():
            stand.written(rows, names)
        self.version += 1

    def write_one(self, fields: Sequence[str], row: int) -> None:
        """`check_writable` and `write` for one row."""
        names = set(fields)
        for field in names:
            cells = self.fields.get(field)
            if cells is not None and cells.at[row] & THERE:
                self.check_writable(fields, np.array([row]))
        for field in names:
            self._cells(field).at[row] = THERE
        for stand in self.tasks.values():
            stand.written_one(row, names)
        self.version += 1

    def unwrite(self, field: str, rows: Rows) -> None:
        """Take the field, which they have, away from these rows again."""
        for stand in self.tasks.values():
            stand.withdrawing(rows, field)
        self.fields[field].array[rows] = ABSENT
        self.version += 1

    def task(self, name: str) -> Stand:
        """Where this task stands here; a task not seen before has everything before it."""
        stand = self.tasks.get(name)
        if stand is None:
            stand = self.tasks[name] = Stand(name, self)
            for rows, reason in self.dropped:
                stand.move(rows, FREE, DROPPED, reason)
        return stand

    def view(self, task: str, fields: tuple[str, ...], unit: int) -> View:
        """The up-to-date view of this task on these fields."""
        return self.task(task).view(fields, unit)

    def drop_free(self, rows: Rows, reason: str) -> None:
        """Drop rows for every task, those that come later included, that has not taken them."""
        for stand in self.tasks.values():
            stand.move(rows[stand.state[rows] == FREE], FREE, DROPPED, reason)
        self.dropped.append((rows, reason))

    def taken_by_others(self, task: str, field: str, rows: Rows) -> NDArray[np.bool_]:
        """Which of these rows another task that reads this field holds or has consumed."""
        taken = np.zeros(len(rows), dtype=np.bool_)
        for name, stand in self.tasks.items():
            if name != task and field in stand.fields_read:
                state = stand.state[rows]
                taken |= (state == LEASED) | (state == CONSUMED)
        return taken
