"""Requests whose task has a custom sampler: asked in its own thread, on a copy, one request after the other."""

from __future__ import annotations

from collections.abc import Callable

from transfer_queue.errors import SamplerError
from transfer_queue.ledger import Ledger, Taken
from transfer_queue.ledger.limits import check_possible
from transfer_queue.ledger.partition import Partition
from transfer_queue.samplers.base import BaseSampler
from transfer_queue.sampling import Offer, Outcome, SamplerThread
from transfer_queue.waiting import Consumer, Line


class CustomSamplers:
    """The threads of the custom samplers, and what is done with their answers.

    `post` runs a function in the server's loop; `served` and `failed` end a consumer's wait; `serve` looks at
    everybody who waits again.
    """

    def __init__(
        self,
        ledger: Ledger,
        line: Line,
        timeout_s: float,
        *,
        post: Callable[[Callable[[], None]], None],
        served: Callable[[Consumer, Taken], None],
        failed: Callable[[Consumer, Exception], None],
        serve: Callable[[], None],
    ) -> None:
        self._ledger, self._line, self.timeout_s = ledger, line, timeout_s
        self._post, self._served, self._failed, self._serve = post, served, failed, serve
        self._threads: dict[int, SamplerThread] = {}
        self._of_task: dict[str, SamplerThread] = {}

    def ask(self, consumer: Consumer, sampler: BaseSampler) -> None:
        """Ask the sampler about the oldest partition that changed since it found too little there, if it is free."""
        self._ledger.last_wants[consumer.want.task] = consumer.want
        check_possible(self._ledger.shape, self._ledger.steps, consumer.want)
        thread = self._threads.get(id(sampler)) or SamplerThread(sampler)
        self._threads[id(sampler)] = self._of_task[consumer.want.task] = thread
        if thread.busy:
            return
        for partition in self._ledger.steps.in_order(consumer.want.step):
            if consumer.tried.get(partition.serial) != partition.version:
                offer = Offer.of(partition, consumer.want, consumer.choice)
                consumer.running = True
                thread.start(offer, self._answer_for(consumer, partition, offer, thread))
                return

    def check(self, now: float) -> None:
        """Fail the requests whose sampler has run past its deadline."""
        for consumer in [consumer for consumer in self._line.consumers if consumer.running]:
            thread = self._threads[id(consumer.choice.custom)]
            since = thread.busy_since
            if since is not None and now - since > self.timeout_s:
                text = (
                    f"sampler {thread.name} of task {consumer.want.task!r} has not answered for "
                    f"{self.timeout_s:g} s; nothing was taken, and its other requests wait until it answers"
                )
                self._failed(consumer, SamplerError(text))

    def lost(self, now: float) -> dict[str, str]:
        """The tasks that nobody can be served for, because their sampler has run past its deadline; and since when."""
        late = {
            task: (thread.name, now - thread.busy_since)
            for task, thread in self._of_task.items()
            if thread.busy_since is not None and now - thread.busy_since > self.timeout_s
        }
        return {task: f"its sampler {name} has not answered for {s:.0f} s" for task, (name, s) in late.items()}

    def _answer_for(
        self, consumer: Consumer, partition: Partition, offer: Offer, thread: SamplerThread
    ) -> Callable[[Outcome], None]:
        def done(outcome: Outcome) -> None:
            self._post(lambda: self._answered(consumer, partition, offer, thread, outcome))

        return done

    def _answered(
        self, consumer: Consumer, partition: Partition, offer: Offer, thread: SamplerThread, outcome: Outcome
    ) -> None:
        thread.busy = consumer.running = False
        if consumer in self._line.consumers:
            if isinstance(outcome, SamplerError):
                self._failed(consumer, outcome)
            elif len(outcome) < consumer.want.needed:
                consumer.tried[partition.serial] = offer.version
            else:
                taken = self._ledger.take_chosen(consumer.want, partition, outcome)
                if taken is not None:
                    self._served(consumer, taken)
        self._serve()
