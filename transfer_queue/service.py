"""What each request does: operations change the state, who cannot be served yet waits, and replies leave together."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transfer_queue import operations as op
from transfer_queue import wire
from transfer_queue.answers import Answers
from transfer_queue.checkpoint import LOOK_S as CHECKPOINT_S
from transfer_queue.checkpoint import Checkpoints
from transfer_queue.custom import CustomSamplers
from transfer_queue.errors import (
    BackPressureError,
    FieldError,
    JournalError,
    NotReadyError,
    ProtocolError,
    TransferQueueError,
)
from transfer_queue.journal import Compactor
from transfer_queue.journal.format import LARGEST
from transfer_queue.ledger import DPPlace, Taken, Want
from transfer_queue.ledger.limits import MOST_FIELDS, MOST_TASKS, check_fits, check_name, check_possible
from transfer_queue.ledger.request import check_seconds
from transfer_queue.readers import Readers
from transfer_queue.recorder import Recorder
from transfer_queue.room import Room
from transfer_queue.samplers.base import BaseSampler
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.samplers.travel import SamplerSpec, build
from transfer_queue.segment_actors import SegmentActors
from transfer_queue.segment_files import SegmentFiles
from transfer_queue.segment_places import SegmentPlaces
from transfer_queue.storage.chunk import split
from transfer_queue.traffic import Traffic
from transfer_queue.transport.framing import LONGEST_HEADER
from transfer_queue.transport.link import Link
from transfer_queue.waiting import Caller, Consumer, Deadlines, Line, Producer, Recycler, Waiter

log = logging.getLogger(__name__)

Post = Callable[[Callable[[], None]], None]
"""Runs a function in the server's loop; may be called from any thread."""

DONE = wire.Done()

MOST_INSIDE = LARGEST - LONGEST_HEADER - (1 << 20)
"""Bytes of values inside the message of one put; with what it says of them it is one record of the journal."""

LOOK_S = 1.0
"""How soon a caller that died far away, or a segment whose owner died, is noticed."""


@dataclass(slots=True)
class Outgoing:
    """A reply that leaves once the journal holds what it says; `gone` is called if its caller hung up."""

    caller: Caller
    body: wire.ReplyBody
    frames: Sequence[wire.Frame] = ()
    gone: Callable[[], None] | None = None


def _raise(error: Exception) -> None:
    raise error


