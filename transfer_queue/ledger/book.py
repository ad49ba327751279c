"""The state of a ledger, and the few moves of rows that all of its requests are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from transfer_queue.ledger.hold import Holds
from transfer_queue.ledger.lease import Lease, LeaseTable, Part
from transfer_queue.ledger.partition import EXISTS, FREED, Partition
from transfer_queue.ledger.request import Want
from transfer_queue.ledger.reservation import Reservations
from transfer_queue.ledger.shape import QueueShape
from transfer_queue.ledger.steps import Steps
from transfer_queue.ledger.view import CONSUMED, DROPPED, FREE, LEASED, Rows, View


@dataclass(frozen=True, slots=True)
class Freed:
    """Values that the storage may forget: of a whole partition, or of some of its rows, all or one of their fields."""

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

    def move_back(self, task: str, partition: Partition, rows: Rows, before: int) -> Rows:
        """Rows that a task has not done after all are free again; those are returned.

        What was dropped for every task in the meantime is dropped for this one too.
        """
        if partition.dropped is not None:
            gone = partition.dropped.array[rows] != 0
            for part, reason in partition.by_reason(rows[gone]):
                self.move(task, [(partition, part)], before, DROPPED, reason)
            rows = rows[~gone]
        self.move(task, [(partition, rows)], before, FREE)
        return rows

    def hold(self, task: str, parts: list[Part], now: float) -> None:
        """Keep the values of rows that the task has consumed until it reads them; without `tasks=` they are anyway."""
        if self.shape.tasks:
            self.holds.add(task, parts, now)

    def consume(self, lease: Lease, version: int | None) -> None:
        """The rows of a lease are done with, at that version if the consumer said so."""
        reservation = self.reservations.of_lease(lease.id)
        self.move(lease.task, lease.parts, LEASED, CONSUMED)
        if version is not None:
            for partition, rows in lease.parts:
                partition.task(lease.task).bear(rows, version)
        self.leases.end(lease, "was acknowledged before")
        if reservation is not None:
            reservation.complete = True
            if reservation.want.lease_s is None:
                self.hold(lease.task, lease.parts, self.clock())
        self.done(lease.parts)

    def give_back(self, lease: Lease, how: str) -> None:
        """End a lease whose rows were not done, and free what nobody needs any more."""
        self.end(lease, how)
        self.done(lease.parts)

    def end(self, lease: Lease, how: str, *, lost: bool = False) -> None:
        """Rows return to the task, less what was written under the lease: a half-done row starts anew.

        A row whose new fields another task has taken already stays, and counts as consumed: the work was done.
        """
        reservation = self.reservations.of_lease(lease.id)
        if reservation is not None:
            self.reservations.forget(reservation)
        self.leases.end(lease, how, lost=lost)
        for partition, rows in lease.parts:
            mine = [(field, there) for where, fields, there in lease.written if where is partition for field in fields]
            used = [there[partition.taken_by_others(lease.task, field, there)] for field, there in mine]
            kept = np.isin(rows, np.concatenate(used)) if used else np.zeros(len(rows), dtype=np.bool_)
            for field, there in mine:
                self.withdraw(partition, field, there[~np.isin(there, rows[kept])])
            self.move(lease.task, [(partition, rows[kept])], LEASED, CONSUMED)
            self.move_back(lease.task, partition, rows[~kept], LEASED)

    def withdraw(self, partition: Partition, field: str, rows: Rows) -> None:
        """These rows have this field no more, if they had it, and its values may be forgotten."""
        rows = partition.having(field, rows)
        if len(rows):
            partition.unwrite(field, rows)
            self.effects.append(Freed(partition.serial, field, tuple(rows.tolist())))

    def drop_parts(self, parts: list[Part], reason: str, refill: bool) -> None:
        """Drop rows for every task that has not taken them; with `refill`, others may be put in their stead."""
        for partition, rows in parts:
            partition.drop(rows, reason)
            if refill:
                partition.seats.retire(rows)
        self.steps.version += refill
        self.done(parts)

    def done(self, parts: list[Part]) -> None:
        """Free what nobody needs any more, if it is known who needs it (`tasks=`): these rows, or their partition.

        A row goes when every task in `tasks=` is through with it and nobody holds it, a partition when all of its rows
        have gone and no seat is left to fill.
        """
        if not self.shape.tasks:
            return
        for partition, rows in parts:
            if self.steps.alive.get(partition.step) is partition:
                gone = [partition.gone(task) for task in self.shape.tasks]
                if min(gone) == partition.seats.rows_ever and not partition.held and not self.leases.of([partition]):
                    self.remove(partition)
                elif all(gone):
                    self._free(partition, self._needless(partition, rows))

    def _needless(self, partition: Partition, rows: Rows) -> Rows:
        """Those of the rows that are kept for nobody and have not been freed before."""
        rows = rows[partition.exists[rows] == EXISTS]
        for task in self.shape.tasks:
            stand = partition.tasks.get(task)
            if stand is not None:
                rows = rows[stand.state[rows] >= CONSUMED]
            elif partition.dropped is not None:
                rows = rows[partition.dropped.array[rows] != 0]
        for stand in partition.tasks.values():
            rows = rows[stand.state[rows] != LEASED]
            if stand.holds is not None:
                rows = rows[stand.holds.array[rows] == 0]
        return rows

    def _free(self, partition: Partition, rows: Rows) -> None:
        if len(rows):
            partition.exists[rows] = FREED
            partition.drop(rows, "cleared")
            self.effects.append(Freed(partition.serial, None, tuple(rows.tolist())))

    def remove(self, partition: Partition) -> None:
        """The partition is gone, with everything that refers to it."""
        self.steps.remove(partition.step)
        self.effects.append(Freed(partition.serial))
        self.reservations.forget_partition(partition)
        self.holds.forget(partition)
        self.stir_all(partition.step)
        partition.end()
