"""The ledger: the one place where it is decided which rows a consumer gets and when they are consumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from transfer_queue.errors import DPGroupError, FieldError, LeaseError
from transfer_queue.ledger.book import Book, Freed
from transfer_queue.ledger.lease import Part
from transfer_queue.ledger.limits import check_possible
from transfer_queue.ledger.partition import Partition
from transfer_queue.ledger.placing import room_for_one, shares
from transfer_queue.ledger.request import Taken, Want
from transfer_queue.ledger.reservation import Reservation
from transfer_queue.ledger.seats import Label
from transfer_queue.ledger.state import LedgerState, export, restore_into
from transfer_queue.ledger.view import CONSUMED, DROPPED, FREE, LEASED, View

__all__ = ["Freed", "Ledger"]


class Ledger(Book):
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
        """More fields of rows that exist, each written once per row. A lease that is named must be alive."""
        lease = self.leases.get(lease_id) if lease_id is not None else None
        if len(indexes) == 1:
            partition, row = self.steps.locate_one(indexes[0])
            partition.write_one(fields, row)
            if lease is not None:
                lease.written.append((partition, tuple(fields), np.array([row])))
            return
        if len(set(indexes)) != len(indexes):
            raise FieldError("the metadata names a row twice")
        parts = self.steps.locate(indexes)
        for partition, rows in parts:
            partition.check_writable(fields, rows)
        for partition, rows in parts:
            partition.write(fields, rows)
            if lease is not None:
                lease.written.append((partition, tuple(fields), rows))

    def take(self, want: Want) -> Taken | None:
        """Serve a `get_meta` now, or None if it has to wait; an error if it can never be served."""
        self.last_wants[want.task] = want
        if want.dp is not None:
            reservation = self.reservations.find(want)
            if reservation is not None:
                return self._join(reservation, want)
        unit = self.shape.num_n_samples if want.whole_groups else 1
        missing, ready, views = want.needed, 0, []
        for partition in self.steps.in_order(want.step):
            view = partition.view(want.task, want.fields, unit)
            if view.ready_units:
                views.append(view)
                ready += view.ready_rows
        if ready < missing:
            check_possible(self.shape, self.steps, want)
            return None
        parts: list[Part] = []
        popped: list[View] = []
        for view in views:
            rows = view.pop(missing // unit)
            if len(rows):
                parts.append((view.partition, rows))
                popped.append(view)
                missing -= len(rows)
        return self._give(want, parts, popped)

    def undo(self, want: Want, taken: Taken) -> None:
        """The consumer was gone before it heard of its rows: let them be as if it had never been given them."""
        if taken.lease_id is not None:
            self.release(taken.lease_id)
        elif want.dp is not None:
            reservation = self.reservations.find(want)
            if taken.voted and reservation is not None:
                self._withdraw(reservation, want.dp.rank)
        else:
            parts = self.steps.locate(taken.indexes)
            self.move(want.task, parts, CONSUMED, FREE)
            self.read(taken.indexes)

    def take_chosen(self, want: Want, partition: Partition, chosen: Sequence[int]) -> Taken | None:
        """Take the rows that a custom sampler chose, in its order; None if one of them is not free any more."""
        rows = np.asarray(chosen, dtype=np.intp)
        if self.steps.alive.get(partition.step) is not partition:
            return None
        if not partition.view(want.task, want.fields, 1).ready[rows].all():
            return None
        return self._give(want, [(partition, rows)])

    def _give(self, want: Want, parts: list[Part], popped: list[View] | None = None) -> Taken:
        for partition, _ in parts:
            partition.task(want.task).fields_read.update(want.fields)
        numbers = [rows + partition.base for partition, rows in parts]
        indexes = numbers[0] if len(numbers) == 1 else np.concatenate(numbers)
        now = self.clock()
        if want.lease_s is None and want.dp is None:
            self.move(want.task, parts, FREE, CONSUMED, popped=popped)
            self.hold(parts, now)
            return Taken(indexes.tolist())
        lease = self.leases.open(want, parts, now, want.patience_s if want.lease_s is None else want.lease_s)
        self.move(want.task, parts, FREE, LEASED, popped=popped)
        if want.dp is None:
            return Taken(indexes.tolist(), lease.id, lease.deadline)
        for partition, _ in parts:
            partition.task(want.task).stir()
        return self._join(self.reservations.add(Reservation(want, indexes, lease)), want)

    def _join(self, reservation: Reservation, want: Want) -> Taken:
        reservation.check_agrees(want)
        assert want.dp is not None
        indexes = reservation.slice(want.dp.rank).tolist()
        if want.lease_s is None:
            voted = want.dp.rank not in reservation.lease.votes
            self._vote(reservation, want.dp.rank)
            return Taken(indexes, voted=voted)
        self.leases.extend(reservation.lease, self.clock() + want.lease_s)
        return Taken(indexes, reservation.lease.id, reservation.lease.deadline)

    def _vote(self, reservation: Reservation, rank: int) -> None:
        self.reservations.vote(reservation, rank)
        if len(reservation.lease.votes) == reservation.lease.ranks:
            self.consume(reservation.lease)

    def _withdraw(self, reservation: Reservation, rank: int) -> None:
        """Take back the vote of a rank that never heard of its rows; what it completed is incomplete again."""
        lease = reservation.lease
        if reservation.complete:
            self.move(lease.task, lease.parts, CONSUMED, LEASED)
            self.leases.reopen(lease)
            self.reservations.reopen(reservation)
            self.read(reservation.rows.tolist())
        self.reservations.withdraw(reservation, rank)

    def ack(self, lease_id: int, dp_rank: int | None = None) -> None:
        """Consume the rows of a lease; of a DP group: this rank's vote, and the last vote consumes the rows of all."""
        reservation = self.reservations.of_lease(lease_id)
        if reservation is not None and reservation.complete:
            return
        lease = self.leases.get(lease_id)
        if reservation is None:
            self.consume(lease)
            return
        if dp_rank is None or not 0 <= dp_rank < lease.ranks:
            raise DPGroupError(
                f"{lease.describe()} belongs to a DP group of {lease.ranks} ranks; dp_rank={dp_rank} has no vote"
            )
        self._vote(reservation, dp_rank)

    def release(self, lease_id: int) -> None:
        """Give the rows of a lease back to its task, in order; of a DP group: the rows of all ranks."""
        self.give_back(self.leases.get(lease_id), "was released; its rows went back to the task")

    def extend(self, lease_id: int, seconds: float) -> float:
        """Let the lease end `seconds` from now, if that is later than before; the new deadline."""
        lease = self.leases.get(lease_id)
        self.leases.extend(lease, self.clock() + seconds)
        return lease.deadline

    def drop(self, lease_id: int, reason: str) -> None:
        """Drop the rows of a lease: for its task, and for every task that has not taken them."""
        lease = self.leases.get(lease_id)
        reservation = self.reservations.of_lease(lease_id)
        if reservation is not None:
            self.reservations.forget(reservation)
        self.move(lease.task, lease.parts, LEASED, DROPPED, reason)
        self.leases.end(lease, f"ended: its rows were dropped ({reason})")
        for partition, rows in lease.parts:
            partition.drop_free(rows, reason)
        self.done(lease.parts)

    def drop_rows(self, indexes: Sequence[int], reason: str) -> None:
        """Drop these rows for every task that has not taken them. (Until branch `ledger` is merged.)"""
        parts = self.steps.locate(indexes)
        for partition, rows in parts:
            partition.drop_free(rows, reason)
        self.done(parts)

    def read(self, indexes: Sequence[int]) -> None:
        """Note that the values of these rows were read: nobody has to keep them for a consumer without a lease."""
        if self.holds.open:
            parts = self.steps.locate(indexes)
            self.done([(partition, rows) for partition, rows in parts if self.holds.read(partition, rows)])

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
                    self.holds.read(partition, rows)
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
        self.remove(partition)
        return True
