"""A ledger as plain values: what a snapshot holds and a restarted controller goes on with. No pickle, no clock.

Bitmaps and row numbers travel as bytes (little-endian), moments as seconds from the moment of the export, and what can
be counted again is counted again.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike

from transfer_queue.errors import ConfigurationError
from transfer_queue.ledger.book import Book
from transfer_queue.ledger.cells import Cells
from transfer_queue.ledger.hold import Hold
from transfer_queue.ledger.lease import Ended, Lease, Part
from transfer_queue.ledger.partition import Partition
from transfer_queue.ledger.request import Want
from transfer_queue.ledger.reservation import Reservation
from transfer_queue.ledger.seats import Label
from transfer_queue.ledger.shape import QueueShape
from transfer_queue.ledger.stand import Stand
from transfer_queue.ledger.view import Rows

FORMAT = 2


class StandState(msgspec.Struct, frozen=True):
    """Where one task stands with one partition: a state per row.

    `versions` and `holds` are a number per row, or empty where no row has one.
    """

    states: bytes
    dropped: dict[str, int]
    fields_read: list[str]
    versions: bytes
    holds: bytes


class PartitionState(msgspec.Struct, frozen=True):
    """One partition: `rows` and `fields` are a byte per row, `filled` a number per group.

    `dropped` is a number per row, or empty where no row has one.
    """

    step: int
    serial: int
    opened: int
    version: int
    filled: bytes
    names: dict[int, Label]
    rows: bytes
    fields: dict[str, bytes]
    tasks: dict[str, StandState]
    producers: dict[str, str]
    reasons: list[str]
    dropped: bytes
    past_version: int


class LeaseState(msgspec.Struct, frozen=True):
    """A lease: `taken_ago` and `left` are seconds, `parts` and `written` name partitions by serial."""

    id: int
    task: str
    client: str
    fields: tuple[str, ...]
    parts: list[tuple[int, bytes]]
    taken_ago: float
    left: float
    ranks: int
    votes: dict[int, int | None]
    written: list[tuple[int, tuple[str, ...], bytes]]


class HoldState(msgspec.Struct, frozen=True):
    """Rows kept for a task that has not read them, for `left` seconds more."""

    id: int
    task: str
    left: float
    parts: list[tuple[int, bytes]]
    unread: int


class ReservationState(msgspec.Struct, frozen=True):
    """A DP group and its lease, which is over if the group is complete."""

    want: Want
    rows: bytes
    complete: bool
    lease: LeaseState


class LedgerState(msgspec.Struct, frozen=True):
    """Everything that a ledger knows; encodes with msgspec, and decodes with this type."""

    format: int
    shape: QueueShape
    partitions: list[PartitionState]
    cleared: dict[int, int]
    next_serial: int
    next_step: int
    room_version: int
    leases: list[LeaseState]
    next_lease: int
    ended: list[Ended]
    holds: list[HoldState]
    next_hold: int
    reservations: list[ReservationState]
    votes: list[tuple[int | None, str, int, int]]
    last_wants: dict[str, Want]
    rows_put: int
    rows_consumed: dict[str, int]


def export(book: Book) -> LedgerState:
    """The ledger of this moment."""
    now, steps, reservations = book.clock(), book.steps, book.reservations
    return LedgerState(
        FORMAT,
        book.shape,
        [_partition(partition) for partition in steps.in_order()],
        dict(steps.cleared),
        steps.next_serial,
        steps.next_step,
        steps.version,
        [_lease(lease, now) for lease in book.leases.live.values()],
        book.leases.next_id,
        list(book.leases.over.values()),
        [
            HoldState(
                key,
                hold.task,
                hold.deadline - now,
                [(serial, _packed(rows)) for serial, rows in hold.parts],
                hold.unread,
            )
            for key, hold in book.holds.open.items()
        ],
        book.holds.next_id,
        [
            ReservationState(each.want, _packed(each.rows, "<i8"), each.complete, _lease(each.lease, now))
            for each in reservations.by_key.values()
        ],
        [(step, task, rank, n) for step, votes in reservations.votes.items() for (task, rank), n in votes.items()],
        dict(book.last_wants),
        book.rows_put,
        dict(book.rows_consumed),
    )


def _packed(array: np.ndarray[Any, Any], dtype: DTypeLike = "<u4") -> bytes:
    return array.astype(dtype).tobytes()


def _packed_cells(cells: Cells | None, used: int, dtype: DTypeLike) -> bytes:
    return b"" if cells is None else _packed(cells.array[:used], dtype)


def _partition(partition: Partition) -> PartitionState:
    seats = partition.seats
    used = seats.opened * seats.size
    return PartitionState(
        partition.step,
        partition.serial,
        seats.opened,
        partition.version,
        _packed(seats.filled.array[: seats.opened], "<i4"),
        dict(seats.names),
        partition.exists[:used].tobytes(),
        {field: cells.array[:used].tobytes() for field, cells in partition.fields.items()},
        {name: _stand(stand, used) for name, stand in partition.tasks.items()},
        dict(partition.producers),
        list(partition.reasons),
        _packed_cells(partition.dropped, used, "<i4"),
        partition.past_version,
    )


def _stand(stand: Stand, used: int) -> StandState:
    versions = _packed_cells(stand.versions, used, "<i4")
    holds = _packed_cells(stand.holds, used, "<i8")
    return StandState(stand.state[:used].tobytes(), dict(stand.dropped), sorted(stand.fields_read), versions, holds)


def _lease(lease: Lease, now: float) -> LeaseState:
    return LeaseState(
        lease.id,
        lease.task,
        lease.client,
        lease.fields,
        [(partition.serial, _packed(rows)) for partition, rows in lease.parts],
        now - lease.taken_at,
        lease.deadline - now,
        lease.ranks,
        dict(lease.votes),
        [(partition.serial, fields, _packed(rows)) for partition, fields, rows in lease.written],
    )


def restore_into(book: Book, state: LedgerState) -> None:
    """Bring a new ledger to that state."""
    if state.format != FORMAT:
        raise ConfigurationError(f"this ledger was saved in format {state.format}, but this version reads {FORMAT}")
    now, steps, leases, holds = book.clock(), book.steps, book.leases, book.holds
    for each in state.partitions:
        _restore_partition(steps.open_as(each.step, each.serial), each)
    steps.cleared.update(state.cleared)
    steps.next_serial, steps.next_step, steps.version = state.next_serial, state.next_step, state.room_version
    for lease in state.leases:
        leases.reopen(_restored_lease(book, lease, now))
    leases.next_id = state.next_lease
    leases.over.update({ended.id: ended for ended in state.ended})
    for hold in state.holds:
        parts = [(serial, _unpacked(rows)) for serial, rows in hold.parts]
        holds.open[hold.id] = Hold(hold.task, now + hold.left, parts, hold.unread)
    holds.next_id = state.next_hold
    for reservation in state.reservations:
        live = leases.live.get(reservation.lease.id) or _restored_lease(book, reservation.lease, now)
        rows = _unpacked(reservation.rows, "<i8")
        book.reservations.add(Reservation(reservation.want, rows, live, reservation.complete))
    for step, task, rank, votes in state.votes:
        book.reservations.count(step, task, rank, votes)
    book.last_wants.update(state.last_wants)
    book.rows_put = state.rows_put
    book.rows_consumed.update(state.rows_consumed)


def _unpacked(packed: bytes, dtype: DTypeLike = "<u4") -> Rows:
    return np.frombuffer(packed, dtype=dtype).astype(np.intp)


def _fill(cells: Cells, packed: bytes, dtype: DTypeLike = np.uint8) -> Cells:
    values = np.frombuffer(packed, dtype=dtype)
    cells.array[: len(values)] = values
    return cells


def _restore_partition(partition: Partition, state: PartitionState) -> None:
    used = len(state.rows)
    if used > partition.size:
        partition.grow(used)
        partition.seats.filled.grow(partition.size // partition.group_size)
    _fill(partition.seats.filled, state.filled, "<i4")
    partition.seats.recall(state.opened, dict(state.names))
    _fill(partition.rows, state.rows)
    partition.produced = int(np.count_nonzero(partition.exists))
    for field, packed in state.fields.items():
        partition.fields[field] = _fill(Cells(partition.size), packed)
    partition.dropped = _restored_cells(partition, state.dropped, np.int32, "<i4")
    partition.dropped_rows = 0 if partition.dropped is None else int(np.count_nonzero(partition.dropped.array))
    partition.reasons, partition.producers = list(state.reasons), dict(state.producers)
    partition.past_version, partition.version = state.past_version, state.version
    for name, each in state.tasks.items():
        stand = partition.tasks[name] = Stand(name, partition)
        _fill(stand.states, each.states)
        stand.dropped.update(each.dropped)
        stand.fields_read.update(each.fields_read)
        stand.versions = _restored_cells(partition, each.versions, np.int32, "<i4")
        stand.holds = _restored_cells(partition, each.holds, np.int64, "<i8")
        partition.held += 0 if stand.holds is None else int(np.count_nonzero(stand.holds.array))
        stand.recount()


def _restored_cells(partition: Partition, packed: bytes, dtype: DTypeLike, saved: DTypeLike) -> Cells | None:
    return _fill(Cells(partition.size, dtype), packed, saved) if packed else None


def _restored_lease(book: Book, state: LeaseState, now: float) -> Lease:
    where = book.steps.by_serial
    parts: list[Part] = [(where[serial], _unpacked(rows)) for serial, rows in state.parts]
    return Lease(
        state.id,
        state.task,
        state.client,
        state.fields,
        parts,
        now - state.taken_ago,
        now + state.left,
        state.ranks,
        dict(state.votes),
        [(where[serial], fields, _unpacked(rows)) for serial, fields, rows in state.written],
    )
