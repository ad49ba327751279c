"""What each request does: the ledger decides, the storage keeps the values, and who cannot be served yet waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from transfer_queue import wire
from transfer_queue.custom import CustomSamplers
from transfer_queue.errors import (
    BackPressureError,
    FieldError,
    NotReadyError,
    ProtocolError,
    TransferQueueError,
)
from transfer_queue.ledger import DPPlace, Ledger, Taken, Want
from transfer_queue.ledger.explain import EARLIER, LOST, NEVER_ASKED, Explanation, Reason, explain
from transfer_queue.ledger.limits import check_fits, check_possible
from transfer_queue.ledger.request import check_seconds
from transfer_queue.peeking import look
from transfer_queue.samplers.base import BaseSampler
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.samplers.travel import build
from transfer_queue.statistics import gather
from transfer_queue.storage.memory import MemoryStorage
from transfer_queue.traffic import Traffic
from transfer_queue.waiting import Caller, Consumer, Line, Producer

log = logging.getLogger(__name__)

Send = Callable[[Caller, wire.ReplyBody, Sequence[wire.Frame]], bool]
"""Sends a reply; False if the caller is gone."""
Post = Callable[[Callable[[], None]], None]
"""Runs a function in the server's loop; may be called from any thread."""

PROBE_S = 1.0
"""How soon the wait of a caller that died is forgotten."""


