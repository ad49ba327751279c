"""Values on their way to consumers: what lies in the controller, and where in segments the rest does."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec

from transfer_queue import operations as op
from transfer_queue import wire
from transfer_queue.errors import FieldError, TransferQueueError
from transfer_queue.recorder import Recorder
from transfer_queue.storage.catalog import Found, check_answer, size_of
from transfer_queue.transport.framing import LONGEST_MESSAGE
from transfer_queue.waiting import Caller, Consumer

Answer = tuple[wire.Values, Sequence[wire.Frame]]


class Reading:
    """Finds the values of rows and puts them into replies."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._ledger, self._catalog = recorder.state.ledger, recorder.state.catalog

    def find(self, indexes: list[int], fields: Sequence[str], *, far: bool = False) -> list[Found]:
        """Each field of these rows; `FieldLostError` or `FieldError` where it is not there, or is too much at once."""
        if not fields:
            raise FieldError("get_data names no fields")
        self._ledger.steps.locate(indexes)
        found: list[Found] = []
        left = LONGEST_MESSAGE
        for field in fields:
            try:
                found.append(self._catalog.read(field, indexes, left))
            except FieldError:
                self._ledger.check_not_lost(indexes, field)
                raise
            here, places = found[-1][1:]
            left -= size_of(places) if far and places is not None else len(here)
        check_answer(0, left)
        return found

    def answer(self, caller: Caller, found: Sequence[Found]) -> Answer:
        """The values, for a caller that reads segments by itself; until it has told, nobody writes there."""
        columns = [each[0] for each in found]
        placed = [i for i, each in enumerate(found) if each[2] is not None]
        if not placed:
            return wire.Values(columns), wire.joined([each[1] for each in found])
        read = self.begin(caller)
        parts = [each[1] if each[2] is None else each[2] for each in found]
        return wire.Values(columns, placed, read), [*parts, *(found[i][1] for i in placed)]

    def begin(self, caller: Caller) -> int:
        """A read of segments begins, which lasts until it is ended or the caller's link is gone."""
        now = self._recorder.now()
        return self._catalog.segments.begin_read(caller.link, secrets.randbits(31), caller.client, now)

    def note(self, task: str | None, indexes: list[int]) -> bool:
        """The task has been given the values: what it took without a lease is kept for it no longer."""
        if task is None or not self._ledger.holds.open:
            return False
        self._recorder.do(None, op.Read(task, indexes))
        return True

    def beside(self, consumer: Consumer, rows: wire.Rows) -> tuple[wire.Rows, Sequence[wire.Frame]]:
        """The rows that a consumer was given, with their values if it asked for them and they fit into one answer.

        What stands in the way is said by the `get_data` that then follows.
        """
        if not consumer.values or rows.lease is None:  # rows without a lease may be undone until their values are read
            return rows, ()
        try:
            found = self.find(rows.indexes, consumer.want.fields)
        except TransferQueueError:
            return rows, ()
        values, frames = self.answer(consumer.caller, found)
        return msgspec.structs.replace(rows, values=values), frames
