"""How a queue comes back: the newest snapshot, and every operation that the journal holds since."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

from transfer_queue import operations as op
from transfer_queue import wire
from transfer_queue.errors import JournalError, TransferQueueError
from transfer_queue.image import encoded, restored
from transfer_queue.ledger import QueueShape
from transfer_queue.state import QueueState


def identity_of(shape: QueueShape) -> bytes:
    """What a journal must have been written for: a queue of other sizes cannot go on with it."""
    return hashlib.sha256(msgspec.json.encode(shape)).digest()


def replayed(snapshot: bytes | memoryview | None, records: Iterable[bytes]) -> QueueState | None:
    """The state after the last record; None where there is neither snapshot nor record."""
    state = restored(snapshot) if snapshot is not None else None
    pieces: list[bytes] = []
    for number, data in enumerate(records, 1):
        record, frames = op.from_journal(data)
        if isinstance(record.operation, op.Begin):
            state = QueueState(record.operation.shape)
        elif isinstance(record.operation, op.Restored):
            pieces = [*pieces[: record.operation.number], *frames]
            if len(pieces) == record.operation.pieces:
                state = begun_anew(b"".join(pieces))
                pieces.clear()
        elif state is None:
            raise JournalError("the journal does not begin with the sizes of its queue: its first segment is missing")
        else:
            _replay(state, record, frames, number)
    return state


def _replay(state: QueueState, record: op.Record, frames: list[bytes], number: int) -> None:
    """Do again what was done; what cannot have been done is never passed over: rows would be given out twice."""
    why = "nothing changes"
    try:
        done = state.replay(record, frames)
    except TransferQueueError as error:
        done, why = False, str(error)
    if not done:
        what = type(record.operation).__name__
        raise JournalError(
            f"record {number} of the journal, {what} of request {record.session}/{record.sequence}, cannot be carried "
            f"out again ({why}): it was written by another version, or this is a defect; begin with a checkpoint"
        )


def begun_anew(payload: bytes) -> QueueState:
    """The queue of a checkpoint, for another life: whoever held rows then is gone, so they are free again."""
    state = restored(payload)
    state.sessions.answers.clear()
    for lease in list(state.ledger.leases.live):
        state.carry_out(wire.Release(lease))
    return state


def fold(snapshot: bytes | memoryview | None, records: Iterator[bytes]) -> Iterable[bytes]:
    """The snapshot that stands for an older one and the records since; run by the journal's compaction process."""
    state = replayed(snapshot, records)
    if state is not None:
        yield encoded(state)
