"""DP groups: one reservation per (task, step, dp_group_id), one slice of it per rank, consumed by everybody's vote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from transfer_queue.errors import DPGroupError
from transfer_queue.ledger.lease import Lease
from transfer_queue.ledger.partition import Partition
from transfer_queue.ledger.request import Want
from transfer_queue.ledger.view import Rows

Key = tuple[str, int | None, str | int]


def key_of(want: Want) -> Key:
    assert want.dp is not None
    return (want.task, want.step, want.dp.group_id)


@dataclass(slots=True, eq=False)
class Reservation:
    """`batch_size * dp_size` rows (global indexes) taken together under one lease, of which rank r has slice r."""

    want: Want
    rows: Rows
    lease: Lease
    complete: bool = False

    def slice(self, rank: int) -> Rows:
        """The rows of one rank."""
        size = self.want.batch_size
        return self.rows[rank * size : (rank + 1) * size]

    def check_agrees(self, want: Want) -> None:
        """`DPGroupError` naming both values unless this rank asks for what the first rank asked for."""
        assert self.want.dp is not None
        assert want.dp is not None
        pairs = (
            ("dp_size", self.want.dp.size, want.dp.size),
            ("batch_size", self.want.batch_size, want.batch_size),
            ("data_fields", list(self.want.fields), list(want.fields)),
            ("get_n_samples", self.want.whole_groups, want.whole_groups),
            ("a lease", self.want.lease_s is not None, want.lease_s is not None),
        )
        for name, first, now in pairs:
            if first != now:
                raise DPGroupError(
                    f"dp_rank {want.dp.rank} of dp_group_id {want.dp.group_id!r} (task {want.task!r}, step {want.step})"
                    f" asks for {name}={now!r}, but dp_rank {self.want.dp.rank} asked for {name}={first!r}: "
                    "all ranks must agree"
                )
        if self.complete:
            raise DPGroupError(
                f"dp_group_id {want.dp.group_id!r} of task {want.task!r}, step {want.step} is complete: every rank "
                "consumed its rows; use a new dp_group_id"
            )


class Reservations:
    """The reservations of all alive partitions; a complete one is remembered until its partition is cleared."""

    def __init__(self) -> None:
        self.by_key: dict[Key, Reservation] = {}
        self._by_lease: dict[int, Reservation] = {}
        self._of_partition: dict[int, dict[Key, Reservation]] = {}
        self.votes: dict[int | None, Counter[tuple[str, int]]] = {}

    def find(self, want: Want) -> Reservation | None:
        """The reservation that this rank belongs to, if an earlier rank made it."""
        return self.by_key.get(key_of(want)) if want.dp is not None else None

    def of_lease(self, lease_id: int) -> Reservation | None:
        return self._by_lease.get(lease_id)

    def completed(self, task: str, step: int | None, rank: int) -> int:
        """How many reservations this rank has voted for there; the default id of its next one."""
        votes = self.votes.get(step)
        return votes[task, rank] if votes is not None else 0

    def vote(self, reservation: Reservation, rank: int, version: int | None = None) -> None:
        """This rank has its rows and is done with them; its first vote stands."""
        if rank not in reservation.lease.votes:
            self._count(reservation, [rank], 1)
            reservation.lease.votes[rank] = version

    def withdraw(self, reservation: Reservation, rank: int) -> None:
        """The rank never heard of its rows."""
        if rank in reservation.lease.votes:
            self._count(reservation, [rank], -1)
            del reservation.lease.votes[rank]

    def roll_back(self, version: int) -> None:
        """Votes that bore a later version count no more; a complete group with one of them may begin again."""
        for reservation in list(self.by_key.values()):
            late = [rank for rank, bore in reservation.lease.votes.items() if bore is not None and bore > version]
            if late and reservation.complete:
                reservation.complete = False
                self.forget(reservation)
            elif late:
                for rank in late:
                    self.withdraw(reservation, rank)

    def _count(self, reservation: Reservation, ranks: Iterable[int], change: int) -> None:
        for rank in ranks:
            self.count(reservation.want.step, reservation.want.task, rank, change)

    def count(self, step: int | None, task: str, rank: int, change: int) -> None:
        """Change the number of reservations that a rank has voted for."""
        self.votes.setdefault(step, Counter())[task, rank] += change

    def add(self, reservation: Reservation) -> Reservation:
        """The first rank made a reservation."""
        key, lease = key_of(reservation.want), reservation.lease
        self.by_key[key] = self._by_lease[lease.id] = reservation
        for partition, _ in lease.parts:
            self._of_partition.setdefault(partition.serial, {})[key] = reservation
        return reservation

    def forget(self, reservation: Reservation) -> None:
        """The rows went back: the same id may begin again, with new votes; those of a complete one stay counted."""
        if not reservation.complete:
            self._count(reservation, reservation.lease.votes, -1)
        key = key_of(reservation.want)
        del self.by_key[key]
        del self._by_lease[reservation.lease.id]
        for partition, _ in reservation.lease.parts:
            self._of_partition.get(partition.serial, {}).pop(key, None)

    def forget_partition(self, partition: Partition) -> None:
        """Everything that refers to a partition that is cleared."""
        for reservation in self._of_partition.pop(partition.serial, {}).copy().values():
            self.forget(reservation)
        self.votes.pop(partition.step, None)
