"""The partitions that are alive: where new rows go, and which partition a global index belongs to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import numpy as np

from transfer_queue.errors import FieldError, GroupError, StepClearedError
from transfer_queue.ledger.lease import Part
from transfer_queue.ledger.partition import Partition, check_group_sizes
from transfer_queue.ledger.shape import ROW_BITS, ROW_MASK, QueueShape, split_index

CLEARED_REMEMBERED = 65536

Plan = list[tuple[int, list[Hashable]]]
"""For each step, the group labels of the new rows that go there, in order."""


class Steps:
    """At most `num_global_batch` partitions by step; a global index names partition and row (`shape`)."""

    def __init__(self, shape: QueueShape) -> None:
        self.shape = shape
        self.alive: dict[int, Partition] = {}
        self.cleared: OrderedDict[int, None] = OrderedDict()
        self._by_serial: dict[int, Partition] = {}
        self._next_serial = 0
        self._next_step = 0
        self.version = 0
        """Grows with every put and every partition that goes: while it stays, a put that did not fit does not fit."""

    def in_order(self, step: int | None = None) -> list[Partition]:
        """The alive partitions, oldest step first; with `step`, that one if it is alive."""
        if step is not None:
            return [self.alive[step]] if step in self.alive else []
        return [self.alive[key] for key in sorted(self.alive)]

    def open(self, step: int) -> Partition:
        """The alive partition of this step, begun now if need be."""
        if step not in self.alive:
            partition = Partition(step, self._next_serial, self.shape.capacity, self.shape.num_n_samples)
            self.alive[step] = self._by_serial[self._next_serial] = partition
            self._next_serial += 1
            self._next_step = max(self._next_step, step + 1)
            self.cleared.pop(step, None)
        return self.alive[step]

    def remove(self, step: int) -> Partition:
        """Take a partition out of the queue and remember its step as cleared."""
        partition = self.alive.pop(step)
        del self._by_serial[partition.serial]
        self.cleared[step] = None
        self.version += 1
        if len(self.cleared) > CLEARED_REMEMBERED:
            self.cleared.popitem(last=False)
        return partition

    def locate(self, indexes: Sequence[int]) -> list[Part]:
        """Rows that exist, partition by partition in the order of first mention; else an error naming an index."""
        array = np.asarray(indexes, dtype=np.intp)
        if not len(array):
            raise FieldError("the request names no rows")
        serials, rows = array >> ROW_BITS, array & ROW_MASK
        parts: list[Part] = []
        for serial in dict.fromkeys(serials.tolist()):
            chosen = rows if len(array) == 1 else rows[serials == serial]
            partition = self._by_serial.get(serial)
            if partition is None and 0 <= serial < self._next_serial:
                raise StepClearedError(f"rows {array[serials == serial][:8].tolist()} belong to a cleared step")
            if partition is None or (chosen >= partition.capacity).any() or not partition.exists[chosen].all():
                raise FieldError(f"rows {array[serials == serial][:8].tolist()} were never put")
            parts.append((partition, chosen))
        return parts

    def places(self, indexes: Sequence[int]) -> tuple[list[int], list[str | int]]:
        """Step and group of each row."""
        pairs = [split_index(index) for index in indexes]
        steps = [self._by_serial[serial].step for serial, _ in pairs]
        return steps, [self._by_serial[serial].name(row) for serial, row in pairs]

    def plan(self, labels: Sequence[Hashable], step: int | None) -> Plan | None:
        """Where new rows with these group labels go, or None while they must wait for a partition to be cleared.

        Groups never straddle partitions. Without a step, groups that are open continue, others fill the oldest
        partition with room, then new steps. What can never fit is an error at once.
        """
        return self._plan_step(labels, step) if step is not None else self._plan_anywhere(labels)

    def _plan_step(self, labels: Sequence[Hashable], step: int) -> Plan | None:
        if step < 0:
            raise FieldError(f"global_step={step} is negative")
        partition = self.alive.get(step)
        if partition is None:
            partition = Partition(step, -1, self.shape.capacity, self.shape.num_n_samples)
        check_group_sizes(labels, {label: partition.room_in(label) for label in labels})
        fresh = sum(label not in partition.slot_of for label in dict.fromkeys(labels))
        if fresh > partition.free_slots:
            raise GroupError(
                f"step {step} has room for {partition.free_slots} more groups of {self.shape.num_n_samples} rows, "
                f"but this put begins {fresh}: a partition is {self.shape.global_batch_size} prompts; "
                "clear the step first, or put into another one"
            )
        if step not in self.alive and len(self.alive) >= self.shape.num_global_batch:
            return None
        return [(step, list(labels))]

    def _plan_anywhere(self, labels: Sequence[Hashable]) -> Plan | None:
        home: dict[Hashable, int] = {}
        room = {p.step: p.free_slots for p in self.in_order()}
        unborn = self.shape.num_global_batch - len(self.alive)
        for label in dict.fromkeys(labels):
            known = [p.step for p in self.in_order() if label in p.slot_of]
            step = known[-1] if known else next((step for step, free in room.items() if free), None)
            if step is None and unborn > 0:
                unborn -= 1
                step = max([self._next_step, *(key + 1 for key in room)])
                room[step] = self.shape.global_batch_size
            if step is None:
                self._check_can_fit(len(dict.fromkeys(labels)))
                return None
            home[label] = step
            room[step] -= not known
        check_group_sizes(labels, {x: self._room(home[x], x) for x in home})
        return [(step, [x for x in labels if home[x] == step]) for step in dict.fromkeys(home.values())]

    def _room(self, step: int, label: Hashable) -> int:
        return self.alive[step].room_in(label) if step in self.alive else self.shape.num_n_samples

    def _check_can_fit(self, groups: int) -> None:
        most = self.shape.num_global_batch * self.shape.global_batch_size
        if groups > most:
            raise GroupError(
                f"this put brings {groups} groups, but num_global_batch={self.shape.num_global_batch} partitions hold "
                f"{most} together: put fewer rows at once"
            )


def group_labels(count: int, n: int, labels: Sequence[Hashable] | None) -> Sequence[Hashable]:
    """A group label per row: those given, or new groups of `n` rows in order; else `GroupError`."""
    if labels is not None:
        if len(labels) != count:
            raise GroupError(f"group_id names {len(labels)} groups for {count} rows: give one value, or one per row")
        return labels
    if count % n:
        raise GroupError(
            f"a put of {count} rows makes no whole groups of num_n_samples={n}: put a multiple of {n} rows in "
            "order, or say with group_id which prompt each row belongs to"
        )
    return [marker for marker in (object() for _ in range(count // n)) for _ in range(n)]
