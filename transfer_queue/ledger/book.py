"""The state of a ledger, and the few moves of rows that all of its requests are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from transfer_queue.ledger.hold import Holds
from transfer_queue.ledger.lease import Lease, LeaseTable, Part
from transfer_queue.ledger.partition import Partition
from transfer_queue.ledger.request import Want
from transfer_queue.ledger.reservation import Reservations
from transfer_queue.ledger.shape import QueueShape
from transfer_queue.ledger.steps import Steps
from transfer_queue.ledger.view import CONSUMED, FREE, LEASED, View


@dataclass(frozen=True, slots=True)
class Freed:
    """Values that the storage may forget: of a whole partition, or of one field of some of its rows."""

    serial: int
    field: str | None = None
    rows: tuple[int, ...] = ()


class Book:
    """Who holds which rows. `effects` collects what the owner of the values may forget, `stirred` whom to try again."""

    def __init__(self, shape: QueueShape, clock: Callable[[], float]) -> None:
        self.shape = shape.validate()
        self.clock = clock
        self.effects: list[Freed] = []
        self._stirred: set[tuple[str, int]] = set()
        self.steps = Steps(shape, self._stirred)
        self.leases = LeaseTable()
        self.holds = Holds()
        self.reservations = Reservations()
        self.last_wants: dict[str, Want] = {}
        self.rows_put = 0
        self.rows_consumed: Counter[str] = Counter()

    @property
    def stirred(self) -> set[tuple[str, int]]:
        """Task and step of every wait that may end otherwise than when it was last tried; its owner empties it.

        Who waits for rows of any step is concerned by every step of the task.
        """
        return self._stirred

    def stir_all(self, step: int) -> None:
        """A partition came or went: that concerns everybody who waits for its step."""
        for task in self.last_wants:
            self._stirred.add((task, step))

    def open(self, step: int) -> Partition:
        """The alive partition of this step, begun now if need be."""
        partition = self.steps.alive.get(step)
        if partition is None:
            partition = self.steps.open(step)
            self.stir_all(step)
        return partition

    def move(
        self, task: str, parts: list[Part], before: int, after: int, reason: str = "", popped: list[View] | None = None
    ) -> None:
        """Move rows of one task, all in the state `before`; views that have let go of theirs already are `popped`."""
        for i, (partition, rows) in enumerate(parts):
            partition.task(task).move(rows, before, after, reason, popped[i] if popped else None)
            if after == CONSUMED:
                self.rows_consumed[task] += len(rows)
            elif before == CONSUMED:
                self.rows_consumed[task] -= len(rows)

    def hold(self, parts: list[Part], now: float) -> None:
        """Keep the values of rows that are consumed already until they are read; without `tasks=` they are anyway."""
        if self.shape.tasks:
            self.holds.add(parts, now)

    def consume(self, lease: Lease) -> None:
        """The rows of a lease are done with."""
        reservation = self.reservations.of_lease(lease.id)
        self.move(lease.task, lease.parts, LEASED, CONSUMED)
        self.leases.end(lease, "was acknowledged before")
        if reservation is not None:
            self.reservations.complete(reservation)
            if reservation.want.lease_s is None:
                self.hold(lease.parts, self.clock())
        self.done(lease.parts)

    def give_back(self, lease: Lease, how: str) -> None:
        """Rows return to the task, less what was written under the lease: a half-done row starts anew.

        A row whose new fields another task has taken already stays, and counts as consumed: the work was done.
        """
        reservation = self.reservations.of_lease(lease.id)
        if reservation is not None:
            self.reservations.forget(reservation)
        self.leases.end(lease, how)
        for partition, rows in lease.parts:
            mine = [(field, there) for where, fields, there in lease.written if where is partition for field in fields]
            used = [there[partition.taken_by_others(lease.task, field, there)] for field, there in mine]
            kept = np.isin(rows, np.concatenate(used)) if used else np.zeros(len(rows), dtype=np.bool_)
            for field, there in mine:
                undone = there[~np.isin(there, rows[kept])]
                if len(undone):
                    partition.unwrite(field, undone)
                    self.effects.append(Freed(partition.serial, field, tuple(undone.tolist())))
            self.move(lease.task, [(partition, rows[kept])], LEASED, CONSUMED)
            self.move(lease.task, [(partition, rows[~kept])], LEASED, FREE)
        self.done(lease.parts)

    def done(self, parts: list[Part]) -> None:
        """A partition clears itself when every task in `tasks=` is through with it and nobody holds rows of it."""
        for partition, _ in parts:
            if self.shape.tasks and self._all_gone(partition) and not partition.held:
                if self.leases.of([partition]):
                    continue
                self.remove(partition)

    def _all_gone(self, partition: Partition) -> bool:
        for name in self.shape.tasks:
            stand = partition.tasks.get(name)
            if stand is None or stand.gone != self.shape.capacity:
                return False
        return True

    def remove(self, partition: Partition) -> None:
        """The partition is gone, with everything that refers to it."""
        if self.steps.alive.get(partition.step) is partition:
            self.steps.remove(partition.step)
            self.effects.append(Freed(partition.serial))
            self.reservations.forget_partition(partition)
            self.holds.forget(partition)
            self.stir_all(partition.step)
