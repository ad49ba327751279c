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

ABSENT, THERE, ROOT, LOST = 0, 1, 3, 4
"""A row has no such field; it has one that was added to it, or that it was put with; or its value was lost."""
EXISTS, FREED = 1, 3
"""A row is there; or it was, and nobody needs its values any more. 0: it was never put."""
MOST_REASONS, LONGEST_REASON, OTHER = 32, 256, "other"
"""Reasons for dropping that one step tells apart, the characters of each, and the name of all further ones."""


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
        self.held = 0
        """Rows that are kept for readers (`hold`), once for each task."""
        self.producers: dict[str, str] = {}
        """By field, the task under whose lease it was put."""
        self.reasons: list[str] = []
        self.dropped: Cells | None = None
        """Per row that was dropped for every task, one more than the number of its reason; only if one was."""
        self.dropped_rows = 0
        self.past_version = -1
        """The highest version that an ack bore in the earlier lives of this step."""

    @property
    def exists(self) -> NDArray[Any]:
        """A byte per row, not 0 where the row was put."""
        return self.rows.array

    def end(self) -> None:
        """Let go of all that refers back here, so that the memory goes now and not with some collection of garbage."""
        for stand in self.tasks.values():
            stand.views.clear()
        self.tasks.clear()

    def grow(self, rows: int) -> None:
        """Have cells for so many rows, in whole groups."""
        self.size = max(2 * self.size, -(-rows // self.group_size) * self.group_size)
        for cells in (self.rows, self.dropped, *self.fields.values()):
            if cells is not None:
                cells.grow(self.size)
        for stand in self.tasks.values():
            stand.grow()

    def has(self, field: str) -> NDArray[np.bool_]:
        """For each row, whether it has this field."""
        cells = self.fields.get(field)
        return np.zeros(self.size, dtype=np.bool_) if cells is None else (cells.array & THERE) != 0

    def marked(self, field: str, mark: int) -> NDArray[np.bool_]:
        """For each row, whether its cell of this field is exactly that: ROOT or LOST, say."""
        cells = self.fields.get(field)
        return np.zeros(self.size, dtype=np.bool_) if cells is None else cells.array == mark

    def having(self, field: str, rows: Rows, mark: int | None = None) -> Rows:
        """Those of the rows that have this field; with `mark`, THERE or ROOT, that have it in that way."""
        cells = self.fields.get(field)
        if cells is None:
            return NO_ROWS
        found = cells.array[rows]
        there: Rows = rows[(found & THERE) != 0 if mark is None else found == mark]
        return there

    def add(self, rows: Rows, fields: Iterable[str]) -> None:
        """Let new rows exist, with these fields."""
        names = set(fields)
        if len(rows) and int(rows.max()) >= self.size:
            self.grow(int(rows.max()) + 1)
        self.exists[rows] = EXISTS
        self.produced += len(rows)
        for field in names:
            self._cells(field).array[rows] = ROOT
        for stand in self.tasks.values():
            stand.added(rows, names)
        self.version += 1

    def add_one(self, row: int, fields: Iterable[str]) -> None:
        """`add` for one row."""
        names = set(fields)
        if row >= self.size:
            self.grow(row + 1)
        self.rows.at[row] = EXISTS
        self.produced += 1
        for field in names:
            self._cells(field).at[row] = ROOT
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
            written = self.having(field, rows)
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

    def unwrite(self, field: str, rows: Rows, mark: int = ABSENT) -> None:
        """Take the field, which they have, away from these rows again; LOST marks them as those that lost it."""
        for stand in self.tasks.values():
            stand.withdrawing(rows, field)
        self.fields[field].array[rows] = mark
        self.version += 1

    def task(self, name: str) -> Stand:
        """Where this task stands here; a task not seen before has everything before it."""
        stand = self.tasks.get(name)
        if stand is None:
            stand = self.tasks[name] = Stand(name, self)
            if self.dropped is not None:
                rows = np.flatnonzero(self.dropped.array)
                for part, reason in self.by_reason(rows):
                    stand.move(part, FREE, DROPPED, reason)
        return stand

    def view(self, task: str, fields: tuple[str, ...], unit: int) -> View:
        """The up-to-date view of this task on these fields."""
        return self.task(task).view(fields, unit)

    def drop(self, rows: Rows, reason: str) -> None:
        """Drop rows for every task that has not taken them, those that come later or give them back included."""
        if self.dropped is None:
            self.dropped = Cells(self.size, np.int32)
        rows, reason = rows[self.dropped.array[rows] == 0], self.told_apart(reason)
        if reason not in self.reasons:
            self.reasons.append(reason)
        self.dropped.array[rows] = self.reasons.index(reason) + 1
        self.dropped_rows += len(rows)
        for stand in self.tasks.values():
            stand.move(rows[stand.state[rows] == FREE], FREE, DROPPED, reason)

    def told_apart(self, reason: str) -> str:
        """The name under which rows dropped for this reason are counted: its own, or "other" beyond the first 32.

        A caller who gives every drop a reason of its own must come to an end; of a long one the beginning is kept.
        """
        reason = reason[:LONGEST_REASON]
        return reason if reason in self.reasons or len(self.reasons) < MOST_REASONS else OTHER

    def dropped_for(self, reason: str) -> NDArray[np.bool_]:
        """For each row, whether it was dropped for every task with this reason."""
        if self.dropped is None or reason not in self.reasons:
            return np.zeros(self.size, dtype=np.bool_)
        dropped: NDArray[np.bool_] = self.dropped.array == self.reasons.index(reason) + 1
        return dropped

    def by_reason(self, rows: Rows) -> list[tuple[Rows, str]]:
        """These dropped rows, reason by reason."""
        assert self.dropped is not None
        numbers = self.dropped.array[rows]
        return [(rows[numbers == number], self.reasons[number - 1]) for number in np.unique(numbers).tolist()]

    def gone(self, task: str) -> int:
        """Rows that this task can never be given again, whether it has come already or not."""
        stand = self.tasks.get(task)
        return self.dropped_rows if stand is None else stand.gone

    def latest_version(self) -> int:
        """The highest version that an ack bore in this step, or -1."""
        return max([self.past_version, *(stand.latest_version() for stand in self.tasks.values())])

    def taken_by_others(self, task: str, field: str, rows: Rows) -> NDArray[np.bool_]:
        """Which of these rows another task that reads this field holds or has consumed."""
        taken = np.zeros(len(rows), dtype=np.bool_)
        for name, stand in self.tasks.items():
            if name != task and field in stand.fields_read:
                state = stand.state[rows]
                taken |= (state == LEASED) | (state == CONSUMED)
        return taken
