"""Leases: rows given to one consumer until a moment in time, and how each of the last ones ended."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from transfer_queue.errors import FieldLostError, LeaseError, TransferQueueError
from transfer_queue.ledger.partition import Partition
from transfer_queue.ledger.request import Want
from transfer_queue.ledger.view import Rows

REMEMBERED = 4096
"""Ended leases whose end can still be told to a late caller."""

Part = tuple[Partition, Rows]


class Ended(NamedTuple):
    """A lease that is over; `how` completes the sentence "lease 3 of task 'train' (…) …"."""

    id: int
    task: str
    client: str
    rows: int
    steps: tuple[int, ...]
    how: str
    lost: bool = False

    def error(self) -> TransferQueueError:
        """What whoever comes too late is told."""
        return (FieldLostError if self.lost else LeaseError)(str(self))

    def __str__(self) -> str:
        steps = ", ".join(map(str, self.steps))
        whose = f"lease {self.id} of task {self.task!r} ({self.rows} rows of step {steps}, taken by {self.client!r})"
        return f"{whose} {self.how}".rstrip()


@dataclass(slots=True, eq=False)
class Lease:
    """Rows of one task in one consumer's hands, taken for `fields`.

    `written` are the fields put under it, `votes` its DP ranks' acks and the versions that they bore.
    """

    id: int
    task: str
    client: str
    fields: tuple[str, ...]
    parts: list[Part]
    taken_at: float
    deadline: float
    ranks: int = 1
    votes: dict[int, int | None] = field(default_factory=dict)
    written: list[tuple[Partition, tuple[str, ...], Rows]] = field(default_factory=list)
    _members: frozenset[int] = frozenset()

    @property
    def rows(self) -> int:
        return sum([len(rows) for _, rows in self.parts])

    @property
    def version(self) -> int | None:
        """The highest version that a vote bore, or None."""
        return max((version for version in self.votes.values() if version is not None), default=None)

    def check_holds(self, indexes: Sequence[int]) -> None:
        """`LeaseError` unless these rows are among those of the lease."""
        if not self._members:
            self._members = frozenset([i for partition, rows in self.parts for i in (rows + partition.base).tolist()])
        if not self._members.issuperset(indexes):
            strange = [index for index in indexes if index not in self._members]
            raise LeaseError(f"rows {strange[:8]} are not in {self.describe()}: under a lease, write its own rows only")

    def ended(self, how: str, lost: bool = False) -> Ended:
        """What is remembered of it."""
        steps = tuple([partition.step for partition, _ in self.parts])
        return Ended(self.id, self.task, self.client, self.rows, steps, how, lost)

    def describe(self) -> str:
        """For a message: whose lease, of what."""
        return str(self.ended(""))


class LeaseTable:
    """The live leases in order of their deadlines and by partition; the clock is the caller's."""

    def __init__(self) -> None:
        self.live: dict[int, Lease] = {}
        self.next_id = 1
        self._of_partition: dict[int, dict[int, Lease]] = {}
        self.over: OrderedDict[int, Ended] = OrderedDict()
        self._deadlines: list[tuple[float, int]] = []

    def of(self, partitions: Iterable[Partition]) -> list[Lease]:
        """The live leases that hold rows of any of these partitions, oldest first."""
        found: dict[int, Lease] = {}
        for partition in partitions:
            found |= self._of_partition.get(partition.serial, {})
        return [found[key] for key in sorted(found)]

    def open(self, want: Want, parts: list[Part], now: float, seconds: float) -> Lease:
        """A new lease that ends `seconds` from now unless it is ended or extended before."""
        ranks = want.dp.size if want.dp else 1
        lease = Lease(self.next_id, want.task, want.client, want.fields, parts, now, now + seconds, ranks)
        self.next_id += 1
        self.reopen(lease)
        return lease

    def reopen(self, lease: Lease) -> None:
        """Let the lease live until its deadline, as if it had not ended if it had."""
        self.over.pop(lease.id, None)
        self.live[lease.id] = lease
        for partition, _ in lease.parts:
            self._of_partition.setdefault(partition.serial, {})[lease.id] = lease
        heapq.heappush(self._deadlines, (lease.deadline, lease.id))

    def get(self, lease_id: int) -> Lease:
        """The live lease of that id; `LeaseError` (or `FieldLostError`) says how an ended one ended."""
        lease = self.live.get(lease_id)
        if lease is None:
            ended = self.over.get(lease_id)
            raise LeaseError(f"lease {lease_id} is unknown to this controller") if ended is None else ended.error()
        return lease

    def extend(self, lease: Lease, deadline: float) -> None:
        """Move the deadline; never nearer."""
        if deadline > lease.deadline:
            lease.deadline = deadline
            heapq.heappush(self._deadlines, (deadline, lease.id))
            if len(self._deadlines) > 4 * len(self.live) + 64:
                self._deadlines = [(each.deadline, each.id) for each in self.live.values()]
                heapq.heapify(self._deadlines)

    def end(self, lease: Lease, how: str, *, lost: bool = False) -> None:
        """Take the lease out; `how` completes the sentence "lease 3 of task 'train' (…) …"."""
        del self.live[lease.id]
        for partition, _ in lease.parts:
            there = self._of_partition[partition.serial]
            del there[lease.id]
            if not there:
                del self._of_partition[partition.serial]
        self.over[lease.id] = lease.ended(how, lost)
        if len(self.over) > REMEMBERED:
            self.over.popitem(last=False)

    def next_deadline(self) -> float | None:
        """When the next lease ends by itself, or None."""
        while self._deadlines:
            deadline, lease_id = self._deadlines[0]
            lease = self.live.get(lease_id)
            if lease is not None and lease.deadline == deadline:
                return deadline
            heapq.heappop(self._deadlines)
        return None

    def due(self, now: float) -> Lease | None:
        """One lease whose deadline has passed, or None."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return None
        return self.live[self._deadlines[0][1]]
