"""Why a wait is not served: the text of `NotReadyError`, of `client.why` and of the metric, from one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transfer_queue.ledger.ledger import Ledger
from transfer_queue.ledger.partition import LOST, Partition
from transfer_queue.ledger.request import Want
from transfer_queue.ledger.view import CONSUMED, DROPPED, FREE

NOT_PUT, FIELD, GROUP, LEASED_ROWS, DROPPED_ROWS = "not_put", "field_missing", "group_incomplete", "leased", "dropped"
CONSUMED_ROWS, NEVER_ASKED, EARLIER = "consumed", "never_asked", "earlier_request"
LOST_SAMPLER, LOST_FIELD = "sampler_lost", "lost"
WITHHELD, STALE, NO_VERSION, NO_LENGTH = "withheld", "stale", "no_version", "no_length"

CODES = (
    NOT_PUT, FIELD, GROUP, LEASED_ROWS, DROPPED_ROWS, CONSUMED_ROWS, NEVER_ASKED, EARLIER, LOST_SAMPLER, LOST_FIELD,
    WITHHELD, STALE, NO_VERSION, NO_LENGTH,
)  # fmt: skip
"""Every `Reason.code` but those of custom samplers: a metric labelled with them has no more series than these."""

EXAMPLES = 5
"""Rows and groups that a reason names."""
NAMED = 8
"""Leases, and reasons of drops, that are told one by one."""
BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Reason:
    """So many rows are missing for one reason; `detail` is the sentence for a person.

    `indexes` are the first few of those rows, `groups` their groups where groups are what matters, `holder` the client
    that has the rows or comes first. Rows that do not exist yet have no index.
    """

    code: str
    rows: int
    detail: str
    indexes: tuple[int, ...] = ()
    groups: tuple[str | int, ...] = ()
    holder: str = ""

    @property
    def which(self) -> str:
        """The examples in words, such as "rows 4, 5, 6, … of group 'a'"; empty where there are none."""
        words = _listed("row", self.indexes, self.rows > len(self.indexes))
        if self.groups:
            words += " of " + _listed("group", self.groups, len(self.indexes) < self.rows)
        return words


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a task stands: `needed` and `ready` rows of its request, and why others are not; `str` is the sentence."""

    task: str
    step: int | None
    fields: tuple[str, ...]
    needed: int
    ready: int
    reasons: tuple[Reason, ...]

    @property
    def is_ready(self) -> bool:
        """Whether the request could be served now."""
        return 0 < self.needed <= self.ready and not any(reason.code == LOST_SAMPLER for reason in self.reasons)

    @property
    def head(self) -> str:
        """What is needed and what is there, without the reasons."""
        where = "any step" if self.step is None else f"step {self.step}"
        return f"task {self.task!r} needs {self.needed} rows of {where} with {list(self.fields)}: {self.ready} ready"

    def __str__(self) -> str:
        return "; ".join([self.head, *(f"{reason.rows} {reason.detail}" for reason in self.reasons)])


def explain(ledger: Ledger, want: Want) -> Explanation:
    """Where this request stands now; every row that it cannot have is counted under exactly one reason."""
    unit = ledger.shape.num_n_samples if want.whole_groups else 1
    partitions = ledger.steps.in_order(want.step)
    reasons = _leases(ledger, want, partitions)
    for partition in partitions:
        reasons += _of_partition(partition, want, unit)
    reasons += _not_put(ledger, want, partitions)
    return Explanation(want.task, want.step, want.fields, want.needed, ready_rows(ledger, want), tuple(merged(reasons)))


def ready_rows(ledger: Ledger, want: Want) -> int:
    """Rows that this request could have now; from counters, whatever the number of rows."""
    unit = ledger.shape.num_n_samples if want.whole_groups else 1
    return sum(p.view(want.task, want.fields, unit).ready_rows for p in ledger.steps.in_order(want.step))


def merged(reasons: Iterable[Reason]) -> list[Reason]:
    """Those of one code and one sentence as one: rows added up over partitions, the first examples kept."""
    found: dict[tuple[str, str], Reason] = {}
    for new in reasons:
        old = found.get((new.code, new.detail))
        if old is not None:
            indexes, groups = old.indexes + new.indexes, dict.fromkeys(old.groups + new.groups)
            new = Reason(
                new.code, old.rows + new.rows, new.detail, indexes[:EXAMPLES], tuple(groups)[:EXAMPLES], new.holder
            )
        found[new.code, new.detail] = new
    return [reason for reason in found.values() if reason.rows]


