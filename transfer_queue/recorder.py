"""Operations as the service has them: carried out, written down, and remembered for requests that come twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from transfer_queue import operations as op
from transfer_queue import wire
from transfer_queue.state import QueueState
from transfer_queue.storage.chunk import Chunk
from transfer_queue.waiting import Caller

if TYPE_CHECKING:
    from transfer_queue.journal import Journal


class Recorder:
    """Gives every operation its time, carries it out, and notes what changed; `clock` is the server's."""

    def __init__(self, state: QueueState, clock: Callable[[], float], journal: Journal | None = None) -> None:
        self.state, self.journal = state, journal
        self._clock = clock
        self.behind = clock() - state.now
        """The server's clock less the queue's, which stands still while no controller runs."""

    def now(self) -> float:
        """The queue's time."""
        self.state.now = self._clock() - self.behind
        return self.state.now

    def put(
        self, caller: Caller, put: wire.Put, chunks: Sequence[Chunk], frames: Sequence[wire.Frame]
    ) -> wire.Rows | None:
        """The rows of a put; None while there is no room for them."""
        self.now()
        rows = self.state.put(put, chunks)
        if rows is not None:
            self._note(caller, op.PutRows(put), rows, frames)
        return rows

    def do(self, caller: Caller | None, operation: op.Operation) -> wire.ReplyBody | None:
        """The answer to an operation; None if nothing changed."""
        self.now()
        answer = self.state.carry_out(operation)
        if answer is not None:
            self._note(caller, operation, answer, ())
        return answer

    def undo(self, caller: Caller, operation: op.Undo) -> None:
        """Take back what a caller that is gone was given; should it come again, its request is a new one."""
        self.now()
        self.state.carry_out(operation)
        self.state.sessions.forget(caller.session)
        self._journal(caller, operation, ())

    def _note(
        self, caller: Caller | None, operation: op.Operation, answer: wire.ReplyBody, frames: Sequence[wire.Frame]
    ) -> None:
        if caller is not None:
            self.state.sessions.note(caller.session, caller.sequence, answer)
        self._journal(caller, operation, frames)

    def _journal(self, caller: Caller | None, operation: op.Operation, frames: Sequence[wire.Frame]) -> None:
        if self.journal is not None:
            session, sequence = (caller.session, caller.sequence) if caller is not None else (0, 0)
            record = op.Record(self.state.now, session, sequence, operation)
            self.journal.append(*op.to_journal(record, frames))
