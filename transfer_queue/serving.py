"""Who waits, and how they are served: everybody whose request could turn out differently is tried again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from transfer_queue import operations as op
from transfer_queue import wire
from transfer_queue.answers import Answers
from transfer_queue.custom import CustomSamplers
from transfer_queue.errors import BackPressureError, NotReadyError, TransferQueueError
from transfer_queue.ledger import Taken, Want
from transfer_queue.ledger.limits import check_possible
from transfer_queue.reading import Reading
from transfer_queue.recorder import Recorder
from transfer_queue.replies import Replies
from transfer_queue.room import Room, check_not_cleared
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.traffic import Traffic
from transfer_queue.waiting import Caller, Consumer, Deadlines, Line, Producer, Recycler, Waiter

Post = Callable[[Callable[[], None]], None]
"""Runs a function in the server's loop; may be called from any thread."""


class Serving:
    """The requests that cannot be served yet, each with its deadline."""

    def __init__(
        self, recorder: Recorder, registry: SamplerRegistry, room: Room, replies: Replies, reading: Reading,
        traffic: Traffic, post: Post, timeout_s: float,
    ) -> None:  # fmt: skip
        self.recorder, self.room, self.post = recorder, room, post
        self.line, self.deadlines = Line(), Deadlines()
        self._replies, self._reading = replies, reading
        self._ledger, self._catalog = recorder.state.ledger, recorder.state.catalog
        self._waiting: dict[int, Waiter] = {}
        self._clean_at = 64
        self.custom = CustomSamplers(self, timeout_s)
        self.answers = Answers(recorder, registry, self.line, room, self.custom, traffic)

    def waits_already(self, caller: Caller) -> bool:
        """Whether this very request waits since it came before; its answer goes to where it came from last."""
        waiter = self._waiting.get(caller.session)
        if waiter is None or waiter.over or waiter.caller.sequence != caller.sequence:
            return False
        waiter.caller = caller
        return True

    def _wait(self, waiter: Waiter) -> None:
        self.deadlines.add(waiter)
        waiter.asleep = True
        if waiter.caller.session:
            self._waiting[waiter.caller.session] = waiter
            if len(self._waiting) >= self._clean_at:
                self._waiting = {session: each for session, each in self._waiting.items() if not each.over}
                self._clean_at = 2 * len(self._waiting) + 64

    def add_consumer(self, consumer: Consumer) -> None:
        """Serve a `get_meta` now, or let it wait."""
        self.line.add(consumer)
        self._try_consumer(consumer, behind=False)
        if not consumer.over:
            self._wait(consumer)
        self.serve()

    def add_producer(self, producer: Producer) -> None:
        """Carry out a put of new rows now, or let it wait."""
        self.room.check(producer.size)
        if self.room.has_for(producer, self._ledger, self._catalog.stored_bytes) and self._try_producer(producer):
            self.serve()
        elif not producer.over:
            self.room.wait(producer, self._ledger)
            self._wait(producer)

    def add_recycler(self, waiter: Recycler) -> None:
        """Tell a producer which of its bytes are free, now or when some are."""
        if not self._try_recycler(waiter, at_least=0 if waiter.deadline == waiter.since else 1):
            self.room.recyclers.append(waiter)
            self._wait(waiter)

    def end_late(self, now: float) -> None:
        """End the waits whose deadline has passed."""
        self.custom.check()
        for waiter in self.deadlines.due(now):
            if not waiter.over:  # the end of one wait may have served another
                self._time_out(waiter, now)

    def serve(self) -> None:
        """Serve everybody whose request could turn out differently since it was tried last."""
        ledger = self._ledger
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
            over = [self._try_producer(each) for each in self.room.ready(ledger, self._catalog.stored_bytes)]
            if not any(over):
                break
        self.serve_recyclers()

    def serve_recyclers(self) -> None:
        """Tell producers which of their bytes are free again."""
        for waiter in self.room.recyclers[:]:
            if waiter.over or self._try_recycler(waiter, at_least=1):
                self.room.recyclers.remove(waiter)

    def _try_recycler(self, waiter: Recycler, at_least: int) -> bool:
        ranges = self._catalog.segments.reusable(waiter.segments)
        if len(ranges) < at_least:
            return False
        waiter.over = True
        self._replies.reply(waiter.caller, self.recorder.do(waiter.caller, op.GiveRanges(ranges)))
        return True

    def _try_producer(self, producer: Producer) -> bool:
        """Whether this put is over, served or failed."""
        try:
            check_not_cleared(producer, self._ledger)
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
            joins = want.dp is not None and self._ledger.reservations.find(want) is not None
            if not joins and (behind or self.line.ahead_of(consumer) is not None):
                check_possible(self._ledger.shape, self._ledger.steps, want)
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

        answer, frames = self._reading.beside(consumer, rows)
        self._replies.reply(consumer.caller, answer, frames, gone, waited=consumer.asleep)

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
            steps = [each.step for each in self._ledger.steps.in_order()] if want.step is None else [want.step]
            self._ledger.stirred.update((want.task, step) for step in steps)

    def forget(self, dead: Callable[[Waiter], bool]) -> None:
        """End the waits of callers that are gone."""
        found: list[Waiter] = [*self.line, *self.room.producers, *self.room.recyclers]
        for waiter in [each for each in found if dead(each)]:
            if isinstance(waiter, Consumer):
                self._leave_line(waiter)
            waiter.over = True
        self.serve()

    def _time_out(self, waiter: Waiter, now: float) -> None:
        waited = now - waiter.since
        if isinstance(waiter, Consumer):
            explanation = self.answers.explain(waiter)
            details = {"task": waiter.want.task, "needed": explanation.needed, "ready": explanation.ready}
            self.leave(waiter, NotReadyError(f"get_meta waited {waited:.1f} s: {explanation}", details))
            self.serve()
        elif isinstance(waiter, Producer):
            waiter.over = True
            text = self.room.why_full(waiter, waited, self._ledger, self._catalog.stored_bytes)
            self._replies.fail(waiter.caller, BackPressureError(text))
            self.serve()
        elif isinstance(waiter, Recycler):
            self._try_recycler(waiter, at_least=0)

    def read_values(self, field: str, indexes: list[int]) -> Sequence[Any]:
        """One field of some rows, for samplers."""
        return self._catalog.scalars(field, indexes)