def _of_partition(partition: Partition, want: Want, unit: int) -> list[Reason]:
    stand, found = partition.task(want.task), []
    left = (partition.exists != 0) & (stand.state == FREE)
    for field in want.fields:
        lacking = left & ~partition.has(field)
        lost = lacking & partition.marked(field, LOST)
        found.append(_reason(LOST_FIELD, partition, lost, f"lost: field {field!r} was lost with its storage"))
        found.append(_reason(FIELD, partition, lacking & ~lost, f"without field {field!r}"))
        left = left & ~lacking
        if not left.any():
            break
    if unit > 1:
        found += _broken_groups(partition, left, unit)
    consumed = _some(partition, stand.state == CONSUMED) if stand.consumed else ()
    found.append(Reason(CONSUMED_ROWS, stand.consumed, f"consumed by {want.task!r} before", consumed))
    found += _dropped(partition, stand.dropped, stand.state == DROPPED)
    return found


def _reason(code: str, partition: Partition, mask: NDArray[np.bool_], detail: str) -> Reason:
    rows = int(np.count_nonzero(mask))
    return Reason(code, rows, detail, _some(partition, mask) if rows else ())


def _some(partition: Partition, mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Global indexes of the first rows of this mask, found block by block: what lies behind them costs nothing."""
    found: list[int] = []
    for start in range(0, len(mask), BLOCK):
        rows = np.flatnonzero(mask[start : start + BLOCK])[: EXAMPLES - len(found)]
        found += (rows + (start + partition.base)).tolist()
        if len(found) == EXAMPLES:
            break
    return tuple(found)


def _broken_groups(partition: Partition, left: NDArray[np.bool_], unit: int) -> list[Reason]:
    """The rows that have all fields, but not all rows of their group have them, by how many of it do."""
    found, per_group = [], left.reshape(-1, unit).sum(axis=1)
    for size in range(1, unit):
        broken = np.flatnonzero(per_group == size)
        rows = np.flatnonzero(left.reshape(-1, unit)[broken[:EXAMPLES]]) if len(broken) else broken
        there = (broken[rows // unit] * unit + rows % unit)[:EXAMPLES]
        groups = tuple(partition.seats.name(int(group) * unit) for group in broken[:EXAMPLES])
        indexes = tuple((there + partition.base).tolist())
        detail = f"in groups of which {size}/{unit} are ready"
        found.append(Reason(GROUP, len(broken) * size, detail, indexes, groups))
    return found


def _dropped(partition: Partition, counts: Mapping[str, int], mask: NDArray[np.bool_]) -> list[Reason]:
    found: list[Reason] = []
    for reason, rows in counts.items():
        some = _some(partition, mask & partition.dropped_for(reason)) if rows and len(found) < NAMED else ()
        found.append(Reason(DROPPED_ROWS, rows, f"dropped ({reason})", some))
    return _shortened(found, "dropped for other reasons")


def _leases(ledger: Ledger, want: Want, partitions: list[Partition]) -> list[Reason]:
    """The leases of this task, oldest first."""
    found, now = [], ledger.clock()
    for lease in ledger.leases.of(partitions):
        if lease.task == want.task:
            parts = [(partition, rows) for partition, rows in lease.parts if want.step in (None, partition.step)]
            detail = f"leased by {lease.client!r} for {now - lease.taken_at:.0f} s (lease {lease.id})"
            some = tuple(int(row) + partition.base for partition, rows in parts for row in rows[:EXAMPLES])
            rows = sum(len(rows) for _, rows in parts)
            found.append(Reason(LEASED_ROWS, rows, detail, some[:EXAMPLES], holder=lease.client))
    return _shortened(found, "in later leases")


def _shortened(reasons: list[Reason], detail: str) -> list[Reason]:
    """The first few reasons, and the others as one: no answer grows with the number of leases."""
    rest = reasons[NAMED:]
    if len(rest) < 2:
        return reasons
    some = tuple(index for reason in rest[:EXAMPLES] for index in reason.indexes)[:EXAMPLES]
    return [*reasons[:NAMED], Reason(rest[0].code, sum(reason.rows for reason in rest), detail, some)]


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


def _listed(noun: str, names: tuple[str | int, ...], more: bool) -> str:
    if not names:
        return ""
    words = ", ".join(repr(name) if isinstance(name, str) else str(name) for name in names)
    return f"{noun}{'s' if len(names) > 1 or more else ''} {words}{', …' if more else ''}"
