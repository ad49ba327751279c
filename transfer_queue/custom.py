"""Requests whose task has a custom sampler: asked in its own thread, on a copy, one request after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

from transfer_queue import operations as op
from transfer_queue import wire
from transfer_queue.errors import SamplerError
from transfer_queue.ledger.explain import Explanation, Reason, merged
from transfer_queue.ledger.limits import check_possible
from transfer_queue.ledger.partition import Partition
from transfer_queue.recorder import Recorder
from transfer_queue.samplers.base import BaseSampler
from transfer_queue.sampling import Answer, Offer, Outcome, SamplerThread
from transfer_queue.waiting import Consumer, Line


class Asking(Protocol):
    """What custom samplers need of who serves."""

    recorder: Recorder
    line: Line

    def post(self, work: Callable[[], None]) -> None: ...

    def read_values(self, field: str, indexes: list[int]) -> Sequence[Any]: ...

    def hand_over(self, consumer: Consumer, rows: wire.Rows) -> None: ...

    def leave(self, consumer: Consumer, error: Exception) -> None: ...

    def serve(self) -> None: ...


class CustomSamplers:
    """The threads of the custom samplers, and what is done with their answers."""

    def __init__(self, serving: Asking, timeout_s: float) -> None:
        self._serving, self.timeout_s = serving, timeout_s
        self._ledger = serving.recorder.state.ledger
        self._threads: dict[int, SamplerThread] = {}
        self._of_task: dict[str, SamplerThread] = {}
        self._running: dict[int, Consumer] = {}

    def ask(self, consumer: Consumer, sampler: BaseSampler) -> None:
        """Ask the sampler about the oldest partition that changed since it found too little there, if it is free."""
        self._ledger.last_wants[consumer.want.task] = consumer.want
        check_possible(self._ledger.shape, self._ledger.steps, consumer.want)
        thread = self._threads.get(id(sampler)) or SamplerThread(sampler)
        self._threads[id(sampler)] = self._of_task[consumer.want.task] = thread
        if thread.busy:
            return
        read = self._serving.read_values
        for partition in self._ledger.steps.in_order(consumer.want.step):
            if consumer.tried.get(partition.serial) != partition.version:
                offer = Offer.of(partition, consumer.want, consumer.choice, sampler.value_fields, read)
                consumer.running = True
                self._running[consumer.number] = consumer
                thread.start(offer, self._answer_for(consumer, partition, offer, thread))
                return

    def next_look(self) -> float | None:
        """When `check` has something to look at, on the queue's clock, or None."""
        return self._serving.recorder.state.now + self.timeout_s / 10 if self._running else None

    def check(self) -> None:
        """Fail the requests whose sampler has run past its deadline."""
        for consumer in list(self._running.values()):
            thread = self._threads[id(consumer.choice.custom)]
            if not consumer.over and self._running_late(thread) is not None:
                text = (
                    f"sampler {thread.name} of task {consumer.want.task!r} has not answered for "
                    f"{self.timeout_s:g} s; nothing was taken, and its other requests wait until it answers"
                )
                self._serving.leave(consumer, SamplerError(text))

    def lost(self, task: str) -> str:
        """Why nobody can be served for this task, if its sampler has run past its deadline; else nothing."""
        thread = self._of_task.get(task)
        late = self._running_late(thread) if thread is not None else None
        return "" if thread is None or late is None else f"its sampler {thread.name} has not answered for {late:.0f} s"

    def _running_late(self, thread: SamplerThread) -> float | None:
        """Seconds that the call under way has taken, if that is too long."""
        since = thread.busy_since  # its thread may set it to None meanwhile
        seconds = time.monotonic() - since if since is not None else 0.0
        return seconds if seconds > self.timeout_s else None

    def explained(self, consumer: Consumer, explanation: Explanation) -> Explanation:
        """The explanation of a wait, less the rows that a sampler does not offer, which it counts by its reasons."""
        partitions = self._ledger.steps.in_order(consumer.want.step)
        told = [
            reason
            for partition in partitions
            if consumer.tried.get(partition.serial) == partition.version
            for reason in consumer.withheld.get(partition.serial, ())
        ]
        ready = explanation.ready - sum(reason.rows for reason in told)
        return replace(explanation, ready=ready, reasons=(*explanation.reasons, *merged(told)))

    def _answer_for(
        self, consumer: Consumer, partition: Partition, offer: Offer, thread: SamplerThread
    ) -> Callable[[Outcome], None]:
        def done(outcome: Outcome) -> None:
            self._serving.post(lambda: self._answered(consumer, partition, offer, thread, outcome))

        return done

    def _answered(
        self, consumer: Consumer, partition: Partition, offer: Offer, thread: SamplerThread, outcome: Outcome
    ) -> None:
        thread.busy = consumer.running = False
        self._running.pop(consumer.number, None)
        if not consumer.over:
            if isinstance(outcome, SamplerError):
                self._serving.leave(consumer, outcome)
            else:
                self._carry_out(consumer, partition, offer, outcome)
        self._serving.serve()

    def _carry_out(self, consumer: Consumer, partition: Partition, offer: Offer, answer: Answer) -> None:
        if self._ledger.steps.alive.get(partition.step) is not partition:
            return
        recorder = self._serving.recorder
        for reason, rows in answer.rejected.items():
            recorder.do(None, op.DropRows([partition.base + row for row in rows], reason))
        if len(answer.chosen) < consumer.want.needed:
            consumer.tried[partition.serial] = offer.version
            consumer.withheld[partition.serial] = tuple(_in_queue(reason, partition) for reason in answer.withheld)
            return
        taken = recorder.do(consumer.caller, op.Choose(consumer.want, partition.step, answer.chosen))
        if taken is not None:
            self._serving.hand_over(consumer, cast(wire.Rows, taken))


def _in_queue(reason: Reason, partition: Partition) -> Reason:
    return replace(reason, indexes=tuple(partition.base + row for row in reason.indexes))
