"""What a queue tells of itself: the messages of `why`, `stats`, `survey` and `peek`."""

from __future__ import annotations

import msgspec

from transfer_queue.ledger.explain import Explanation
from transfer_queue.ledger.peek import RowState


class Explained(msgspec.Struct, tag="explained", array_like=True, frozen=True):
    explanation: Explanation


class TaskStats(msgspec.Struct, frozen=True):
    """Rows of the alive partitions as one task sees them.

    `is_ready`: its oldest waiting request, else its latest, could be served now; `needed` are the rows of that one.
    `lost` says why no request can be served at all until a person does something.
    """

    produced: int
    ready: int
    leased: int
    consumed: int
    dropped: dict[str, int]
    not_ready: dict[str, int]
    is_ready: bool
    waiting: int
    consumed_total: int
    needed: int = 0
    longest_wait_s: float = 0.0
    lost: str = ""


class Stats(msgspec.Struct, tag="queue_stats", array_like=True, frozen=True):
    """Counts of a queue; `partitions` are the steps alive, `stored_bytes` the bytes of all values.

    The tasks of `tasks=` come last, in their order. `requests` are counted by kind, `errors` by class; `idle_s` is how
    long ago a row was put, given or given back. What this queue does not have is None. `held_bytes` were freed and
    may not be written again yet, for `held_by` has read for `held_s`: mostly, it keeps a `zero_copy` view.
    """

    tasks: dict[str, TaskStats]
    partitions: list[int]
    leases: int
    waiting_producers: int
    stored_bytes: int
    rows_put_total: int
    partitions_limit: int = 0
    oldest_lease_s: float = 0.0
    longest_producer_wait_s: float = 0.0
    idle_s: float = 0.0
    requests: dict[str, int] = {}
    errors: dict[str, int] = {}
    capacity_bytes: int | None = None
    journal_bytes: int | None = None
    held_bytes: int = 0
    held_by: str = ""
    held_s: float = 0.0


class Surveyed(msgspec.Struct, tag="surveyed", array_like=True, frozen=True):
    stats: Stats
    explanations: list[Explanation]


class Glimpse(msgspec.Struct, array_like=True, frozen=True):
    """One value: dtype and shape, its size in bytes, and the first of those bytes."""

    dtype: str
    shape: tuple[int, ...]
    size: int
    head: bytes


class PeekedRow(msgspec.Struct, array_like=True, frozen=True):
    """One row, and what some of its fields begin with."""

    state: RowState
    values: dict[str, Glimpse]


class Peeked(msgspec.Struct, tag="peeked", array_like=True, frozen=True):
    """Some of the `total` rows that there are."""

    rows: list[PeekedRow]
    total: int
