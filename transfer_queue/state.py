"""The state of a queue: ledger, catalog and sessions, changed by operations only.

Pure: it takes the time that it is told and does no I/O, so that the same operations give the same state again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transfer_queue import operations as op
from transfer_queue import wire
from transfer_queue.errors import FieldError
from transfer_queue.ledger import Ledger, QueueShape, Taken
from transfer_queue.sessions import Sessions
from transfer_queue.storage.catalog import Catalog
from transfer_queue.storage.chunk import Chunk, split

DONE = wire.Done()


class QueueState:
    """One queue. `carry_out` either does all of an operation or raises and changes nothing."""

    def __init__(self, shape: QueueShape) -> None:
        self.now = 0.0
        self.ledger = Ledger(shape, self.clock)
        self.catalog = Catalog()
        self.sessions = Sessions()
        self.samplers: dict[tuple[str | None, str | None], op.Register] = {}
        self.last_taken: Taken | None = None
        self._acts: dict[type, Callable[..., wire.ReplyBody | None]] = {
            op.Take: self._take,
            op.Choose: self._choose,
            op.Undo: self._undo,
            wire.Ack: self._ack,
            wire.Release: self._release,
            wire.Extend: self._extend,
            wire.Drop: self._drop,
            op.DropRows: self._drop_rows,
            wire.Clear: self._clear,
            wire.Rollback: self._rollback,
            op.Read: self._read,
            op.Expire: self._expire,
            op.AttachSegment: self._attach,
            op.GiveRanges: self._give,
            op.AbandonSegments: self._abandon,
            op.RemoveSegment: self._remove,
            op.GaveUp: self._gave_up,
            op.Lose: self._lose,
            op.Register: self._register,
        }

    def clock(self) -> float:
        """The time of the operation that is being carried out."""
        return self.now

    def adopt(self, ledger: Ledger, catalog: Catalog) -> None:
        """Go on with what a snapshot held."""
        self.ledger, self.catalog = ledger, catalog

    def carry_out(self, operation: op.Operation) -> wire.ReplyBody | None:
        """The answer to whoever asked; None if nothing could be done yet and nothing changed."""
        answer = self._acts[type(operation)](operation)
        self._free()
        return answer

    def put(self, put: wire.Put, chunks: Sequence[Chunk]) -> wire.Rows | None:
        """The rows of a put, new or not; None while there is no room for them."""
        if put.ack is not None:
            self.ledger.check_ack(put.ack.lease, put.ack.dp_rank, put.ack.version)
        self.catalog.check(chunks)  # others may have put the field while this one waited
        fields = [column.name for column in put.columns]
        if put.indexes:
            self.ledger.put_fields(put.indexes, fields, put.lease)
            indexes = put.indexes
        else:
            placed = self.ledger.put_rows(put.rows, fields, put.step, put.group_ids)
            if placed is None:
                return None
            indexes = placed
        self.catalog.write(indexes, chunks)
        answer = self.rows(indexes)
        if put.ack is not None:
            self.carry_out(put.ack)
        return answer

    def replay(self, record: op.Record, frames: list[bytes]) -> bool:
        """Do again what the journal says was done; False if that cannot be, for nothing changes."""
        self.now = record.time
        operation = record.operation
        if isinstance(operation, op.PutRows):
            answer: wire.ReplyBody | None = self.put(operation.put, split(operation.put, frames))
        else:
            answer = self.carry_out(operation)
        if isinstance(operation, op.Undo):
            self.sessions.forget(record.session)
        elif answer is not None:
            self.sessions.note(record.session, record.sequence, answer)
        return answer is not None or isinstance(operation, op.Expire)

    def rows(self, indexes: list[int], lease: int | None = None, rank: int | None = None) -> wire.Rows:
        """Rows as a client is told of them."""
        steps, groups = self.ledger.steps.places(indexes)
        return wire.Rows(indexes, steps, groups, lease, rank)

    def _free(self) -> None:
        for freed in self.ledger.effects:
            self.catalog.free(freed)
        self.ledger.effects.clear()

    def _take(self, operation: op.Take) -> wire.ReplyBody | None:
        taken = self.ledger.take(operation.want)
        return None if taken is None else self._taken(operation, taken)

    def _choose(self, operation: op.Choose) -> wire.ReplyBody | None:
        partition = self.ledger.steps.alive.get(operation.step)
        if partition is None:
            return None
        taken = self.ledger.take_chosen(operation.want, partition, operation.rows)
        return None if taken is None else self._taken(operation, taken)

    def _taken(self, operation: op.Take | op.Choose, taken: Taken) -> wire.Rows:
        dp = operation.want.dp
        self.last_taken = taken
        return self.rows(taken.indexes, taken.lease_id, dp.rank if dp else None)

    def _undo(self, operation: op.Undo) -> wire.ReplyBody:
        self.ledger.undo(operation.want, Taken(operation.indexes, operation.lease, voted=operation.voted))
        return DONE

    def _ack(self, operation: wire.Ack) -> wire.ReplyBody:
        self.ledger.ack(operation.lease, operation.dp_rank, operation.version)
        return DONE

    def _release(self, operation: wire.Release) -> wire.ReplyBody:
        self.ledger.release(operation.lease)
        return DONE

    def _extend(self, operation: wire.Extend) -> wire.ReplyBody:
        self.ledger.extend(operation.lease, operation.seconds)
        return DONE

    def _drop(self, operation: wire.Drop) -> wire.ReplyBody:
        self.ledger.drop(operation.lease, operation.reason, refill=operation.refill)
        return DONE

    def _drop_rows(self, operation: op.DropRows) -> wire.ReplyBody:
        self.ledger.drop_rows(operation.indexes, operation.reason)
        return DONE

    def _clear(self, operation: wire.Clear) -> wire.ReplyBody:
        return wire.Done(self.ledger.clear(operation.step, force=operation.force))

    def _rollback(self, operation: wire.Rollback) -> wire.ReplyBody:
        rolled = self.ledger.rollback(operation.version)
        return wire.Rolled(rolled.rows, rolled.gone_steps, rolled.gone_rows)

    def _read(self, operation: op.Read) -> wire.ReplyBody:
        self.ledger.read(operation.task, operation.indexes)
        return DONE

    def _expire(self, operation: op.Expire) -> wire.ReplyBody | None:
        return DONE if self.ledger.expire() else None

    def _attach(self, operation: op.AttachSegment) -> wire.ReplyBody:
        number = self.catalog.segments.attach(operation.path, operation.size, operation.owner, operation.client)
        return wire.Attached(number)

    def _give(self, operation: op.GiveRanges) -> wire.ReplyBody:
        self.catalog.segments.give(operation.ranges)
        return wire.Recycled(operation.ranges)

    def _abandon(self, operation: op.AbandonSegments) -> wire.ReplyBody:
        self.catalog.segments.abandon(operation.segments)
        return DONE

    def _remove(self, operation: op.RemoveSegment) -> wire.ReplyBody:
        self.catalog.segments.remove(operation.segment)
        return DONE

    def _gave_up(self, operation: op.GaveUp) -> wire.ReplyBody:
        return wire.Done(operation.done)

    def _lose(self, operation: op.Lose) -> wire.ReplyBody | None:
        unknown = [number for number in operation.segments if number not in self.catalog.segments.known]
        if unknown:
            raise FieldError(f"segments {unknown} are not attached to this queue")
        lost = self.catalog.lying_in(set(operation.segments))
        for field, indexes in lost.items():
            self.ledger.lose(indexes, [field])
            self.catalog.lose(field, indexes)
        self.catalog.segments.abandon(operation.segments)
        return DONE

    def _register(self, operation: op.Register) -> wire.ReplyBody:
        self.samplers[operation.task, operation.client] = operation
        return DONE
