"""Where one task stands with the rows of one partition: a state per row, a counter per state, and its views."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from transfer_queue.ledger.cells import Cells
from transfer_queue.ledger.view import CONSUMED, DROPPED, FREE, LEASED, NO_ROWS, Rows, View

if TYPE_CHECKING:
    from transfer_queue.ledger.partition import Partition

VIEWS_PER_TASK = 8
"""A task that asks for ever new sets of fields costs memory for the last few only."""


class Stand:
    """One task in one partition; everything is free at first."""

    def __init__(self, task: str, partition: Partition) -> None:
        self.task, self.partition = task, partition
        self.states = Cells(partition.size)
        self.leased = self.consumed = self.dropped_rows = self.spoiled_groups = 0
        self.dropped: Counter[str] = Counter()
        self.views: dict[tuple[tuple[str, ...], int], View] = {}
        self.fields_read: set[str] = set()
        self.holds: Cells | None = None
        """The number of the hold that keeps a row for this task, or 0 (`hold`); only if there was one."""
        self.versions: Cells | None = None
        """One more than the version that the ack of a consumed row bore, 0 where it bore none; only if one did."""
        self._spoiled = Cells(partition.size // partition.group_size)
        self._forgot_views = False

    @property
    def state(self) -> NDArray[Any]:
        """FREE, LEASED, CONSUMED or DROPPED for each row, those that do not exist yet included."""
        return self.states.array

    def recount(self) -> None:
        """Count anew what `state` says."""
        self.leased, self.consumed, self.dropped_rows = (
            int(np.count_nonzero(self.state == value)) for value in (LEASED, CONSUMED, DROPPED)
        )
        spoiled = (self.state.reshape(-1, self.partition.group_size) >= CONSUMED).any(axis=1)
        self._spoiled.array[:] = spoiled
        self.spoiled_groups = int(np.count_nonzero(spoiled))

    @property
    def gone(self) -> int:
        """Rows that this task can never be given again."""
        return self.consumed + self.dropped_rows

    def view(self, fields: tuple[str, ...], unit: int) -> View:
        """The up-to-date view of these fields."""
        found = self.views.pop((fields, unit), None)
        if found is None:
            free = np.flatnonzero((self.partition.exists != 0) & (self.state == FREE))
            found = View(self.partition, free, fields, unit)
        self.views[fields, unit] = found
        if len(self.views) > VIEWS_PER_TASK:
            del self.views[next(iter(self.views))]
            self._forgot_views = True
        return found

    def grow(self) -> None:
        """Follow the partition's size."""
        self.states.grow(self.partition.size)
        self._spoiled.grow(self.partition.size // self.partition.group_size)
        for view in self.views.values():
            view.grow()
        for cells in (self.versions, self.holds):
            if cells is not None:
                cells.grow(self.partition.size)

    def move(self, rows: Rows, before: int, after: int, reason: str = "", popped: View | None = None) -> None:
        """Move rows, all in the state `before`, to another one; the view `popped` has let go of them already."""
        if not len(rows):
            return
        self.state[rows] = after
        if before == CONSUMED and self.versions is not None:
            self.versions.array[rows] = 0
        self._count(before, -len(rows), reason)
        self._count(after, len(rows), reason)
        if after >= CONSUMED or before == CONSUMED:
            self._spoil(rows, after)
        if before == FREE:
            for view in self.views.values():
                if view is not popped:
                    view.leave(rows)
        elif after == FREE:
            self._stir_if([view.arrive(rows) for view in self.views.values()])
        self.partition.version += 1

    def bear(self, rows: Rows, version: int) -> None:
        """These consumed rows were acknowledged at that version."""
        if self.versions is None:
            self.versions = Cells(self.partition.size, np.int32)
        self.versions.array[rows] = version + 1

    def acked_after(self, version: int) -> Rows:
        """The consumed rows whose ack bore a later version."""
        return NO_ROWS if self.versions is None else np.flatnonzero(self.versions.array > version + 1)

    def latest_version(self) -> int:
        """The highest version that the ack of a row bore, or -1."""
        return -1 if self.versions is None else int(self.versions.array.max()) - 1

    def _count(self, state: int, rows: int, reason: str) -> None:
        if state == LEASED:
            self.leased += rows
        elif state == CONSUMED:
            self.consumed += rows
        elif state == DROPPED:
            self.dropped_rows += rows
            self.dropped[self.partition.told_apart(reason)] += rows

    def _spoil(self, rows: Rows, after: int) -> None:
        """Keep count of the groups that can never be whole for this task, as one of their rows is gone."""
        if after >= CONSUMED:
            self.stir()
        if self.partition.group_size == 1:
            self.spoiled_groups = self.gone
            return
        groups, spoiled = rows // self.partition.group_size, self._spoiled.array
        if after >= CONSUMED:
            fresh = groups[spoiled[groups] == 0]
            spoiled[fresh] = 1
            self.spoiled_groups += len(set(fresh.tolist()))
        else:
            groups = np.unique(groups)
            still = (self.state.reshape(-1, self.partition.group_size)[groups] >= CONSUMED).any(axis=1)
            self.spoiled_groups += int(np.count_nonzero(still)) - int(np.count_nonzero(spoiled[groups]))
            spoiled[groups] = still

    def added(self, rows: Rows, fields: set[str]) -> None:
        """These rows are new, with these fields."""
        gained = []
        for view in self.views.values():
            view.free_rows += len(rows)
            gained.append(fields.issuperset(view.fields) and view.gain(rows))
        self._stir_if(gained)

    def added_one(self, row: int, fields: set[str]) -> None:
        """`added` for one row."""
        gained = self._forgot_views
        for view in self.views.values():
            view.free_rows += 1
            if fields.issuperset(view.fields) and view.gain_one(row):
                gained = True
        if gained:
            self.stir()

    def written(self, rows: Rows, fields: set[str]) -> None:
        """These rows have these fields now, and had none of them before."""
        free = rows[self.state[rows] == FREE]
        if len(free):
            views = [view for view in self.views.values() if not fields.isdisjoint(view.fields)]
            self._stir_if([view.gain(view.complete(free)) for view in views])

    def written_one(self, row: int, fields: set[str]) -> None:
        """`written` for one row."""
        if self.states.at[row] != FREE:
            return
        gained = self._forgot_views
        for view in self.views.values():
            if not fields.isdisjoint(view.fields) and view.has_all(row) and view.gain_one(row):
                gained = True
        if gained:
            self.stir()

    def withdrawing(self, rows: Rows, field: str) -> None:
        """These rows, which have this field, are about to lose it."""
        free = rows[self.state[rows] == FREE]
        for view in self.views.values():
            if field in view.fields:
                view.lose(view.complete(free))

    def _stir_if(self, gained: list[bool]) -> None:
        if self._forgot_views or any(gained):
            self.stir()

    def stir(self) -> None:
        """A request of this task that waits for rows of this partition may find more than before, or less for ever."""
        self.partition.stirred.add((self.task, self.partition.step))
