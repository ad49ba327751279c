"""Conservation: produced = ready + leased + consumed + dropped + not ready, from counters and from a full recount."""

from __future__ import annotations

from dataclasses import dataclass

from transfer_queue.ledger.ledger import Ledger
from transfer_queue.ledger.partition import THERE, Partition
from transfer_queue.ledger.request import Want
from transfer_queue.ledger.view import CONSUMED, DROPPED, FREE, LEASED


@dataclass(frozen=True, slots=True)
class Counts:
    """The rows of one partition as one task sees them; what is ready depends on the fields that the task asked for."""

    produced: int
    ready: int
    leased: int
    consumed: int
    dropped: int
    not_ready: int

    @property
    def conserved(self) -> bool:
        """Whether no row is lost and none is counted twice."""
        return self.produced == self.ready + self.leased + self.consumed + self.dropped + self.not_ready


def count(ledger: Ledger, partition: Partition, task: str) -> Counts:
    """From the counters that the ledger keeps: the cost does not depend on the rows."""
    stand, want = partition.task(task), ledger.last_wants.get(task)
    if want is None:
        ready, waiting = 0, partition.produced - stand.leased - stand.gone
    else:
        view = partition.view(task, want.fields, _unit(ledger, want))
        ready, waiting = view.ready_rows, view.pending_rows
    return Counts(partition.produced, ready, stand.leased, stand.consumed, stand.dropped_rows, waiting)


def recount(ledger: Ledger, partition: Partition, task: str) -> Counts:
    """The same, row by row from the bitmaps and the leases themselves, with none of the counters."""
    stand, want = partition.task(task), ledger.last_wants.get(task)
    state = [int(value) for value in stand.state]
    rows = [row for row in range(partition.size) if partition.exists[row]]
    free = [row for row in rows if state[row] == FREE]
    full = {row for row in free if want and all(_has(partition, field, row) for field in want.fields)}
    unit = _unit(ledger, want) if want else 1
    ready = {row for row in full if all(row - row % unit + i in full for i in range(unit))}
    leases = [lease for lease in ledger.leases.live.values() if lease.task == task]
    held = [int(row) for lease in leases for where, part in lease.parts if where is partition for row in part]
    leased = sum(state[row] == LEASED for row in held) if len(set(held)) == len(held) else -1
    consumed, dropped = (sum(state[row] == value for row in rows) for value in (CONSUMED, DROPPED))
    return Counts(len(rows), len(ready), leased, consumed, dropped, len(free) - len(ready))


def _unit(ledger: Ledger, want: Want) -> int:
    return ledger.shape.num_n_samples if want.whole_groups else 1


def _has(partition: Partition, field: str, row: int) -> bool:
    return field in partition.fields and bool(partition.fields[field].at[row] & THERE)
