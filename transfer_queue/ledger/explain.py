"""Why a wait is not served: the text of `NotReadyError`, of `client.why` and of the metric, from one place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from transfer_queue.ledger.ledger import Ledger
from transfer_queue.ledger.partition import LOST, Partition
from transfer_queue.ledger.request import Want
from transfer_queue.ledger.view import FREE

NOT_PUT, FIELD, GROUP, LEASED_ROWS, DROPPED_ROWS = "not_put", "field_missing", "group_incomplete", "leased", "dropped"
CONSUMED_ROWS, NEVER_ASKED, EARLIER = "consumed", "never_asked", "earlier_request"
LOST_FIELD = "lost"


@dataclass(frozen=True, slots=True)
class Reason:
    """So many rows are missing for one reason; `detail` is the sentence for a person."""

    code: str
    rows: int
    detail: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a task stands: `needed` and `ready` rows of its request, and why others are not; `str` is the sentence."""

    task: str
    step: int | None
    fields: tuple[str, ...]
    needed: int
    ready: int
    reasons: tuple[Reason, ...]

    def __str__(self) -> str:
        where = "any step" if self.step is None else f"step {self.step}"
        head = f"task {self.task!r} needs {self.needed} rows of {where} with {list(self.fields)}: {self.ready} ready"
        return "; ".join([head, *(f"{reason.rows} {reason.detail}" for reason in self.reasons)])


def explain(ledger: Ledger, want: Want) -> Explanation:
    """Where this request stands now; every row that it cannot have is counted under exactly one reason."""
    unit = ledger.shape.num_n_samples if want.whole_groups else 1
    partitions = ledger.steps.in_order(want.step)
    ready = sum(partition.view(want.task, want.fields, unit).ready_rows for partition in partitions)
    reasons = _leases(ledger, want, partitions)
    for partition in partitions:
        reasons += _of_partition(partition, want, unit)
    reasons += _not_put(ledger, want, partitions)
    return Explanation(want.task, want.step, want.fields, want.needed, ready, tuple(merged(reasons)))


def merged(reasons: Iterable[Reason]) -> list[Reason]:
    """Reasons of the same words, added up over partitions."""
    rows: dict[tuple[str, str], int] = {}
    for reason in reasons:
        rows[reason.code, reason.detail] = rows.get((reason.code, reason.detail), 0) + reason.rows
    return [Reason(code, count, detail) for (code, detail), count in rows.items() if count]


def _of_partition(partition: Partition, want: Want, unit: int) -> list[Reason]:
    stand, found = partition.task(want.task), []
    left = (partition.exists != 0) & (stand.state == FREE)
    for field in want.fields:
        lacking = left & ~partition.has(field)
        lost = int(np.count_nonzero(lacking & partition.marked(field, LOST)))
        found.append(Reason(LOST_FIELD, lost, f"lost: field {field!r} was lost with its storage"))
        found.append(Reason(FIELD, int(np.count_nonzero(lacking)) - lost, f"without field {field!r}"))
        left = left & ~lacking
    if unit > 1:
        per_group = left.reshape(-1, unit).sum(axis=1)
        for size in range(1, unit):
            rows = int(np.count_nonzero(per_group == size)) * size
            found.append(Reason(GROUP, rows, f"in groups of which {size}/{unit} are ready"))
    found.append(Reason(CONSUMED_ROWS, stand.consumed, f"consumed by {want.task!r} before"))
    found += [Reason(DROPPED_ROWS, rows, f"dropped ({reason})") for reason, rows in stand.dropped.items()]
    return found


def _leases(ledger: Ledger, want: Want, partitions: list[Partition]) -> list[Reason]:
    found, now = [], ledger.clock()
    for lease in ledger.leases.of(partitions):
        if lease.task == want.task:
            rows = sum(len(rows) for partition, rows in lease.parts if want.step in (None, partition.step))
            detail = f"leased by {lease.client!r} for {now - lease.taken_at:.0f} s (lease {lease.id})"
            found.append(Reason(LEASED_ROWS, rows, detail))
    return found


def _not_put(ledger: Ledger, want: Want, partitions: list[Partition]) -> list[Reason]:
    missing = sum(partition.seats.rows_ever - partition.produced for partition in partitions)
    if not partitions:
        missing = ledger.shape.capacity
    where = "" if want.step is None else f" to step {want.step}"
    return [Reason(NOT_PUT, missing, f"not put{where} yet")]


def not_ready(ledger: Ledger, want: Want) -> dict[str, int]:
    """Rows that exist and wait, by reason: what the metric shows."""
    counts: dict[str, int] = {}
    unit = ledger.shape.num_n_samples if want.whole_groups else 1
    for partition in ledger.steps.in_order():
        for reason in _of_partition(partition, want, unit):
            if reason.code in (FIELD, GROUP, LOST_FIELD) and reason.rows:
                counts[reason.code] = counts.get(reason.code, 0) + reason.rows
    return counts
