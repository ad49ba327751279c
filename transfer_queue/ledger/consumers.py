"""What consumers ask for: which rows each is given, alone or as a rank of a DP group, and when they are consumed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transfer_queue.errors import ConfigurationError, DPGroupError
from transfer_queue.ledger.book import Book
from transfer_queue.ledger.lease import Lease, Part
from transfer_queue.ledger.limits import check_possible
from transfer_queue.ledger.partition import Partition
from transfer_queue.ledger.request import Taken, Want
from transfer_queue.ledger.reservation import Reservation
from transfer_queue.ledger.view import CONSUMED, FREE, LEASED, View


class Consumers(Book):
    """Taking rows, and ending what was taken. Every method either does all of what it says or changes nothing."""

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
        """The consumer was gone before it heard of its rows: let them be as if it had never been given them.

        What ended in the meantime, such as with its step, has ended.
        """
        if taken.lease_id is not None:
            if taken.lease_id in self.leases.live:
                self.release(taken.lease_id)
        elif want.dp is not None:
            reservation = self.reservations.find(want)
            if taken.voted and reservation is not None:
                self._withdraw(reservation, want.dp.rank)
        else:
            for partition, rows in self.steps.still_there(taken.indexes):
                rows = rows[partition.task(want.task).state[rows] == CONSUMED]
                self.move_back(want.task, partition, rows, CONSUMED)
                if self.holds.read(want.task, partition, rows):
                    self.done([(partition, rows)])

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
            self.hold(want.task, parts, now)
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

    def _vote(self, reservation: Reservation, rank: int, version: int | None = None) -> None:
        self.reservations.vote(reservation, rank, version)
        if len(reservation.lease.votes) == reservation.lease.ranks:
            self.consume(reservation.lease, reservation.lease.version)

    def _withdraw(self, reservation: Reservation, rank: int) -> None:
        """Take back the vote of a rank that never heard of its rows; what it completed is incomplete again."""
        lease = reservation.lease
        if reservation.complete:
            self.move(lease.task, lease.parts, CONSUMED, LEASED)
            self.leases.reopen(lease)
            reservation.complete = False
            self.read(lease.task, reservation.rows.tolist())
        self.reservations.withdraw(reservation, rank)

    def ack(self, lease_id: int, dp_rank: int | None = None, version: int | None = None) -> None:
        """Consume the rows of a lease; of a DP group: this rank's vote, and the last vote consumes the rows of all.

        `version` is that of the consumer when it was done (of a DP group the highest counts): `rollback` to an earlier
        one undoes the ack; without a version it stands for ever.
        """
        reservation, lease = self.check_ack(lease_id, dp_rank, version)
        if lease is None:
            return
        if reservation is None or dp_rank is None:
            self.consume(lease, version)
        else:
            self._vote(reservation, dp_rank, version)

    def check_ack(
        self, lease_id: int, dp_rank: int | None = None, version: int | None = None
    ) -> tuple[Reservation | None, Lease | None]:
        """The errors of `ack`, and what it is about: the DP group if there is one, the lease unless all have voted."""
        if version is not None and not 0 <= version < 2**31 - 1:
            raise ConfigurationError(f"version={version} is out of range: it is a whole number from 0 to 2**31 - 2")
        reservation = self.reservations.of_lease(lease_id)
        if reservation is not None and reservation.complete:
            return reservation, None
        lease = self.leases.get(lease_id)
        if reservation is not None and (dp_rank is None or not 0 <= dp_rank < lease.ranks):
            raise DPGroupError(
                f"{lease.describe()} belongs to a DP group of {lease.ranks} ranks; dp_rank={dp_rank} has no vote"
            )
        return reservation, lease

    def release(self, lease_id: int) -> None:
        """Give the rows of a lease back to its task, in order; of a DP group: the rows of all ranks."""
        self.give_back(self.leases.get(lease_id), "was released; its rows went back to the task")

    def extend(self, lease_id: int, seconds: float) -> float:
        """Let the lease end `seconds` from now, if that is later than before; the new deadline."""
        lease = self.leases.get(lease_id)
        self.leases.extend(lease, self.clock() + seconds)
        return lease.deadline

    def read(self, task: str, indexes: Sequence[int]) -> None:
        """Note that the task has read these rows: nobody has to keep them for a consumer of it without a lease."""
        if self.holds.open:
            parts = self.steps.locate(list(dict.fromkeys(indexes)))
            self.done([(partition, rows) for partition, rows in parts if self.holds.read(task, partition, rows)])
