"""The ledger: the one place where it is decided which rows a consumer gets and when they are consumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from transfer_queue.errors import DPGroupError, FieldError, LeaseError
from transfer_queue.ledger.lease import Lease, LeaseTable, Part
from transfer_queue.ledger.limits import check_possible
from transfer_queue.ledger.partition import Partition
from transfer_queue.ledger.request import Taken, Want
from transfer_queue.ledger.reservation import Reservation, Reservations
from transfer_queue.ledger.shape import QueueShape
from transfer_queue.ledger.steps import Steps, group_labels
from transfer_queue.ledger.view import CONSUMED, DROPPED, FREE, LEASED

HOLD_S = 300.0
"""How long rows that were consumed without a lease, and never read, keep their partition from clearing itself."""


@dataclass(frozen=True, slots=True)
class Freed:
    """Values that the storage may forget: of a whole partition, or of one field of some of its rows."""

    serial: int
    field: str | None = None
    rows: tuple[int, ...] = ()


class Ledger:
    """Rows, fields, tasks, leases and DP groups of one queue.

    Every method either does all of what it says or raises and changes nothing. `effects` collects what the owner of
    the values may forget; the owner empties it after each call.
    """

    def __init__(self, shape: QueueShape, clock: Callable[[], float]) -> None:
        self.shape = shape.validate()
        self.clock = clock
        self.steps = Steps(shape)
        self.leases = LeaseTable()
        self.effects: list[Freed] = []
        self.last_wants: dict[str, Want] = {}
        self.rows_put = 0
        self.rows_consumed: Counter[str] = Counter()
        self.reservations = Reservations()

    def put_rows(
        self, count: int, fields: Sequence[str], step: int | None, labels: Sequence[Hashable] | None = None
    ) -> list[int] | None:
        """New rows with these fields: their global indexes, in order; None while every partition is taken.

        Without labels the rows form groups in order, so `count` must be a multiple of `num_n_samples`.
        """
        plan = self.steps.plan(group_labels(count, self.shape.num_n_samples, labels), step)
        if plan is None:
            return None
        indexes: list[int] = []
        for where, there in plan:
            partition = self.steps.open(where)
            rows = partition.seat(there)
            partition.add(rows)
            partition.write(fields, rows)
            indexes += (rows + partition.base).tolist()
        self.rows_put += count
        self.steps.version += 1
        return indexes

    def put_fields(self, indexes: Sequence[int], fields: Sequence[str], lease_id: int | None = None) -> None:
        """More fields of rows that exist, each written once per row. A lease that is named must be alive."""
        if len(set(indexes)) != len(indexes):
            raise FieldError("the metadata names a row twice")
        lease = self.leases.get(lease_id) if lease_id is not None else None
        parts = self.steps.locate(indexes)
        for partition, rows in parts:
            partition.check_writable(fields, rows)
        for partition, rows in parts:
            partition.write(fields, rows)
            if lease is not None:
                lease.written += [(partition, field, rows) for field in fields]

    def take(self, want: Want) -> Taken | None:
        """Serve a `get_meta` now, or None if it has to wait; an error if it can never be served."""
        self.last_wants[want.task] = want
        reservation = self.reservations.find(want)
        if reservation is not None:
            return self._join(reservation, want)
        unit = self.shape.num_n_samples if want.whole_groups else 1
        partitions = self.steps.in_order(want.step)
        views = [partition.view(want.task, want.fields, unit) for partition in partitions]
        if sum(view.ready_rows for view in views) < want.needed:
            check_possible(self.shape, self.steps, want)
            return None
        parts: list[Part] = []
        missing = want.needed
        for view in views:
            rows = view.first(missing // unit)
            if len(rows):
                parts.append((view.partition, rows))
            missing -= len(rows)
        return self._give(want, parts)

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
            self._move(want.task, parts, CONSUMED, FREE)
            self.rows_consumed[want.task] -= len(taken.indexes)
            self.read(taken.indexes)

    def take_chosen(self, want: Want, partition: Partition, chosen: Sequence[int]) -> Taken | None:
        """Take the rows that a custom sampler chose, in its order; None if one of them is not free any more."""
        rows = np.asarray(chosen, dtype=np.intp)
        if self.steps.alive.get(partition.step) is not partition:
            return None
        if not partition.view(want.task, want.fields, 1).ready[rows].all():
            return None
        return self._give(want, [(partition, rows)])

    def _give(self, want: Want, parts: list[Part]) -> Taken:
        for partition, _ in parts:
            partition.task(want.task).fields_read.update(want.fields)
        indexes = np.concatenate([rows + partition.base for partition, rows in parts])
        now = self.clock()
        if want.lease_s is None and want.dp is None:
            self._move(want.task, parts, FREE, CONSUMED)
            self._hold(want.task, want.client, parts, now)
            return Taken(indexes.tolist())
        seconds = want.patience_s if want.lease_s is None else want.lease_s
        ranks = want.dp.size if want.dp else 1
        lease = self.leases.open(want.task, want.client, parts, now, seconds, exclusive=True, ranks=ranks)
        self._move(want.task, parts, FREE, LEASED)
        if want.dp is None:
            return Taken(indexes.tolist(), lease.id, lease.deadline)
        return self._join(self.reservations.add(want, indexes, lease), want)

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
            self._consume(reservation.lease)

    def _withdraw(self, reservation: Reservation, rank: int) -> None:
        """Take back the vote of a rank that never heard of its rows; what it completed is incomplete again."""
        lease = reservation.lease
        if reservation.complete:
            self._move(lease.task, lease.parts, CONSUMED, LEASED)
            self.rows_consumed[lease.task] -= lease.rows
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
            self._consume(lease)
            return
        if dp_rank is None or not 0 <= dp_rank < lease.ranks:
            raise DPGroupError(
                f"{lease.describe()} belongs to a DP group of {lease.ranks} ranks; dp_rank={dp_rank} has no vote"
            )
        self._vote(reservation, dp_rank)

    def release(self, lease_id: int) -> None:
        """Give the rows of a lease back to its task, in order; of a DP group: the rows of all ranks."""
        self._give_back(self.leases.get(lease_id), "was released; its rows went back to the task")

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
        self._move(lease.task, lease.parts, LEASED, DROPPED, reason)
        self.leases.end(lease, f"ended: its rows were dropped ({reason})")
        for partition, rows in lease.parts:
            partition.drop_free(rows, reason)
        self._clear_done(lease.parts)

    def drop_rows(self, indexes: Sequence[int], reason: str) -> None:
        """Drop these rows for every task that has not taken them. (Until branch `ledger` is merged.)"""
        parts = self.steps.locate(indexes)
        for partition, rows in parts:
            partition.drop_free(rows, reason)
        self._clear_done(parts)

    def read(self, indexes: Sequence[int]) -> None:
        """Note that the values of these rows were read: nobody has to keep them for a consumer without a lease."""
        for hold in [lease for lease in self.leases if not lease.exclusive]:
            hold.unread.difference_update(indexes)
            if not hold.unread:
                self.leases.end(hold, "was read")
                self._clear_done(hold.parts)

    def expire(self) -> int:
        """End every lease whose deadline has passed; how many there were."""
        now, ended = self.clock(), 0
        while (lease := self.leases.due(now)) is not None:
            ended += 1
            if lease.exclusive:
                self._give_back(lease, "expired; its rows went back to the task")
            else:
                self.leases.end(lease, "was not read in time")
                self._clear_done(lease.parts)
        return ended

    def clear(self, step: int, *, force: bool = False) -> bool:
        """Free the rows of a step for all tasks; False if it is not alive. Live leases refuse it unless forced."""
        partition = self.steps.alive.get(step)
        if partition is None:
            return False
        live = [lease for lease in self.leases if any(part is partition for part, _ in lease.parts)]
        if not force:
            for lease in live:
                if lease.exclusive:
                    age = self.clock() - lease.taken_at
                    raise LeaseError(
                        f"step {step} cannot be cleared: {lease.describe()} has been alive for {age:.0f} s; "
                        "ack or release it, or clear with force=True"
                    )
        for lease in live:
            if lease.exclusive:
                self._give_back(lease, f"was ended by a forced clear of step {step}")
            else:
                self.leases.end(lease, "was cleared")
        self._remove(partition)
        return True

    def _remove(self, partition: Partition) -> None:
        if self.steps.alive.get(partition.step) is partition:
            self.steps.remove(partition.step)
            self.effects.append(Freed(partition.serial))
            self.reservations.forget_partition(partition)

    def _consume(self, lease: Lease) -> None:
        reservation = self.reservations.of_lease(lease.id)
        self._move(lease.task, lease.parts, LEASED, CONSUMED)
        self.leases.end(lease, "was acknowledged before")
        if reservation is not None:
            self.reservations.complete(reservation)
            if reservation.want.lease_s is None:
                self._hold(lease.task, lease.client, lease.parts, self.clock())
        self._clear_done(lease.parts)

    def _hold(self, task: str, client: str, parts: list[Part], now: float) -> None:
        if self.shape.tasks:
            hold = self.leases.open(task, client, parts, now, HOLD_S, exclusive=False)
            for partition, rows in parts:
                hold.unread.update((rows + partition.base).tolist())

    def _give_back(self, lease: Lease, how: str) -> None:
        """Rows return to the task, less what was written under the lease: a half-done row starts anew.

        A row whose new fields another task has taken already stays, and counts as consumed: the work was done.
        """
        reservation = self.reservations.of_lease(lease.id)
        if reservation is not None:
            self.reservations.forget(reservation)
        self.leases.end(lease, how)
        for partition, rows in lease.parts:
            mine = [(field, there) for where, field, there in lease.written if where is partition]
            used = [there[partition.taken_by_others(lease.task, field, there)] for field, there in mine]
            kept = np.isin(rows, np.concatenate(used)) if used else np.zeros(len(rows), dtype=np.bool_)
            for field, there in mine:
                undone = there[~np.isin(there, rows[kept])]
                partition.unwrite(field, undone)
                self.effects.append(Freed(partition.serial, field, tuple(undone.tolist())))
            self._move(lease.task, [(partition, rows[kept])], LEASED, CONSUMED)
            self._move(lease.task, [(partition, rows[~kept])], LEASED, FREE)
        self._clear_done(lease.parts)

    def _move(self, task: str, parts: list[Part], before: int, after: int, reason: str = "") -> None:
        for partition, rows in parts:
            partition.move(task, rows, before, after, reason)
            if after == CONSUMED:
                self.rows_consumed[task] += len(rows)

    def _clear_done(self, parts: list[Part]) -> None:
        """A partition clears itself when every task in `tasks=` is through with it and nobody holds rows of it."""
        for partition, _ in parts:
            done = self.shape.tasks and all(
                name in partition.tasks and partition.tasks[name].gone == self.shape.capacity
                for name in self.shape.tasks
            )
            if done and not any(part is partition for lease in self.leases for part, _ in lease.parts):
                self._remove(partition)