class Service:
    """One queue without its socket. Whatever goes wrong in a request is that caller's reply and nobody else's."""

    def __init__(
        self, recorder: Recorder, registry: SamplerRegistry, post: Post, room: Room, *, timeout_s: float,
        folder: Path | None = None, namespace: str | None = None,
        compactor: Compactor | None = None,
        fatal: Callable[[Exception], None] = _raise,
    ) -> None:  # fmt: skip
        self.recorder, self.state, self.registry = recorder, recorder.state, registry
        self.ledger, self.catalog = self.state.ledger, self.state.catalog
        self.room, self.line, self.deadlines = room, Line(), Deadlines()
        self.places = SegmentPlaces(recorder, [SegmentFiles(folder), SegmentActors(namespace, post)], self.serve)
        self._readers = Readers(folder, self.catalog.segments, recorder.now())
        self.post, self._compactor, self._fatal = post, compactor, fatal
        self._out: list[Outgoing] = []
        self._sweeping = self._gave_up = False
        self._looked_at = recorder.now()
        self._custom = CustomSamplers(self, timeout_s)
        self._traffic = Traffic(time.monotonic)
        self._answers = Answers(recorder, registry, self.line, room, self._custom, self._traffic)
        self._checkpoints = Checkpoints(recorder.journal, compactor, self.catalog.segments)
        self._handlers: dict[type, Callable[..., None]] = {
            wire.Put: self._put,
            wire.GetMeta: self._get_meta,
            wire.GetData: self._get_data,
            wire.EndRead: self._end_read,
            wire.Attach: self._attach,
            wire.Detach: self._detach,
            wire.Recycle: self._recycle,
            wire.Locate: self._locate,
            wire.Lost: self._lost,
            wire.Clear: self._change,
            wire.Rollback: self._change,
            wire.Checkpoint: self._checkpoint,
            wire.Ack: self._change,
            wire.Release: self._change,
            wire.Extend: self._extend,
            wire.Drop: self._change,
            wire.Why: self._why,
            wire.GetStats: self._stats,
            wire.Survey: self._survey,
            wire.Peek: self._peek,
            wire.RegisterSampler: self._register,
        }

    # What the transport calls

    def received(self, link: Link, parts: list[wire.Frame]) -> None:
        """Carry out one request, or let it wait."""
        if self._gave_up:
            link.close()
            return
        caller = Caller(link, 0, "")
        try:
            if not parts:
                raise ProtocolError("an empty message")
            request = wire.decode_request(parts[0])
            caller = Caller(link, request.sequence, request.client, request.session)
            self._traffic.asked(request.body)
            answer = self.state.sessions.answer(request.session, request.sequence)
            if answer is not None:
                self._reply(caller, answer)
                return
            self._handlers[type(request.body)](caller, request.body, parts[1:])
        except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
            self._fail(caller, error)

    def gone(self, link: Link) -> None:
        """The peer hung up: nobody shall wait behind it."""
        self._readers.gone(link)
        self._forget(lambda waiter: waiter.caller.link is link)

    def tick(self) -> None:
        """End leases and waits whose deadline has passed."""
        if self._gave_up:
            return
        now = self.recorder.now()
        next_lease = self.ledger.next_deadline()
        if next_lease is not None and next_lease <= now and self.recorder.do(None, op.Expire()) is not None:
            self.serve()
        self._custom.check()
        for waiter in self.deadlines.due(now):
            if not waiter.over:  # the end of one wait may have served another
                self._time_out(waiter, now)
        if self.recorder.journal is not None:
            self.recorder.journal.sync()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._forget(lambda waiter: not waiter.caller.link.alive())
            self._readers.look(now)
            self._sweeping = True
            self._serve_recyclers()
            if self._compactor is not None and not self._checkpoints.busy:
                self._compactor.poll()
                if self._written():  # a burst that is cut off by the end of its segment must not be lost with it
                    self._compactor.consider()
        if self._checkpoints.busy:
            self._look_at_checkpoints()

    def settle(self) -> None:
        """Write the journal, then let the replies go; who hung up meanwhile gives back what it was given."""
        while self._written():
            if self._out:
                out, self._out = self._out, []
                for each in out:
                    self._send(each)
            elif self._sweeping:  # no file goes before the journal says that its last row is gone
                self._sweeping = False
                self.places.sweep()
            else:
                return

    def _written(self) -> bool:
        """Whether all that was done is in the journal. If it cannot be, nobody hears of it, and nothing is done more:
        a restart goes on from what is written."""
        if self.recorder.journal is not None and not self._gave_up:
            try:
                self.recorder.journal.commit()
            except JournalError as error:
                self._give_up(error)
        return not self._gave_up

    def _send(self, each: Outgoing) -> None:
        try:
            header = wire.encode(wire.Reply(each.caller.sequence, each.body))
            sent = each.caller.link.send([header, *each.frames])
        except ProtocolError as error:
            failure = wire.Failure("ProtocolError", f"the answer cannot be sent: {error}", {})
            each.caller.link.send([wire.encode(wire.Reply(each.caller.sequence, failure))])
            sent = False
        if not sent and each.gone is not None:
            each.gone()

    def _give_up(self, error: JournalError) -> None:
        self._gave_up = True
        failure = wire.Failure("JournalError", str(error), error.details)
        for each in self._out:
            each.caller.link.send([wire.encode(wire.Reply(each.caller.sequence, failure))])
        self._out.clear()
        self._fatal(error)

    def next_deadline(self) -> float | None:
        """When `tick` has something to do next, on the server's clock, or None."""
        times = [self.deadlines.next(), self.ledger.next_deadline(), self._custom.next_look()]
        known = [time + self.recorder.behind for time in times if time is not None]
        journal = self.recorder.journal
        if journal is not None and (due := journal.due()) is not None:
            known.append(due)
        if self._checkpoints.busy:
            known.append(time.monotonic() + CHECKPOINT_S)
        return min(known, default=None)

    def _look_at_checkpoints(self) -> None:
        if self._compactor is not None:
            self._compactor.poll()
        self._checkpoints.poll()
        self._serve_recyclers()

    def close(self) -> None:
        """Let the journal go."""
        self._checkpoints.close()
        if self._compactor is not None:
            self._compactor.close()
        if self.recorder.journal is not None:
            if self._gave_up:
                self.recorder.journal.discard()
            self.recorder.journal.close()

    # Requests

    def _put(self, caller: Caller, put: wire.Put, frames: Sequence[wire.Frame]) -> None:
        if put.rows < 1 or not put.columns:
            raise FieldError("put brings no rows or no fields")
        if put.indexes and len(put.indexes) != put.rows:
            raise FieldError(f"put brings {put.rows} rows of values for the {len(put.indexes)} rows of its metadata")
        check_fits(self.ledger.shape, put.rows)
        if self.recorder.journal is not None and (size := sum(map(len, frames))) > MOST_INSIDE:
            raise FieldError(
                f"this put brings {size} bytes inside its message, more than the {MOST_INSIDE} of one record of the "
                "journal: put fewer rows at once"
            )
        for column in put.columns:
            check_name("field", column.name, self.catalog.dtypes, MOST_FIELDS)
        chunks = split(put, frames)
        if put.indexes:
            self._reply(caller, cast(wire.Rows, self.recorder.put(caller, put, chunks, frames)))
            self.serve()
            return
        check_seconds("timeout_s", put.timeout_s)
        size = sum(chunk.size for chunk in chunks)
        self.room.check(size)
        now = self.recorder.now()
        producer = Producer(caller, now, now + put.timeout_s, put, chunks, list(frames), size)
        if self.room.has_for(producer, self.catalog.stored_bytes) and self._try_producer(producer):
            self.serve()
        elif not producer.over:
            self.room.wait(producer)
            self.deadlines.add(producer)

    def _get_meta(self, caller: Caller, body: wire.GetMeta, _: Sequence[wire.Frame]) -> None:
        check_name("task", body.task, self.ledger.last_wants, MOST_TASKS)
        choice = self.registry.choose(body.task, caller.client, body.params, body.get_n_samples)
        dp = choice.dp
        if choice.default_dp is not None:
            done = self.ledger.reservations.completed(body.task, body.step, choice.default_dp.dp_rank)
            dp = DPPlace(choice.default_dp.dp_rank, choice.default_dp.dp_size, f"DPSampler reservation {done}")
        want = Want(
            body.task, tuple(body.fields), body.batch_size, body.step, choice.whole_groups, dp,
            caller.client, body.lease_s, body.timeout_s,
        )  # fmt: skip
        want.check(self.ledger.shape)
        now = self.recorder.now()
        consumer = Consumer(caller, now, now + body.timeout_s, want, choice)
        self.line.add(consumer)
        self._try_consumer(consumer, behind=False)
        if not consumer.over:
            self.deadlines.add(consumer)
        self.serve()

    def _get_data(self, caller: Caller, body: wire.GetData, _: Sequence[wire.Frame]) -> None:
        if not body.fields:
            raise FieldError("get_data names no fields")
        self.ledger.steps.locate(body.indexes)
        found = [self.catalog.read(field, body.indexes) for field in body.fields]
        columns = [column for column, _, _ in found]
        placed = [i for i, (_, _, places) in enumerate(found) if places is not None]
        if not placed:
            frames = wire.joined([here for _, here, _ in found])
            self._reply(caller, wire.Values(columns), frames)
        else:
            read = self.catalog.segments.begin_read(caller.link, secrets.randbits(31))
            parts = [here if places is None else places for _, here, places in found]
            inline = [found[i][1] for i in placed]
            self._reply(caller, wire.Values(columns, placed, read), [*parts, *inline])
        if self.ledger.holds.open:
            self.recorder.do(None, op.Read(body.indexes))
            self.serve()

    def _end_read(self, caller: Caller, body: wire.EndRead, _: Sequence[wire.Frame]) -> None:
        self.catalog.segments.end_read(body.read)
        self._serve_recyclers()

    def _attach(self, caller: Caller, body: wire.Attach, _: Sequence[wire.Frame]) -> None:
        self.places.check(body.path, body.size)
        attached = self.recorder.do(caller, op.AttachSegment(body.path, body.size, caller.session))
        self.places.watch(cast(wire.Attached, attached).segment)
        self._reply(caller, attached)

    def _detach(self, caller: Caller, body: wire.Detach, _: Sequence[wire.Frame]) -> None:
        self._reply(caller, self.recorder.do(caller, op.AbandonSegments(body.segments)))
        self._sweeping = True

    def _recycle(self, caller: Caller, body: wire.Recycle, _: Sequence[wire.Frame]) -> None:
        check_seconds("timeout_s", body.timeout_s)
        now = self.recorder.now()
        waiter = Recycler(caller, now, now + body.timeout_s, body.segments)
        if not self._try_recycler(waiter, at_least=0 if body.timeout_s == 0 else 1):
            self.room.recyclers.append(waiter)
            self.deadlines.add(waiter)

    def _locate(self, caller: Caller, body: wire.Locate, _: Sequence[wire.Frame]) -> None:
        known = self.catalog.segments.known
        self._reply(caller, wire.Located([known[number].path if number in known else "" for number in body.segments]))

    def _lost(self, caller: Caller, body: wire.Lost, _: Sequence[wire.Frame]) -> None:
        self.places.missing(body.segments, lambda lost: self._reply(caller, wire.Done(lost)))

    def _change(self, caller: Caller, body: op.Operation, _: Sequence[wire.Frame]) -> None:
        """An operation that the caller asks for as it is."""
        self._reply(caller, self.recorder.do(caller, body))
        self.serve()

    def _extend(self, caller: Caller, body: wire.Extend, _: Sequence[wire.Frame]) -> None:
        check_seconds("lease_s", body.seconds)
        self._reply(caller, self.recorder.do(caller, body))

    def _checkpoint(self, caller: Caller, body: wire.Checkpoint, _: Sequence[wire.Frame]) -> None:
        def done(error: Exception | None) -> None:
            if error is None:
                self._reply(caller, DONE)
            else:
                self._fail(caller, error)

        if self._written():
            self._checkpoints.ask(body.path, done)

    def _why(self, caller: Caller, body: wire.Why, _: Sequence[wire.Frame]) -> None:
        self._reply(caller, wire.Explained(self._answers.why(body.task)))

    def _stats(self, caller: Caller, _body: wire.GetStats, _: Sequence[wire.Frame]) -> None:
        self._reply(caller, self._answers.stats())

    def _survey(self, caller: Caller, body: wire.Survey, _: Sequence[wire.Frame]) -> None:
        self._reply(caller, self._answers.survey(body))

    def _peek(self, caller: Caller, body: wire.Peek, _: Sequence[wire.Frame]) -> None:
        self._reply(caller, self._answers.peek(body))

    def _register(self, caller: Caller, body: wire.RegisterSampler, _: Sequence[wire.Frame]) -> None:
        """Importing and making it may take seconds or for ever, so that is done in a thread of its own."""

        def answer(made: BaseSampler | Exception) -> None:
            try:
                if isinstance(made, Exception):
                    raise made
                self.register_sampler(made, body.task, None if body.everyone else caller.client, body.spec, caller)
                self._reply(caller, DONE)
            except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
                self._fail(caller, error)

        def make() -> None:
            made: BaseSampler | Exception
            try:
                made = build(body.spec)
            except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
                made = error
            self.post(lambda: answer(made))

        threading.Thread(target=make, name=f"making {body.spec.path}", daemon=True).start()

    def register_sampler(
        self, sampler: BaseSampler, task: str | None, client: str | None, spec: SamplerSpec | None,
        caller: Caller | None = None,
    ) -> None:  # fmt: skip
        """Let this sampler serve requests for the task that arrive from now on."""
        self.registry.register(sampler, task, client)
        self.recorder.do(caller, op.Register(task, client, spec, repr(sampler)))

    # Waiting

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
            over = [self._try_producer(each) for each in self.room.ready(ledger, self.catalog.stored_bytes)]
            if not any(over):
                break
        self._serve_recyclers()

    def _serve_recyclers(self) -> None:
        for waiter in self.room.recyclers[:]:
            if waiter.over or self._try_recycler(waiter, at_least=1):
                self.room.recyclers.remove(waiter)

    def _try_recycler(self, waiter: Recycler, at_least: int) -> bool:
        ranges = self.catalog.segments.reusable(waiter.segments)
        if len(ranges) < at_least:
            return False
        waiter.over = True
        self._reply(waiter.caller, self.recorder.do(waiter.caller, op.GiveRanges(ranges)))
        return True

    def _try_producer(self, producer: Producer) -> bool:
        """Whether this put is over, served or failed."""
        try:
            rows = self.recorder.put(producer.caller, producer.put, producer.chunks, producer.frames)
        except TransferQueueError as error:
            producer.over = True
            self._fail(producer.caller, error)
            return True
        if rows is None:
            return False
        producer.over = True
        self._reply(producer.caller, rows)
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
                self._custom.ask(consumer, consumer.choice.custom)
                return
            rows = self.recorder.do(consumer.caller, op.Take(want))
        except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
            self.leave(consumer, error)
            return
        if rows is not None:
            self.hand_over(consumer, cast(wire.Rows, rows))

    def hand_over(self, consumer: Consumer, rows: wire.Rows) -> None:
        """These rows are the consumer's; who waits behind it may be next."""
        taken = cast(Taken, self.state.last_taken)
        undo = op.Undo(consumer.want, taken.indexes, taken.lease_id, taken.voted)
        self._leave_line(consumer)

        def gone() -> None:
            self.recorder.undo(consumer.caller, undo)
            self.serve()

        self._reply(consumer.caller, rows, gone=gone)

    def leave(self, consumer: Consumer, error: Exception) -> None:
        """The wait ends with this error."""
        self._leave_line(consumer)
        self._fail(consumer.caller, error)

    def _leave_line(self, consumer: Consumer) -> None:
        self.line.remove(consumer)
        self._stir(consumer.want)

    def _stir(self, want: Want) -> None:
        """Let those who wait for the same rows be tried again."""
        if self.line.of_task(want.task):
            steps = [each.step for each in self.ledger.steps.in_order()] if want.step is None else [want.step]
            self.ledger.stirred.update((want.task, step) for step in steps)

    def _forget(self, dead: Callable[[Waiter], bool]) -> None:
        found: list[Waiter] = [*self.line, *self.room.producers, *self.room.recyclers]
        for waiter in [each for each in found if dead(each)]:
            if isinstance(waiter, Consumer):
                self._leave_line(waiter)
            waiter.over = True
        self.serve()

    def _time_out(self, waiter: Waiter, now: float) -> None:
        waited = now - waiter.since
        if isinstance(waiter, Consumer):
            explanation = self._answers.explain(waiter)
            details = {"task": waiter.want.task, "needed": explanation.needed, "ready": explanation.ready}
            self.leave(waiter, NotReadyError(f"get_meta waited {waited:.1f} s: {explanation}", details))
            self.serve()
        elif isinstance(waiter, Producer):
            waiter.over = True
            text = self.room.why_full(waiter, waited, self.ledger, self.catalog.stored_bytes)
            self._fail(waiter.caller, BackPressureError(text))
            self.serve()
        elif isinstance(waiter, Recycler):
            self._try_recycler(waiter, at_least=0)

    def read_values(self, field: str, indexes: list[int]) -> Sequence[Any]:
        """One field of some rows, for samplers."""
        return self.catalog.scalars(field, indexes)

    # Replies

    def _reply(
        self, caller: Caller, body: wire.ReplyBody | None, frames: Sequence[wire.Frame] = (),
        gone: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        body = DONE if body is None else body
        self._traffic.answered(body)
        self._out.append(Outgoing(caller, body, frames, gone))

    def _fail(self, caller: Caller, error: Exception) -> None:
        if isinstance(error, TransferQueueError):
            self._reply(caller, wire.Failure(type(error).__name__, str(error), error.details))
            return
        log.error("a request of client %r failed", caller.client, exc_info=error)
        text = f"the controller could not carry out the request: {type(error).__name__}: {error}"
        self._reply(caller, wire.Failure("RequestError", text, {}))
