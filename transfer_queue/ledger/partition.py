"""The rows of one global step: which exist, which fields they have, and where each task stands with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from transfer_queue.errors import FieldError, GroupError
from transfer_queue.ledger.view import CONSUMED, DROPPED, FREE, LEASED, Rows, View

VIEWS_PER_TASK = 8
"""A task that asks for ever new sets of fields costs memory for the last few only."""


class TaskRows:
    """One task's stand in one partition: a state per row and a counter per state."""

    def __init__(self, capacity: int, groups: int) -> None:
        self.state: NDArray[np.uint8] = np.zeros(capacity, dtype=np.uint8)
        self.spoiled: NDArray[np.bool_] = np.zeros(groups, dtype=np.bool_)
        self.spoiled_groups = 0
        self.leased = self.consumed = 0
        self.dropped: Counter[str] = Counter()
        self.views: dict[tuple[tuple[str, ...], int], View] = {}
        self.fields_read: set[str] = set()

    @property
    def gone(self) -> int:
        """Rows that this task can never be given again."""
        return self.consumed + self.dropped.total()


class Partition:
    """One step of `capacity` rows in slots of `group_size`: row i belongs to group i // group_size."""

    def __init__(self, step: int, serial: int, capacity: int, group_size: int) -> None:
        self.step, self.serial, self.capacity, self.group_size = step, serial, capacity, group_size
        self.base = serial * capacity
        self.exists: NDArray[np.bool_] = np.zeros(capacity, dtype=np.bool_)
        self.fields: dict[str, NDArray[np.bool_]] = {}
        self.produced = 0
        self.version = 0
        self.names: list[str | int] = []
        self.filled: list[int] = []
        self.slot_of: dict[Hashable, int] = {}
        self.tasks: dict[str, TaskRows] = {}
        self.drops: list[tuple[Rows, str]] = []

    @property
    def free_slots(self) -> int:
        """Groups that nobody has begun."""
        return self.capacity // self.group_size - len(self.names)

    def seat(self, labels: Sequence[Hashable]) -> Rows:
        """Give each new row its place in the group of its label, opening groups as needed.

        The caller has checked that there are enough free slots and that no group grows past `group_size`.
        """
        rows = np.empty(len(labels), dtype=np.intp)
        for i, label in enumerate(labels):
            slot = self.slot_of.get(label)
            if slot is None:
                slot = self.slot_of[label] = len(self.names)
                self.names.append(label if isinstance(label, str | int) else self._number(slot))
                self.filled.append(0)
            rows[i] = slot * self.group_size + self.filled[slot]
            self.filled[slot] += 1
        return rows

    def _number(self, slot: int) -> int:
        """A name for a group that was put without one; whoever puts that number later means this group."""
        number = self.base // self.group_size + slot
        while number in self.slot_of:
            number = -1 - number if number >= 0 else number - self.capacity
        self.slot_of[number] = slot
        return number

    def room_in(self, label: Hashable) -> int:
        """Rows that the group of this label can still take."""
        slot = self.slot_of.get(label)
        return self.group_size if slot is None else self.group_size - self.filled[slot]

    def name(self, row: int) -> str | int:
        """The group's own name if it was put with one, otherwise its number, unique in the queue's life."""
        return self.names[row // self.group_size]

    def add(self, rows: Rows) -> None:
        """Let new rows exist."""
        self.exists[rows] = True
        self.produced += len(rows)
        self._refresh(self.tasks.values(), rows)

    def check_writable(self, fields: Iterable[str], rows: Rows) -> None:
        """A field is written once per row: otherwise `FieldError` naming field and rows."""
        for field in fields:
            written = self.fields.get(field)
            if written is not None and written[rows].any():
                twice = (rows[written[rows]] + self.base).tolist()
                raise FieldError(
                    f"field {field!r} of rows {twice[:8]} in step {self.step} was written already; a field is written "
                    "once per row: put new rows, or give the field another name"
                )

    def write(self, fields: Iterable[str], rows: Rows) -> None:
        """Mark these fields as produced for these rows."""
        names = set(fields)
        for field in names:
            if field not in self.fields:
                self.fields[field] = np.zeros(self.capacity, dtype=np.bool_)
            self.fields[field][rows] = True
        self._refresh(self.tasks.values(), rows, names)

    def unwrite(self, field: str, rows: Rows) -> None:
        """Take the field away from these rows again."""
        self.fields[field][rows] = False
        self._refresh(self.tasks.values(), rows, {field})

    def task(self, name: str) -> TaskRows:
        """Where this task stands here; a task not seen before has everything before it."""
        if name not in self.tasks:
            self.tasks[name] = TaskRows(self.capacity, self.capacity // self.group_size)
            for rows, reason in self.drops:
                self.move(name, rows, FREE, DROPPED, reason)
        return self.tasks[name]

    def view(self, task: str, fields: tuple[str, ...], unit: int) -> View:
        """The up-to-date view of this task on these fields."""
        views = self.task(task).views
        found = views.pop((fields, unit), None) or View(self, self.task(task), fields, unit)
        views[fields, unit] = found
        if len(views) > VIEWS_PER_TASK:
            del views[next(iter(views))]
        return found

    def move(self, task: str, rows: Rows, before: int, after: int, reason: str = "") -> None:
        """Move rows of one task from one state to another; they are all in `before`, which is the caller's promise."""
        stand = self.task(task)
        count = len(rows)
        stand.state[rows] = after
        if before == LEASED:
            stand.leased -= count
        if after == LEASED:
            stand.leased += count
        elif after == CONSUMED:
            stand.consumed += count
        elif after == DROPPED:
            stand.dropped[reason] += count
        if before == CONSUMED:
            stand.consumed -= count
        if after in (CONSUMED, DROPPED) or before == CONSUMED:
            groups = np.unique(rows // self.group_size)
            spoiled = (stand.state.reshape(-1, self.group_size)[groups] >= CONSUMED).any(axis=1)
            stand.spoiled_groups += int(np.count_nonzero(spoiled)) - int(np.count_nonzero(stand.spoiled[groups]))
            stand.spoiled[groups] = spoiled
        if FREE in (before, after):
            self._refresh([stand], rows)

    def drop_free(self, rows: Rows, reason: str) -> None:
        """Drop rows for every task, those that come later included, that has not taken them."""
        for name, stand in self.tasks.items():
            self.move(name, rows[stand.state[rows] == FREE], FREE, DROPPED, reason)
        self.drops.append((rows, reason))

    def taken_by_others(self, task: str, field: str, rows: Rows) -> NDArray[np.bool_]:
        """Which of these rows another task that reads this field holds or has consumed."""
        taken = np.zeros(len(rows), dtype=np.bool_)
        for name, stand in self.tasks.items():
            if name != task and field in stand.fields_read:
                taken |= (stand.state[rows] == LEASED) | (stand.state[rows] == CONSUMED)
        return taken

    def _refresh(self, stands: Iterable[TaskRows], rows: Rows, fields: set[str] | None = None) -> None:
        self.version += 1
        groups: Rows | None = None
        for stand in stands:
            for view in stand.views.values():
                if fields is not None and fields.isdisjoint(view.fields):
                    continue
                if view.unit == 1:
                    view.refresh(rows)
                else:
                    groups = np.unique(rows // self.group_size) if groups is None else groups
                    view.refresh(groups)


def check_group_sizes(labels: Sequence[Hashable], room_in: dict[Hashable, int]) -> None:
    """No group may grow past the room that it has; otherwise `GroupError` naming it."""
    for label, count in Counter(labels).items():
        if count > room_in[label]:
            raise GroupError(
                f"group {label!r} has room for {room_in[label]} more rows, but this put brings {count}; "
                "a group is the num_n_samples rows of one prompt: use another group_id"
            )
