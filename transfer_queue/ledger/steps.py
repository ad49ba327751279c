"""The partitions that are alive, and which of them a global index belongs to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from transfer_queue.errors import FieldError, StepClearedError
from transfer_queue.ledger.lease import Part
from transfer_queue.ledger.partition import EXISTS, FREED, Partition
from transfer_queue.ledger.seats import Label
from transfer_queue.ledger.shape import ROW_BITS, ROW_MASK, QueueShape, first_index, split_index

CLEARED_REMEMBERED = 65536


class Steps:
    """At most `num_global_batch` partitions by step; a global index names partition and row (`shape`)."""

    def __init__(self, shape: QueueShape, stirred: set[tuple[str, int]]) -> None:
        self.shape = shape
        self.alive: dict[int, Partition] = {}
        self.cleared: OrderedDict[int, int] = OrderedDict()
        """The steps that were cleared last, with the highest version that an ack bore there, or -1."""
        self.by_serial: dict[int, Partition] = {}
        self.next_step = 0
        self.version = 0
        """Grows with every put and every partition that goes: while it stays, a put that did not fit does not fit."""
        self._stirred = stirred
        self.next_serial = 0
        self._order: list[Partition] = []

    def in_order(self, step: int | None = None) -> list[Partition]:
        """The alive partitions, oldest step first; with `step`, that one if it is alive. To be read only."""
        if step is not None:
            return [self.alive[step]] if step in self.alive else []
        return self._order

    def open(self, step: int) -> Partition:
        """The alive partition of this step, begun now if need be."""
        if step not in self.alive:
            self.open_as(step, self.next_serial).past_version = self.cleared.pop(step, -1)
            self.next_serial += 1
            self.next_step = max(self.next_step, step + 1)
        return self.alive[step]

    def open_as(self, step: int, serial: int) -> Partition:
        """A new partition of this step with this serial."""
        partition = Partition(step, serial, self.shape.capacity, self.shape.num_n_samples, self._stirred)
        self.alive[step] = self.by_serial[serial] = partition
        self._order = [self.alive[key] for key in sorted(self.alive)]
        return partition

    def remove(self, step: int) -> Partition:
        """Take a partition out of the queue and remember its step as cleared."""
        partition = self.alive.pop(step)
        del self.by_serial[partition.serial]
        self._order = [self.alive[key] for key in sorted(self.alive)]
        self.cleared[step] = partition.latest_version()
        self.version += 1
        if len(self.cleared) > CLEARED_REMEMBERED:
            self.cleared.popitem(last=False)
        return partition

    def locate_one(self, index: int) -> tuple[Partition, int]:
        """The partition and the row of an index that exists; else an error naming it."""
        serial, row = index >> ROW_BITS, index & ROW_MASK
        partition = self.by_serial.get(serial)
        if partition is None or row >= partition.size or partition.rows.at[row] != EXISTS:
            raise self._no_such_rows(serial, [row])
        return partition, row

    def locate(self, indexes: Sequence[int]) -> list[Part]:
        """Rows that exist, partition by partition in the order of first mention; else an error naming an index."""
        array = np.asarray(indexes, dtype=np.intp)
        if not len(array):
            raise FieldError("the request names no rows")
        serials, rows = array >> ROW_BITS, array & ROW_MASK
        parts: list[Part] = []
        for serial in dict.fromkeys(serials.tolist()):
            chosen = rows[serials == serial]
            partition = self.by_serial.get(serial)
            if partition is None or (chosen >= partition.size).any() or (partition.exists[chosen] != EXISTS).any():
                raise self._no_such_rows(serial, chosen.tolist())
            parts.append((partition, chosen))
        return parts

    def _no_such_rows(self, serial: int, rows: list[int]) -> Exception:
        partition = self.by_serial.get(serial)
        if partition is None and 0 <= serial < self.next_serial:
            return StepClearedError(f"rows {_indexes(serial, rows)} belong to a cleared step")
        if partition is None:
            return FieldError(f"rows {_indexes(serial, rows)} were never put")
        unknown = [row for row in rows if row >= partition.size or not partition.rows.at[row]]
        if unknown:
            return FieldError(f"rows {_indexes(serial, unknown)} were never put")
        freed = [row for row in rows if partition.rows.at[row] == FREED]
        return StepClearedError(
            f"rows {_indexes(serial, freed)} of step {partition.step} were consumed by every task: "
            "their values are not kept any longer"
        )

    def still_there(self, indexes: Sequence[int]) -> list[Part]:
        """`locate` without the rows that are gone with their step, or were consumed by every task."""
        array = np.asarray(indexes, dtype=np.intp)
        serials, rows = array >> ROW_BITS, array & ROW_MASK
        parts: list[Part] = []
        for serial in dict.fromkeys(serials.tolist()):
            partition, chosen = self.by_serial.get(serial), np.unique(rows[serials == serial])
            if partition is None and 0 <= serial < self.next_serial:
                continue
            if partition is None or (chosen >= partition.size).any() or not partition.exists[chosen].all():
                raise self._no_such_rows(serial, chosen.tolist())
            parts.append((partition, chosen[partition.exists[chosen] == EXISTS]))
        return parts

    def places(self, indexes: Sequence[int]) -> tuple[list[int], list[Label]]:
        """Step and group of each row."""
        pairs = [split_index(index) for index in indexes]
        steps = [self.by_serial[serial].step for serial, _ in pairs]
        return steps, [self.by_serial[serial].seats.name(row) for serial, row in pairs]


def _indexes(serial: int, rows: list[int]) -> list[int]:
    return [first_index(serial) + row for row in rows[:8]]
