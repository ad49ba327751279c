"""What can change a queue: each operation is plain data, carried out the same way when asked for and when replayed.

An operation that changed something is one record of the journal. What is not here (reading values, explaining,
counting) changes nothing that has to survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from transfer_queue import wire
from transfer_queue.errors import JournalError
from transfer_queue.ledger import QueueShape, Want
from transfer_queue.samplers.travel import SamplerSpec
from transfer_queue.storage.segments import Range


class Begin(msgspec.Struct, tag="begin", array_like=True, frozen=True):
    """The first record of a journal: the sizes of its queue."""

    shape: QueueShape


class Restored(msgspec.Struct, tag="restored", array_like=True, frozen=True):
    """The queue began as a checkpoint holds it, of which piece `number` (from 0) of `pieces` follows the record."""

    number: int = 0
    pieces: int = 1


class PutRows(msgspec.Struct, tag="put", array_like=True, frozen=True):
    """New rows, or fields of rows that exist; the values that travelled inside the message follow the record."""

    put: wire.Put


class Take(msgspec.Struct, tag="take", array_like=True, frozen=True):
    """A `get_meta` that was served by a built-in sampler."""

    want: Want


class Choose(msgspec.Struct, tag="choose", array_like=True, frozen=True):
    """A `get_meta` that was served with what a custom sampler chose of one step."""

    want: Want
    step: int
    rows: list[int]


class Undo(msgspec.Struct, tag="undo", array_like=True, frozen=True):
    """The consumer was gone before it heard of its rows."""

    want: Want
    indexes: list[int]
    lease: int | None
    voted: bool


class DropRows(msgspec.Struct, tag="drop_rows", array_like=True, frozen=True):
    """Rows that a sampler refused."""

    indexes: list[int]
    reason: str


class Read(msgspec.Struct, tag="read", array_like=True, frozen=True):
    """The values of rows that a task had taken without a lease were fetched for it."""

    task: str
    indexes: list[int]


class Expire(msgspec.Struct, tag="expire", array_like=True, frozen=True):
    """Leases whose deadline had passed ended."""


class AttachSegment(msgspec.Struct, tag="attach", array_like=True, frozen=True):
    path: str
    size: int
    owner: int
    client: str = ""


class GiveRanges(msgspec.Struct, tag="give", array_like=True, frozen=True):
    """Free ranges were handed back to their owner."""

    ranges: list[Range]


class AbandonSegments(msgspec.Struct, tag="abandon", array_like=True, frozen=True):
    """Their owner writes no more into these."""

    segments: list[int]


class RemoveSegment(msgspec.Struct, tag="remove", array_like=True, frozen=True):
    """The file of a segment was removed."""

    segment: int


class GaveUp(msgspec.Struct, tag="gave_up", array_like=True, frozen=True):
    """A caller asked whether an earlier request of its session was carried out; from now on it will not be."""

    done: bool


class Lose(msgspec.Struct, tag="lose", array_like=True, frozen=True):
    """The storage of these segments died."""

    segments: list[int]


class Register(msgspec.Struct, tag="register", array_like=True, frozen=True):
    """A sampler was registered; `spec` is None where it cannot be made again from import path and arguments."""

    task: str | None
    client: str | None
    spec: SamplerSpec | None
    name: str


Operation = (
    Begin | Restored | PutRows | Take | Choose | Undo | wire.Ack | wire.Release | wire.Extend | wire.Drop | DropRows
    | wire.Clear | wire.Rollback | Read | Expire | AttachSegment | GiveRanges | AbandonSegments | RemoveSegment | GaveUp
    | Lose | Register
)  # fmt: skip


class Record(msgspec.Struct, array_like=True, frozen=True):
    """One operation in the journal: when it was carried out (seconds of the queue's clock), and for which request."""

    time: float
    session: int
    sequence: int
    operation: Operation


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


def to_journal(record: Record, frames: Sequence[wire.Frame]) -> list[wire.Frame]:
    """The parts of one journal record."""
    header = _encode(record)
    return [len(header).to_bytes(4, "little"), header, *frames]


def from_journal(data: Any) -> tuple[Record, list[bytes]]:
    """The record, and its values as one frame; `JournalError` if it is none of this version's."""
    view = memoryview(data)
    end = 4 + int.from_bytes(view[:4], "little")
    try:
        record = _decode(view[4:end])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JournalError(f"a journal record of {len(view)} bytes is none of this version: {error}") from error
    return record, [bytes(view[end:])] if len(view) > end else []
