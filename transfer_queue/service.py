"""What each request does: operations change the state, who cannot be served yet waits, and replies leave together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from transfer_queue import operations as op
from transfer_queue import wire
from transfer_queue.checkpoint import LOOK_S as CHECKPOINT_S
from transfer_queue.checkpoint import Checkpoints
from transfer_queue.errors import (
    FieldError,
    LeaseError,
    ProtocolError,
)
from transfer_queue.journal import Compactor
from transfer_queue.journal.format import LARGEST
from transfer_queue.ledger import DPPlace, Want
from transfer_queue.ledger.limits import MOST_FIELDS, MOST_TASKS, check_fits, check_name
from transfer_queue.ledger.request import check_seconds
from transfer_queue.readers import Readers
from transfer_queue.reading import Reading
from transfer_queue.recorder import Recorder
from transfer_queue.replies import DONE, Replies
from transfer_queue.room import Room
from transfer_queue.samplers.base import BaseSampler
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.samplers.travel import SamplerSpec, build
from transfer_queue.segment_actors import SegmentActors
from transfer_queue.segment_files import SegmentFiles
from transfer_queue.segment_places import Kind, SegmentPlaces
from transfer_queue.serving import Post, Serving
from transfer_queue.storage.catalog import Found
from transfer_queue.storage.chunk import split
from transfer_queue.storage.place import is_actor
from transfer_queue.traffic import Traffic
from transfer_queue.transport.framing import LONGEST_HEADER
from transfer_queue.transport.link import Link
from transfer_queue.waiting import Caller, Consumer, Producer, Recycler

log = logging.getLogger(__name__)

MOST_INSIDE = LARGEST - LONGEST_HEADER - (1 << 20)
"""Bytes of values inside the message of one put; with what it says of them it is one record of the journal."""

LOOK_S = 1.0
"""How soon a caller that died far away, or a segment whose owner died, is noticed."""


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
        self._traffic = Traffic(time.monotonic)
        self._replies = Replies(recorder, self._traffic, fatal)
        self._reading = Reading(recorder)
        self.serving = Serving(recorder, registry, room, self._replies, self._reading, self._traffic, post, timeout_s)
        kinds: list[Kind] = [SegmentFiles(folder), SegmentActors(namespace, post)]
        self.places = SegmentPlaces(recorder, kinds, post, self.serving.serve)
        self._readers = Readers(folder, self.catalog.segments, recorder.now())
        self._post, self._compactor = post, compactor
        self._sweeping = False
        self._looked_at = recorder.now()
        self._checkpoints = Checkpoints(recorder.journal, compactor, self.catalog.segments, recorder.now)
        self._handlers = self._by_kind()

    def _by_kind(self) -> dict[type, Callable[..., None]]:
        return {
            wire.Put: self._put,
            wire.GetMeta: self._get_meta,
            wire.GetData: self._get_data,
            wire.EndRead: self._end_read,
            wire.Attach: self._attach,
            wire.Detach: self._detach,
            wire.Recycle: self._recycle,
            wire.GiveUp: self._give_up,
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
        if self._replies.gave_up:
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
                self._replies.reply(caller, answer)
                return
            if self.serving.waits_already(caller):
                return
            self._handlers[type(request.body)](caller, request.body, parts[1:])
        except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
            self._replies.fail(caller, error)

    def gone(self, link: Link) -> None:
        """The peer hung up: nobody shall wait behind it."""
        self._readers.gone(link, self.recorder.now())
        self.serving.forget(lambda waiter: waiter.caller.link is link)

    def tick(self) -> None:
        """End leases and waits whose deadline has passed."""
        if self._replies.gave_up:
            return
        now = self.recorder.now()
        next_lease = self.ledger.next_deadline()
        if next_lease is not None and next_lease <= now and self.recorder.do(None, op.Expire()) is not None:
            self.serving.serve()
        self.serving.end_late(now)
        if self.recorder.journal is not None:
            self.recorder.journal.sync()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self.serving.forget(lambda waiter: not waiter.caller.link.alive())
            self._readers.look(now)
            self._sweeping = True
            self.serving.serve_recyclers()
            if self._compactor is not None and not self._checkpoints.busy:
                self._compactor.poll()
                if (
                    self._replies.written()
                ):  # a burst that is cut off by the end of its segment must not be lost with it
                    self._compactor.consider()
        if self._checkpoints.busy:
            self._look_at_checkpoints()

    def settle(self) -> None:
        """Write the journal, then let the replies go; who hung up meanwhile gives back what it was given."""
        while self._replies.written():
            if self._replies.wait:
                self._replies.send()
            elif self._sweeping:  # no file goes before the journal says that its last row is gone
                self._sweeping = False
                self.places.sweep()
            else:
                return

    def next_deadline(self) -> float | None:
        """When `tick` has something to do next, on the server's clock, or None."""
        times = [self.serving.deadlines.next(), self.ledger.next_deadline(), self.serving.custom.next_look()]
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
        self.serving.serve_recyclers()

    def close(self) -> None:
        """Let the journal go."""
        self._checkpoints.close()
        self.places.close()
        if self._compactor is not None:
            self._compactor.close()
        if self.recorder.journal is not None:
            if self._replies.gave_up:
                self.recorder.journal.discard()
            self.recorder.journal.close()

    # Requests

    def _put(self, caller: Caller, put: wire.Put, frames: Sequence[wire.Frame]) -> None:
        if put.rows < 1 or not put.columns:
            raise FieldError("put brings no rows or no fields")
        if put.indexes and len(put.indexes) != put.rows:
            raise FieldError(f"put brings {put.rows} rows of values for the {len(put.indexes)} rows of its metadata")
        if put.ack is not None and (not put.indexes or put.ack.lease != put.lease):
            raise LeaseError("a put acknowledges the lease under which it writes more fields, and no other")
        check_fits(self.ledger.shape, put.rows)
        if self.recorder.journal is not None and (size := sum(map(len, frames))) > MOST_INSIDE:
            raise FieldError(
                f"this put brings {size} bytes inside its message, more than the {MOST_INSIDE} of one record of the "
                "journal: put fewer rows at once"
            )
        for column in put.columns:
            check_name("field", column.name, self.catalog.dtypes, MOST_FIELDS)
        self.catalog.segments.check_client((number for number, _ in put.extents), caller.client, shared=is_actor)
        chunks = split(put, frames)
        if put.indexes:
            self._replies.reply(caller, cast(wire.Rows, self.recorder.put(caller, put, chunks, frames)))
            self.serving.serve()
            return
        check_seconds("timeout_s", put.timeout_s)
        now, size = self.recorder.now(), sum(chunk.size for chunk in chunks)
        self.serving.add_producer(Producer(caller, now, now + put.timeout_s, put, chunks, list(frames), size))

    def _get_meta(self, caller: Caller, body: wire.GetMeta, _: Sequence[wire.Frame]) -> None:
        check_name("task", body.task, self.ledger.last_wants, MOST_TASKS)
        if len(body.fields) > MOST_FIELDS:
            raise FieldError(f"get_meta names {len(body.fields)} fields: a queue has room for {MOST_FIELDS}")
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
        self.serving.add_consumer(Consumer(caller, now, now + body.timeout_s, want, choice, values=body.values))

    def _get_data(self, caller: Caller, body: wire.GetData, _: Sequence[wire.Frame]) -> None:
        found = self._reading.find(body.indexes, body.fields, far=body.far)
        if body.far and any(places is not None for _, _, places in found):
            self._read_for(caller, found)
        else:
            self._replies.reply(caller, *self._reading.answer(caller, found))
        if self._reading.note(body.task, body.indexes):
            self.serving.serve()

    def _read_for(self, caller: Caller, found: list[Found]) -> None:
        """Read what lies in segments for a caller that cannot; a thread does so, and other requests go on."""
        read = self._reading.begin(caller)

        def answer(frames: list[wire.Frame] | Exception) -> None:
            self.catalog.segments.end_read(read)
            if isinstance(frames, Exception):
                self._replies.fail(caller, frames)
            else:
                self._replies.reply(caller, wire.Values([column for column, _, _ in found]), wire.joined(frames))
            self.serving.serve_recyclers()

        self.places.read([(here, places) for _, here, places in found], answer)

    def _end_read(self, caller: Caller, body: wire.EndRead, _: Sequence[wire.Frame]) -> None:
        self.catalog.segments.end_read(body.read)
        self.serving.serve_recyclers()

    def _attach(self, caller: Caller, body: wire.Attach, _: Sequence[wire.Frame]) -> None:
        self.places.check(body.path, body.size)
        attached = self.recorder.do(caller, op.AttachSegment(body.path, body.size, caller.session, caller.client))
        self.places.watch(cast(wire.Attached, attached).segment)
        self._replies.reply(caller, attached)

    def _detach(self, caller: Caller, body: wire.Detach, _: Sequence[wire.Frame]) -> None:
        self.catalog.segments.check_client(body.segments, caller.client)
        self._replies.reply(caller, self.recorder.do(caller, op.AbandonSegments(body.segments)))
        self._sweeping = True

    def _recycle(self, caller: Caller, body: wire.Recycle, _: Sequence[wire.Frame]) -> None:
        self.catalog.segments.check_client(body.segments, caller.client)
        check_seconds("timeout_s", body.timeout_s)
        now = self.recorder.now()
        self.serving.add_recycler(Recycler(caller, now, now + body.timeout_s, body.segments))

    def _give_up(self, caller: Caller, body: wire.GiveUp, _: Sequence[wire.Frame]) -> None:
        if not caller.session or body.sequence >= caller.sequence:
            raise ProtocolError(f"request {caller.sequence} gives up request {body.sequence}, which is none before it")
        self.serving.forget(lambda waiter: waiter.caller.session == caller.session)
        done = self.state.sessions.may_have_done(caller.session, body.sequence)
        self._replies.reply(caller, self.recorder.do(caller, op.GaveUp(done)))

    def _locate(self, caller: Caller, body: wire.Locate, _: Sequence[wire.Frame]) -> None:
        known = self.catalog.segments.known
        self._replies.reply(
            caller, wire.Located([known[number].path if number in known else "" for number in body.segments])
        )

    def _lost(self, caller: Caller, body: wire.Lost, _: Sequence[wire.Frame]) -> None:
        self.places.missing(body.segments, lambda lost: self._replies.reply(caller, wire.Done(lost)))

    def _change(self, caller: Caller, body: op.Operation, _: Sequence[wire.Frame]) -> None:
        """An operation that the caller asks for as it is."""
        self._replies.reply(caller, self.recorder.do(caller, body))
        self.serving.serve()

    def _extend(self, caller: Caller, body: wire.Extend, _: Sequence[wire.Frame]) -> None:
        check_seconds("lease_s", body.seconds)
        self._replies.reply(caller, self.recorder.do(caller, body))

    def _checkpoint(self, caller: Caller, body: wire.Checkpoint, _: Sequence[wire.Frame]) -> None:
        def done(error: Exception | None) -> None:
            if error is None:
                self._replies.reply(caller, DONE)
            else:
                self._replies.fail(caller, error)

        if self._replies.written():
            self._checkpoints.ask(body.path, done)

    def _why(self, caller: Caller, body: wire.Why, _: Sequence[wire.Frame]) -> None:
        self._replies.reply(caller, wire.Explained(self.serving.answers.why(body.task)))

    def _stats(self, caller: Caller, _body: wire.GetStats, _: Sequence[wire.Frame]) -> None:
        self._replies.reply(caller, self.serving.answers.stats())

    def _survey(self, caller: Caller, body: wire.Survey, _: Sequence[wire.Frame]) -> None:
        self._replies.reply(caller, self.serving.answers.survey(body))

    def _peek(self, caller: Caller, body: wire.Peek, _: Sequence[wire.Frame]) -> None:
        self._replies.reply(caller, self.serving.answers.peek(body))

    def _register(self, caller: Caller, body: wire.RegisterSampler, _: Sequence[wire.Frame]) -> None:
        """Importing and making it may take seconds or for ever, so that is done in a thread of its own."""

        def answer(made: BaseSampler | Exception) -> None:
            try:
                if isinstance(made, Exception):
                    raise made
                self.register_sampler(made, body.task, None if body.everyone else caller.client, body.spec, caller)
                self._replies.reply(caller, DONE)
            except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
                self._replies.fail(caller, error)

        def make() -> None:
            made: BaseSampler | Exception
            try:
                made = build(body.spec)
            except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
                made = error
            self._post(lambda: answer(made))

        threading.Thread(target=make, name=f"making {body.spec.path}", daemon=True).start()

    def register_sampler(
        self, sampler: BaseSampler, task: str | None, client: str | None, spec: SamplerSpec | None,
        caller: Caller | None = None,
    ) -> None:  # fmt: skip
        """Let this sampler serve requests for the task that arrive from now on."""
        self.registry.register(sampler, task, client)
        self.recorder.do(caller, op.Register(task, client, spec, repr(sampler)))
