"""The groups of one partition: which prompt has which slot, and how many of its rows have come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from transfer_queue.errors import GroupError
from transfer_queue.ledger.cells import Cells
from transfer_queue.ledger.view import Rows

Label = str | int
"""What a producer calls a group: its `group_id`."""


class Seats:
    """`groups` slots of `size` rows: row i belongs to slot i // size. Only a group that was named costs an object.

    A *retired* group counts no more: another one may be begun in its stead, with a slot of its own and even its name.
    `filled` is how many rows of a group have come, negative if it is retired.
    """

    def __init__(self, base: int, groups: int, size: int) -> None:
        self.base, self.groups, self.size = base, groups, size
        self.opened = self.retired = 0
        self.filled = Cells(groups, np.int32)
        self.names: dict[int, Label] = {}
        self.slot_of: dict[Label, int] = {}

    @property
    def free(self) -> int:
        """Groups that nobody has begun."""
        return self.groups + self.retired - self.opened

    @property
    def rows_ever(self) -> int:
        """Rows that this partition will have had when its last seat is taken."""
        return (self.groups + self.retired) * self.size

    def find(self, label: Label) -> int | None:
        """The slot of this group: by its name, or by its number if it was put without a name."""
        slot = self.slot_of.get(label)
        if slot is None and isinstance(label, int):
            numbered = label - self.base
            if 0 <= numbered < self.opened and numbered not in self.names:
                return numbered
        return slot

    def room_in(self, label: Label) -> int:
        """Rows that the group of this label can still take."""
        slot = self.find(label)
        return self.size if slot is None else self.size - abs(self.filled.at[slot])

    def takes(self, label: Label | None) -> bool:
        """Whether one row of this group (None: of a new one without a name) has a place."""
        slot = None if label is None else self.find(label)
        return self.free > 0 if slot is None else abs(self.filled.at[slot]) < self.size

    def name(self, row: int) -> Label:
        """The group's own name if it was put with one, otherwise its number, unique in the queue's life."""
        slot = row // self.size
        return self.names.get(slot, self.base + slot)

    def seat(self, label: Label | None) -> int:
        """The place of one row of this group, which `takes` it."""
        slot = None if label is None else self.find(label)
        if slot is None:
            slot = self._open(label)
        place = self.filled.at[slot]
        self.filled.at[slot] = place + 1
        return slot * self.size + place

    def seat_all(self, labels: Sequence[Label]) -> Rows:
        """A place for each row in the group of its label; the caller has checked that there is room."""
        return np.fromiter((self.seat(label) for label in labels), dtype=np.intp, count=len(labels))

    def seat_groups(self, groups: int) -> Rows:
        """The places of so many new groups without names."""
        first = self.opened
        if self.slot_of:
            for _ in range(groups):
                self._open(None)
        else:
            self.opened += groups
            self._reserve(self.opened)
        self.filled.array[first : self.opened] = self.size
        return np.arange(first * self.size, self.opened * self.size, dtype=np.intp)

    def _open(self, label: Label | None) -> int:
        slot = self.opened
        self.opened += 1
        self._reserve(self.opened)
        if label is None and self.base + slot in self.slot_of:
            label = -1 - self.base - slot
            while label in self.slot_of:
                label -= 1
        if label is not None:
            self.names[slot] = label
            self.slot_of[label] = slot
        return slot

    def _reserve(self, slots: int) -> None:
        if slots > len(self.filled.array):
            self.filled.grow(max(slots, 2 * len(self.filled.array)))

    def check_whole(self, rows: Rows) -> None:
        """`GroupError` unless these rows are whole groups: only those can be refilled."""
        slots, counts = np.unique(rows // self.size, return_counts=True)
        for slot, count in zip(slots.tolist(), counts.tolist(), strict=True):
            if count != self.size or self.filled.at[slot] != self.size:
                raise GroupError(
                    f"group {self.name(slot * self.size)!r} cannot be refilled: {count} of its {self.size} rows are "
                    "dropped here; drop whole groups (get_n_samples=True takes them whole), each once"
                )

    def retire(self, rows: Rows) -> None:
        """The groups of these rows, which are whole, count no more."""
        for slot in np.unique(rows // self.size).tolist():
            self.filled.at[slot] = -self.filled.at[slot]
            self.retired += 1
            if slot in self.names:
                del self.slot_of[self.names[slot]]

    def recall(self, opened: int, names: dict[int, Label]) -> None:
        """Go on with groups of which `filled` is known already."""
        self.opened, self.names = opened, names
        self.retired = int(np.count_nonzero(self.filled.array < 0))
        self.slot_of = {label: slot for slot, label in names.items() if self.filled.at[slot] > 0}


def check_group_sizes(labels: Sequence[Label], room_in: dict[Label, int]) -> None:
    """No group may grow past the room that it has; otherwise `GroupError` naming it."""
    for label, count in Counter(labels).items():
        if count > room_in[label]:
            raise GroupError(
                f"group {label!r} has room for {room_in[label]} more rows, but this put brings {count}; "
                "a group is the num_n_samples rows of one prompt: use another group_id"
            )