class Service:
    """One queue without its socket. Whatever goes wrong in a request is that caller's reply and nobody else's."""

    def __init__(
        self, ledger: Ledger, registry: SamplerRegistry, send: Send, post: Post, sampler_timeout_s: float
    ) -> None:
        self.ledger, self.registry = ledger, registry
        self.storage = MemoryStorage(ledger.shape.capacity)
        self.line = Line()
        self.producers: list[Producer] = []
        self.traffic = Traffic(ledger.clock)
        self._send, self._post, self._probed_at = send, post, ledger.clock()
        self._custom = CustomSamplers(
            ledger, self.line, sampler_timeout_s,
            post=post, served=self._hand_over, failed=self._leave, serve=self._serve,
        )  # fmt: skip
        self._handlers: dict[type, Callable[..., None]] = {
            wire.Put: self._put,
            wire.GetMeta: self._get_meta,
            wire.GetData: self._get_data,
            wire.Ack: self._ack,
            wire.Release: self._release,
            wire.Extend: self._extend,
            wire.Drop: self._drop,
            wire.Clear: self._clear,
            wire.Why: self._why,
            wire.GetStats: self._stats,
            wire.Survey: self._survey,
            wire.Peek: self._peek,
            wire.RegisterSampler: self._register,
        }

    def handle(self, identity: bytes, frames: Sequence[bytes]) -> None:
        """Carry out one request, or let it wait."""
        caller = Caller(identity, 0, "")
        try:
            if not frames:
                raise ProtocolError("an empty message")
            request = wire.decode_request(frames[0])
            caller = Caller(identity, request.sequence, request.client)
            self.traffic.asked(request.body)
            self._handlers[type(request.body)](caller, request.body, frames[1:])
        except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
            self._fail(caller, error)

    def tick(self) -> None:
        """End leases and waits whose deadline has passed."""
        now = self.ledger.clock()
        if self.ledger.expire() | self._forget_the_dead(now):
            self._serve()
        self._custom.check(now)
        late = [consumer for consumer in self.line.consumers if consumer.deadline <= now]
        for consumer in late:
            self._time_out(consumer, now)
        for producer in [producer for producer in self.producers if producer.deadline <= now]:
            self.producers.remove(producer)
            self._fail(producer.caller, BackPressureError(self._full_text(producer, now)))
        if late:
            self._serve()

    def _forget_the_dead(self, now: float) -> bool:
        """Once a second, end the waits of callers that are gone: nobody shall wait behind them. True if there were."""
        if now - self._probed_at < PROBE_S:
            return False
        self._probed_at = now
        consumers = [each for each in self.line.consumers if not self._alive(each.caller)]
        producers = [each for each in self.producers if not self._alive(each.caller)]
        self.line.consumers = [each for each in self.line.consumers if each not in consumers]
        self.producers = [each for each in self.producers if each not in producers]
        return bool(consumers or producers)

    def _alive(self, caller: Caller) -> bool:
        """Whether the caller's connection stands: a client passes over a reply to no request of its own."""
        return self._send(replace(caller, sequence=wire.NO_REQUEST), wire.Done(), ())

    def next_deadline(self) -> float | None:
        """When `tick` has something to do next, or None."""
        times = [consumer.deadline for consumer in self.line.consumers]
        times += [producer.deadline for producer in self.producers]
        lease = self.ledger.leases.next_deadline()
        if lease is not None:
            times.append(lease)
        if any(consumer.running for consumer in self.line.consumers):
            times.append(self.ledger.clock() + self._custom.timeout_s / 10)
        return min(times, default=None)

    def register_sampler(self, sampler: BaseSampler, task: str | None, client: str | None) -> None:
        """Let this sampler serve requests for the task that arrive from now on."""
        self.registry.register(sampler, task, client)

    # Requests

    def _put(self, caller: Caller, put: wire.Put, frames: Sequence[bytes]) -> None:
        if put.rows < 1 or not put.columns:
            raise FieldError("put brings no rows or no fields")
        if put.indexes and len(put.indexes) != put.rows:
            raise FieldError(f"put brings {put.rows} rows of values for the {len(put.indexes)} rows of its metadata")
        check_fits(self.ledger.shape, put.rows)
        chunks = self.storage.split(put.rows, put.columns, frames)
        fields = [column.name for column in put.columns]
        if put.indexes:
            self.ledger.put_fields(put.indexes, fields, put.lease)
            self.storage.write(put.indexes, chunks)
            self._reply(caller, self._rows(put.indexes))
            self._serve()
            return
        check_seconds("timeout_s", put.timeout_s)
        now = self.ledger.clock()
        producer = Producer(caller, put, chunks, now, now + put.timeout_s)
        if not self._try_producer(producer):
            self.producers.append(producer)
        self._serve()

    def _get_meta(self, caller: Caller, body: wire.GetMeta, _: Sequence[bytes]) -> None:
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
        now = self.ledger.clock()
        consumer = Consumer(caller, want, choice, now, now + body.timeout_s)
        self.line.consumers.append(consumer)
        self._serve()

    def _get_data(self, caller: Caller, body: wire.GetData, _: Sequence[bytes]) -> None:
        self.ledger.steps.locate(body.indexes)
        read = [self.storage.read(field, body.indexes) for field in body.fields]
        self._reply(caller, wire.Values([column for column, _ in read]), wire.joined([frame for _, frame in read]))
        self.ledger.read(body.indexes)
        self._serve()

    def _ack(self, caller: Caller, body: wire.Ack, _: Sequence[bytes]) -> None:
        self.ledger.ack(body.lease, body.dp_rank)
        self._reply(caller, wire.Done())
        self._serve()

    def _release(self, caller: Caller, body: wire.Release, _: Sequence[bytes]) -> None:
        self.ledger.release(body.lease)
        self._reply(caller, wire.Done())
        self._serve()

    def _extend(self, caller: Caller, body: wire.Extend, _: Sequence[bytes]) -> None:
        check_seconds("lease_s", body.seconds)
        self.ledger.extend(body.lease, body.seconds)
        self._reply(caller, wire.Done())

    def _drop(self, caller: Caller, body: wire.Drop, _: Sequence[bytes]) -> None:
        self.ledger.drop(body.lease, body.reason)
        self._reply(caller, wire.Done())
        self._serve()

    def _clear(self, caller: Caller, body: wire.Clear, _: Sequence[bytes]) -> None:
        changed = self.ledger.clear(body.step, force=body.force)
        self._reply(caller, wire.Done(changed))
        self._serve()

    def _why(self, caller: Caller, body: wire.Why, _: Sequence[bytes]) -> None:
        self._reply(caller, wire.Explained(self.why(body.task)))

    def _stats(self, caller: Caller, _body: wire.GetStats, _: Sequence[bytes]) -> None:
        self._reply(caller, self.stats())

    def _survey(self, caller: Caller, body: wire.Survey, _: Sequence[bytes]) -> None:
        stats = self.stats()
        tasks = list(stats.tasks)[-wire.MOST_TASKS :] if body.task is None else [body.task]
        self._reply(caller, wire.Surveyed(stats, [self.why(task) for task in tasks]))

    def _peek(self, caller: Caller, body: wire.Peek, _: Sequence[bytes]) -> None:
        self._reply(caller, look(self.ledger, self.storage.glimpses, body))

    def _register(self, caller: Caller, body: wire.RegisterSampler, _: Sequence[bytes]) -> None:
        """Importing and making it may take seconds or for ever, so that is done in a thread of its own."""

        def answer(made: BaseSampler | Exception) -> None:
            try:
                if isinstance(made, Exception):
                    raise made
                self.register_sampler(made, body.task, None if body.everyone else caller.client)
                self._reply(caller, wire.Done())
            except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
                self._fail(caller, error)

        def make() -> None:
            made: BaseSampler | Exception
            try:
                made = build(body.spec)
            except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
                made = error
            self._post(lambda: answer(made))

        threading.Thread(target=make, name=f"making {body.spec.path}", daemon=True).start()

    # Waiting

    def _serve(self) -> None:
        """Serve everybody who can be served now, in order of arrival."""
        progress = True
        while progress:
            progress = False
            for producer in list(self.producers):
                if self._try_producer(producer):
                    self.producers.remove(producer)
                    progress = True
            for consumer in list(self.line.consumers):
                progress |= self._try_consumer(consumer)
        for freed in self.ledger.effects:
            self.storage.free(freed)
        self.ledger.effects.clear()

    def _try_producer(self, producer: Producer) -> bool:
        put, version = producer.put, self.ledger.steps.version
        if producer.tried == version:
            return False
        try:
            self.storage.check_dtypes(put.columns)  # others may have put the field while this one waited
            indexes = self.ledger.put_rows(put.rows, [column.name for column in put.columns], put.step, put.group_ids)
        except TransferQueueError as error:
            self._fail(producer.caller, error)
            return True
        if indexes is None:
            producer.tried = version
            return False
        self.storage.write(indexes, producer.chunks)
        self._reply(producer.caller, self._rows(indexes))
        return True

    def _try_consumer(self, consumer: Consumer) -> bool:
        """Whether this request is over, served or failed."""
        if consumer not in self.line.consumers or consumer.running:
            return False
        want = consumer.want
        try:
            joins = self.ledger.reservations.find(want) is not None
            if not joins and self.line.ahead_of(consumer) is not None:
                check_possible(self.ledger.shape, self.ledger.steps, want)
                return False
            if consumer.choice.custom is not None and not joins:
                self._custom.ask(consumer, consumer.choice.custom)
                return False
            taken = self.ledger.take(want)
        except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
            self._leave(consumer, error)
            return True
        if taken is None:
            return False
        self._hand_over(consumer, taken)
        return True

    def _hand_over(self, consumer: Consumer, taken: Taken) -> None:
        self.line.consumers.remove(consumer)
        rank = consumer.want.dp.rank if consumer.want.dp else None
        rows = self._rows(taken.indexes, taken.lease_id, rank)
        if not self._reply(consumer.caller, rows):
            self.ledger.undo(consumer.want, taken)

    def _leave(self, consumer: Consumer, error: Exception) -> None:
        self.line.consumers.remove(consumer)
        self._fail(consumer.caller, error)

    def _time_out(self, consumer: Consumer, now: float) -> None:
        explanation = self._explain(consumer)
        details = {"task": consumer.want.task, "needed": explanation.needed, "ready": explanation.ready}
        text = f"get_meta waited {now - consumer.since:.1f} s: {explanation}"
        self._leave(consumer, NotReadyError(text, details))

    def _full_text(self, producer: Producer, now: float) -> str:
        alive = [partition.step for partition in self.ledger.steps.in_order()]
        where = "" if producer.put.step is None else f" into step {producer.put.step}"
        return (
            f"put of {producer.put.rows} rows{where} waited {now - producer.since:.1f} s: all "
            f"num_global_batch={self.ledger.shape.num_global_batch} partitions are alive (steps {alive}); clear one, "
            "let its tasks consume it (with tasks=), or start the controller with a larger num_global_batch"
        )

    # Replies

    def _rows(self, indexes: list[int], lease: int | None = None, rank: int | None = None) -> wire.Rows:
        steps, labels = self.ledger.steps.places(indexes)
        return wire.Rows(indexes, steps, labels, lease, rank)

    def _reply(self, caller: Caller, body: wire.ReplyBody, frames: Sequence[wire.Frame] = ()) -> bool:
        self.traffic.answered(body)
        return self._send(caller, body, frames)

    def _fail(self, caller: Caller, error: Exception) -> None:
        if isinstance(error, TransferQueueError):
            self._reply(caller, wire.Failure(type(error).__name__, str(error), error.details))
            return
        log.error("a request of client %r failed", caller.client, exc_info=error)
        text = f"the controller could not carry out the request: {type(error).__name__}: {error}"
        self._reply(caller, wire.Failure("RequestError", text, {}))

    def _explain(self, consumer: Consumer) -> Explanation:
        explanation = explain(self.ledger, consumer.want)
        ahead = self.line.ahead_of(consumer)
        if ahead is None:
            return explanation
        text = f"go first to {ahead.caller.client!r}, whose earlier request waits"
        reason = Reason(EARLIER, ahead.want.needed, text, holder=ahead.caller.client)
        return replace(explanation, reasons=(*explanation.reasons, reason))

    def why(self, task: str) -> Explanation:
        """Where the task stands: by the first of its requests that wait, else by its latest request."""
        explanation, lost = self._stand(task), self._custom.lost(self.ledger.clock()).get(task)
        if lost is None:
            return explanation
        reason = Reason(LOST, explanation.needed, f"cannot be chosen: {lost}")
        return replace(explanation, reasons=(reason, *explanation.reasons))

    def _stand(self, task: str) -> Explanation:
        waiting = self.line.of_task(task)
        if waiting:
            return self._explain(waiting[0])
        want = self.ledger.last_wants.get(task)
        if want is not None:
            return explain(self.ledger, want)
        rows = sum(partition.produced for partition in self.ledger.steps.in_order())
        reason = Reason(NEVER_ASKED, rows, "are there, but the task has never asked for any")
        return Explanation(task, None, (), 0, 0, (reason,))

    def stats(self) -> wire.Stats:
        """The counts of this moment."""
        return gather(
            self.ledger, self.line, self.producers, self.traffic,
            stored_bytes=self.storage.stored_bytes, lost=self._custom.lost(self.ledger.clock()),
        )  # fmt: skip
