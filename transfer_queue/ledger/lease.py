"""Leases: rows given to one consumer until a moment in time, and how each of the last ones ended."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from transfer_queue.errors import LeaseError
from transfer_queue.ledger.partition import Partition
from transfer_queue.ledger.view import Rows

REMEMBERED = 4096
"""Ended leases whose end can still be told to a late caller."""

Part = tuple[Partition, Rows]


@dataclass(slots=True, eq=False)
class Lease:
    """Rows of one task in one consumer's hands; `written` are the fields put under it, `votes` its DP ranks' acks.

    A lease without `exclusive` holds rows that are consumed already: it only keeps their values until they are read.
    """

    id: int
    task: str
    client: str
    parts: list[Part]
    taken_at: float
    deadline: float
    exclusive: bool = True
    ranks: int = 1
    votes: set[int] = field(default_factory=set)
    written: list[tuple[Partition, str, Rows]] = field(default_factory=list)
    unread: set[int] = field(default_factory=set)

    @property
    def rows(self) -> int:
        return sum(len(rows) for _, rows in self.parts)

    def describe(self) -> str:
        """For a message: whose lease, of what."""
        steps = ", ".join(str(partition.step) for partition, _ in self.parts)
        return f"lease {self.id} of task {self.task!r} ({self.rows} rows of step {steps}, taken by {self.client!r})"


class LeaseTable:
    """The live leases in order of their deadlines; the clock is the caller's."""

    def __init__(self) -> None:
        self.live: dict[int, Lease] = {}
        self._ended: OrderedDict[int, str] = OrderedDict()
        self._deadlines: list[tuple[float, int]] = []
        self._next_id = 1

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self.live.values()))

    def open(
        self,
        task: str,
        client: str,
        parts: Sequence[Part],
        now: float,
        seconds: float,
        *,
        exclusive: bool,
        ranks: int = 1,
    ) -> Lease:
        """A new lease that ends `seconds` from now unless it is ended or extended before."""
        lease = Lease(self._next_id, task, client, list(parts), now, now + seconds, exclusive, ranks)
        self._next_id += 1
        self.live[lease.id] = lease
        heapq.heappush(self._deadlines, (lease.deadline, lease.id))
        return lease

    def get(self, lease_id: int) -> Lease:
        """The live lease of that id; `LeaseError` says how an ended one ended."""
        lease = self.live.get(lease_id)
        if lease is None:
            raise LeaseError(self._ended.get(lease_id, f"lease {lease_id} is unknown to this controller"))
        return lease

    def extend(self, lease: Lease, deadline: float) -> None:
        """Move the deadline; never nearer."""
        if deadline > lease.deadline:
            lease.deadline = deadline
            heapq.heappush(self._deadlines, (deadline, lease.id))

    def end(self, lease: Lease, how: str) -> None:
        """Take the lease out; `how` completes the sentence "lease 3 of task 'train' (…) …"."""
        del self.live[lease.id]
        if lease.exclusive:
            self._ended[lease.id] = f"{lease.describe()} {how}"
            if len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)

    def reopen(self, lease: Lease) -> None:
        """Let an ended lease live until its deadline again, as if it had not ended."""
        self._ended.pop(lease.id, None)
        self.live[lease.id] = lease
        heapq.heappush(self._deadlines, (lease.deadline, lease.id))

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
