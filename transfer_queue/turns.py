"""Whose turn it is: requests that wait are tried again when what they wait for changes, and end at their deadline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from transfer_queue import operations as op
from transfer_queue import wire
from transfer_queue.custom import CustomSamplers
from transfer_queue.errors import BackPressureError, NotReadyError, TransferQueueError
from transfer_queue.ledger import Taken, Want
from transfer_queue.ledger.explain import EARLIER, Explanation, Reason, explain
from transfer_queue.ledger.limits import check_possible
from transfer_queue.recorder import Recorder
from transfer_queue.replies import Replies
from transfer_queue.room import Room
from transfer_queue.waiting import Consumer, Deadlines, Line, Producer, Recycler, Waiter

Post = Callable[[Callable[[], None]], None]
"""Runs a function in the server's loop; may be called from any thread."""


class Turns:
    """The waits of one queue. `serve` after every change; whoever does not have to wait is served at once."""

    def __init__(self, recorder: Recorder, room: Room, replies: Replies, post: Post, sampler_timeout_s: float) -> None:
        self.recorder, self.room, self.line, self.post = recorder, room, Line(), post
        self.ledger, self.catalog = recorder.state.ledger, recorder.state.catalog
        self.custom = CustomSamplers(self, sampler_timeout_s)
        self._replies, self._deadlines = replies, Deadlines()

    # Who comes

    def produce(self, producer: Producer) -> None:
        """A put of new rows, served at once if there is room and nobody waits for it."""
        if self.room.has_for(producer, self.catalog.stored_bytes) and self._try_producer(producer):
            self.serve()
        elif not producer.over:
            self.room.wait(producer)
            self._deadlines.add(producer)

    def consume(self, consumer: Consumer) -> None:
        """A `get_meta`, served at once if its rows are there and nobody waits for them."""
        self.line.add(consumer)
        self._try_consumer(consumer, behind=False)
        if not consumer.over:
            self._deadlines.add(consumer)
        self.serve()

    def recycle(self, waiter: Recycler, *, patient: bool) -> None:
        """A producer that wants to know which of its bytes are free again; a `patient` one waits until some are."""
        if not self._try_recycler(waiter, at_least=int(patient)):
            self.room.recyclers.append(waiter)
            self._deadlines.add(waiter)

    # Time

    def next_deadline(self) -> float | None:
        """When `end_due` has something to do next, on the queue's clock, or None."""
        times = [self._deadlines.next(), self.custom.next_look()]
        return min((time for time in times if time is not None), default=None)

    def end_due(self, now: float) -> None:
        """End the waits whose deadline has passed, and those whose sampler has run past its own."""
        self.custom.check()
        for waiter in self._deadlines.due(now):
            if not waiter.over:  # the end of one wait may have served another
                self._time_out(waiter, now)

    # Serving

    def serve(self) -> None:
        """Serve everybody whose request could turn out differently since it was tried last."""
        ledger = self.ledger
        while True:
            while ledger.stirred:
                task, step = ledger.stirred.pop()
                behind = False
                for consumer in self.line.stirred(task, step):
                    if not consumer.over:
                        self._try_consumer(consumer, behind)
                        behind = behind or not consumer.over
            for consumer in list(self.line.custom.values()):
                if not consumer.over:
                    self._try_consumer(consumer, behind=False)
            tried = self.room.ready(ledger, self.catalog.stored_bytes)
            served = [self._try_producer(each) for each in tried]
            if not any(served):
                break
        self.serve_recyclers()

    def serve_recyclers(self) -> None:
        """Tell producers which of their bytes are free again."""
        for waiter in self.room.recyclers[:]:
            if waiter.over or self._try_recycler(waiter, at_least=1):
                self.room.recyclers.remove(waiter)

    def _try_recycler(self, waiter: Recycler, at_least: int) -> bool:
        ranges = self.catalog.segments.reusable(waiter.segments)
        if len(ranges) < at_least:
            return False
        waiter.over = True
        self._replies.reply(waiter.caller, self.recorder.do(waiter.caller, op.GiveRanges(ranges)))
        return True

    def _try_producer(self, producer: Producer) -> bool:
        """Whether this put is over, served or failed."""
        try:
            rows = self.recorder.put(producer.caller, producer.put, producer.chunks, producer.frames)
        except TransferQueueError as error:
            producer.over = True
            self._replies.fail(producer.caller, error)
            return True
        if rows is None:
            return False
        producer.over = True
        self._replies.reply(producer.caller, rows)
        return True

    def _try_consumer(self, consumer: Consumer, behind: bool) -> None:
        """Serve this request if it can be, or let it fail if it never can; `behind` another one it only joins."""
        if consumer.running:
            return
        want = consumer.want
        try:
            joins = want.dp is not None and self.ledger.reservations.find(want) is not None
            if not joins and (behind or self.line.ahead_of(consumer) is not None):
                check_possible(self.ledger.shape, self.ledger.steps, want)
                return
            if consumer.choice.custom is not None and not joins:
                self.custom.ask(consumer, consumer.choice.custom)
                return
            rows = self.recorder.do(consumer.caller, op.Take(want))
        except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
            self.leave(consumer, error)
            return
        if rows is not None:
            self.hand_over(consumer, cast(wire.Rows, rows))

    def hand_over(self, consumer: Consumer, rows: wire.Rows) -> None:
        """These rows are the consumer's; who waits behind it may be next."""
        taken = cast(Taken, self.recorder.state.last_taken)
        undo = op.Undo(consumer.want, taken.indexes, taken.lease_id, taken.voted)
        self._leave_line(consumer)

        def gone() -> None:
            self.recorder.undo(consumer.caller, undo)
            self.serve()

        self._replies.reply(consumer.caller, rows, gone=gone)

    def leave(self, consumer: Consumer, error: Exception) -> None:
        """The wait ends with this error."""
        self._leave_line(consumer)
        self._replies.fail(consumer.caller, error)

    def _leave_line(self, consumer: Consumer) -> None:
        self.line.remove(consumer)
        self._stir(consumer.want)

    def _stir(self, want: Want) -> None:
        """Let those who wait for the same rows be tried again."""
        if self.line.of_task(want.task):
            steps = [each.step for each in self.ledger.steps.in_order()] if want.step is None else [want.step]
            self.ledger.stirred.update((want.task, step) for step in steps)

    def forget(self, dead: Callable[[Waiter], bool]) -> None:
        """Let these waits be over, without an answer."""
        found: list[Waiter] = [*self.line, *self.room.producers, *self.room.recyclers]
        for waiter in [each for each in found if dead(each)]:
            if isinstance(waiter, Consumer):
                self._leave_line(waiter)
            waiter.over = True
        self.serve()

    def _time_out(self, waiter: Waiter, now: float) -> None:
        waited = now - waiter.since
        if isinstance(waiter, Consumer):
            explanation = self.explain(waiter)
            details = {"task": waiter.want.task, "needed": explanation.needed, "ready": explanation.ready}
            self.leave(waiter, NotReadyError(f"get_meta waited {waited:.1f} s: {explanation}", details))
            self.serve()
        elif isinstance(waiter, Producer):
            waiter.over = True
            text = self.room.why_full(waiter, waited, self.ledger, self.catalog.stored_bytes)
            self._replies.fail(waiter.caller, BackPressureError(text))
            self.serve()
        elif isinstance(waiter, Recycler):
            self._try_recycler(waiter, at_least=0)

    def read_values(self, field: str, indexes: list[int]) -> Sequence[Any]:
        """One field of some rows, for samplers."""
        return self.catalog.scalars(field, indexes)

    def explain(self, consumer: Consumer) -> Explanation:
        """Where a request that waits stands now."""
        self.recorder.now()
        explanation = self.custom.explained(consumer, explain(self.ledger, consumer.want))
        ahead = self.line.ahead_of(consumer)
        if ahead is None:
            return explanation
        text = f"go first to {ahead.caller.client!r}, whose earlier request waits"
        reason = Reason(EARLIER, ahead.want.needed, text, holder=ahead.caller.client)
        return replace(explanation, reasons=(*explanation.reasons, reason))
