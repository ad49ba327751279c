"""The ledger: rows, fields, tasks, leases and DP groups of one queue; the one place that knows who may have what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Self

import numpy as np

from transfer_queue.errors import FieldError, LeaseError
from transfer_queue.ledger.book import Freed
from transfer_queue.ledger.consumers import Consumers
from transfer_queue.ledger.lease import Lease, Part
from transfer_queue.ledger.loss import check_not_lost, lose
from transfer_queue.ledger.partition import LONGEST_REASON, Partition
from transfer_queue.ledger.placing import room_for_one, shares
from transfer_queue.ledger.rollback import Rolled, rollback
from transfer_queue.ledger.seats import Label
from transfer_queue.ledger.state import LedgerState, export, restore_into
from transfer_queue.ledger.view import DROPPED, LEASED, Rows

__all__ = ["Freed", "Ledger"]


class Ledger(Consumers):
    """Rows, fields, tasks, leases and DP groups of one queue.

    Every method either does all of what it says or raises and changes nothing.
    """

    def export(self) -> LedgerState:
        """Everything that the ledger knows, as plain values for a snapshot, except `effects` and `stirred`."""
        return export(self)

    @classmethod
    def restore(cls, state: LedgerState, clock: Callable[[], float]) -> Self:
        """The ledger of that state, for which no time has passed; whoever waits has to be tried anew."""
        ledger = cls(state.shape, clock)
        restore_into(ledger, state)
        return ledger

    @property
    def room_version(self) -> int:
        """Grows with every put and every partition that goes: while it stays, a put that did not fit does not fit."""
        return self.steps.version

    def put_rows(
        self, count: int, fields: Sequence[str], step: int | None, labels: Sequence[Label] | None = None
    ) -> list[int] | None:
        """New rows with these fields: their global indexes, in order; None while every partition is taken.

        Without labels the rows form groups in order, so `count` must be a multiple of `num_n_samples`.
        """
        one = None
        if count == 1 and (self.shape.num_n_samples == 1 if labels is None else len(labels) == 1):
            one = room_for_one(self.steps, labels[0] if labels else None, step)
        indexes = self._put_many(count, fields, step, labels) if one is None else self._put_one(one, fields, labels)
        if indexes is not None:
            self.rows_put += count
            self.steps.version += 1
        return indexes

    def _put_one(self, partition: Partition, fields: Sequence[str], labels: Sequence[Label] | None) -> list[int]:
        row = partition.seats.seat(labels[0] if labels else None)
        partition.add_one(row, fields)
        return [partition.base + row]

    def _put_many(
        self, count: int, fields: Sequence[str], step: int | None, labels: Sequence[Label] | None
    ) -> list[int] | None:
        found = shares(self.steps, count, labels, step)
        if found is None:
            return None
        indexes = np.empty(count, dtype=np.intp)
        for share in found:
            partition = self.open(share.step)
            seats = partition.seats
            if share.labels is None:
                rows = seats.seat_groups(len(share.places) // seats.size)
            else:
                rows = seats.seat_all(share.labels)
            partition.add(rows, fields)
            indexes[share.places] = rows + partition.base
        made: list[int] = indexes.tolist()
        return made

    def put_fields(self, indexes: Sequence[int], fields: Sequence[str], lease_id: int | None = None) -> None:
        """More fields of rows that exist, each written once per row.

        A lease that is named must be alive and hold the rows; its task is the producer of these fields, and gets the
        rows again if they are lost.
        """
        lease = self.leases.get(lease_id) if lease_id is not None else None
        if lease is not None:
            lease.check_holds(indexes)
        if len(indexes) == 1:
            partition, row = self.steps.locate_one(indexes[0])
            partition.write_one(fields, row)
            if lease is not None:
                self._note(lease, partition, fields, np.array([row]))
            return
        if len(set(indexes)) != len(indexes):
            raise FieldError("the metadata names a row twice")
        parts = self.steps.locate(indexes)
        for partition, rows in parts:
            partition.check_writable(fields, rows)
        for partition, rows in parts:
            partition.write(fields, rows)
            if lease is not None:
                self._note(lease, partition, fields, rows)

    def _note(self, lease: Lease, partition: Partition, fields: Sequence[str], rows: Rows) -> None:
        lease.written.append((partition, tuple(fields), rows))
        for field in fields:
            partition.producers[field] = lease.task

    def drop(self, lease_id: int, reason: str, refill: bool = False) -> None:
        """Drop the rows of a lease: for its task, and for every task that has not taken them.

        With `refill` they must be whole groups, which stop counting: as many new groups may be put into their step.
        """
        lease = self.leases.get(lease_id)
        if refill:
            self._check_refill(lease.parts)
        reservation = self.reservations.of_lease(lease_id)
        if reservation is not None:
            self.reservations.forget(reservation)
        self.move(lease.task, lease.parts, LEASED, DROPPED, reason)
        self.leases.end(lease, f"ended: its rows were dropped ({reason[:LONGEST_REASON]})")
        self.drop_parts(lease.parts, reason, refill)

    def drop_rows(self, indexes: Sequence[int], reason: str, refill: bool = False) -> None:
        """Drop rows, without a lease, for every task that has not taken them; those that are gone already are no error.

        Who holds them keeps them, but what is given back is dropped then.
        """
        parts = self.steps.still_there(indexes)
        if refill:
            self._check_refill(parts)
        self.drop_parts(parts, reason, refill)

    def _check_refill(self, parts: list[Part]) -> None:
        for partition, rows in parts:
            partition.seats.check_whole(rows)

    def lose(self, indexes: Sequence[int], fields: Iterable[str]) -> None:
        """The values of these fields of these rows died with their storage; rows that are gone are passed over.

        Leases that read or wrote them end (`FieldLostError`), and the task that had put them under a lease gets the
        rows again: everything that it put there is put anew. Tasks that have consumed the rows stay through with them,
        except that one that made a field from a lost one makes it anew too. A row that lost a field with which it was
        put is dropped for every task, with reason "lost".
        """
        lose(self, indexes, fields)

    def check_not_lost(self, indexes: Sequence[int], field: str) -> None:
        """`FieldLostError` if the field of one of these rows was lost and is not made anew yet."""
        check_not_lost(self, indexes, field)

    def rollback(self, version: int) -> Rolled:
        """Undo every ack (and vote) that bore a later version: the rows are free again for the task."""
        return rollback(self, version)

    def next_deadline(self) -> float | None:
        """When `expire` has something to do next, or None."""
        times = (self.leases.next_deadline(), self.holds.next_deadline())
        return min((time for time in times if time is not None), default=None)

    def expire(self) -> int:
        """End every lease whose deadline has passed; how many there were."""
        now, ended = self.clock(), 0
        while (lease := self.leases.due(now)) is not None:
            ended += 1
            self.give_back(lease, "expired; its rows went back to the task")
        while (late := self.holds.due(now)) is not None:
            ended += 1
            number, hold = late
            for serial, rows in hold.parts:
                partition = self.steps.by_serial.get(serial)
                if partition is not None:
                    rows = self.holds.rows_of(number, partition, rows)
                    self.holds.read(hold.task, partition, rows)
                    self.done([(partition, rows)])
            self.holds.open.pop(number, None)
        return ended

    def clear(self, step: int, *, force: bool = False) -> bool:
        """Free the rows of a step for all tasks; False if it is not alive. Live leases refuse it unless forced."""
        partition = self.steps.alive.get(step)
        if partition is None:
            return False
        live = self.leases.of([partition])
        if live and not force:
            age = self.clock() - live[0].taken_at
            raise LeaseError(
                f"step {step} cannot be cleared: {live[0].describe()} has been alive for {age:.0f} s; "
                "ack or release it, or clear with force=True"
            )
        for lease in live:
            self.give_back(lease, f"was ended by a forced clear of step {step}")
        if self.steps.alive.get(step) is partition:  # it may have cleared itself with its last lease
            self.remove(partition)
        return True
