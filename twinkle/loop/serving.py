"""A sampler that no driver calls: it takes prompts from a queue, follows the weights of their run, and answers.

Group by group: each is leased, begun with the newest weights, and finished by a thread of its own, while the next ones
join it in the sampler's running batch. Two servers of one queue share its prompts by taking turns. A load of weights
may take longer than a lease should live: the prompts that it is for go back to the queue first.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from transfer_queue import (
    BatchMeta,
    LeaseError,
    NotReadyError,
    StepClearedError,
    TransferQueueClient,
    TransferQueueError,
)
from twinkle.attach_config import AttachConfig
from twinkle.data.check import encoded
from twinkle.data_format import SampledSequence, SamplingParams
from twinkle.errors import DataError, SampleAbortedError, WeightSyncError
from twinkle.infra import remote_function
from twinkle.loop.payload import Version, WeightPayload
from twinkle.loop.prompt_rows import PROMPT_FIELDS, Answer, PromptRun, prompt_runs, response_fields
from twinkle.loop.weight_board import WeightBoard
from twinkle.loop.weight_sync import PolicySampler

BASE = Version(0, 0), "base"
"""What rows bear where nobody publishes weights: those of the model's folder."""
DRAIN_S = 15.0


@dataclass(frozen=True)
class Served:
    """How a server stands.

    Attributes:
        rows: answered so far.
        late: rows whose lease was over before they were answered; another has them, or will.
        dropped: rows of groups with a prompt that no response can be sampled to; nobody gets them again.
        dropped_why: of the last of those groups; "" when there was none.
        idle_s: seconds since it last had something to do.
        waits_for: what the queue said of the prompts that are missing; "" when they are not.
        version: of the weights that it holds.
    """

    rows: int
    late: int
    dropped: int
    dropped_why: str
    idle_s: float
    waits_for: str
    version: str


@dataclass(frozen=True)
class Group:
    """The rows of a lease, being answered: each stream has the samples of these prompts."""

    meta: BatchMeta
    streams: Sequence[tuple[Iterator[SampledSequence], Sequence[PromptRun], Sequence[Sequence[int]]]]
    stamp: tuple[Version, str]


@dataclass
class RolloutServer:
    """Serves the task ``rollout`` of a queue from one sampler.

    Attributes:
        samples_per_prompt: rows of a group.
        board: where the run's weights hang; None: the model's own are served.
    """

    client: TransferQueueClient
    policy: PolicySampler
    params: SamplingParams
    samples_per_prompt: int
    board: WeightBoard | None
    attach: AttachConfig
    _rows: int = 0
    _late: int = 0
    _dropped: int = 0
    _dropped_why: str = ""
    _busy_at: float = field(default_factory=time.monotonic)
    _waits_for: str = ""
    _failure: BaseException | None = None
    _running: set[Future[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._counting = threading.Lock()
        self._free = threading.Semaphore(self.attach.groups_at_once)
        self._pool = ThreadPoolExecutor(self.attach.groups_at_once, thread_name_prefix="group")

    @remote_function(collect="flatten")
    def serve(self, seconds: float) -> list[Served]:
        """Take groups for so long, and begin them; those that have begun go on behind it.

        Raises:
            TransferQueueError: the queue is gone. WeightSyncError: weights arrived otherwise than they were sent.
            Whatever ended a group; its rows went back to the task.
        """
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0 and self._failure is None:
            if self._free.acquire(timeout=left):
                self._take(max(ends - time.monotonic(), 0.001))
        if self._failure is not None:
            raise self._failure
        if self._running:
            self._busy_at = time.monotonic()
        version = self.policy.version or BASE[0]
        idle_s = time.monotonic() - self._busy_at
        return [Served(self._rows, self._late, self._dropped, self._dropped_why, idle_s, self._waits_for, str(version))]

    def close(self) -> None:
        """Give back the rows that are not answered yet, end the sampler and leave the queue, whatever fails of it."""
        with ExitStack() as stack:
            stack.callback(self.client.close)
            stack.callback(self.policy.sampler.close)
            stack.callback(self._pool.shutdown, wait=False, cancel_futures=True)
            self.policy.sampler.abort()
            wait(list(self._running), DRAIN_S)

    def _take(self, timeout_s: float) -> None:
        """Begin the next group, if there is one in time; it has a place of `_free` until it has ended."""
        group = None
        try:
            group = self._next(timeout_s)
        finally:
            if group is None:
                self._free.release()
        if group is not None:
            future = self._pool.submit(self._finish, group)
            self._running.add(future)
            future.add_done_callback(self._ended)

    def _next(self, timeout_s: float) -> Group | None:
        try:
            meta, data = self.client.get(
                PROMPT_FIELDS,
                batch_size=self.samples_per_prompt,
                task_name="rollout",
                get_n_samples=True,
                lease_s=self.attach.lease_s,
                timeout_s=timeout_s,
                plain=True,
            )
        except NotReadyError as error:
            self._waits_for = str(error)
            return None
        self._waits_for = ""
        try:
            return self._begun(meta, data)
        except BaseException:
            self._give_back(meta)
            raise
        finally:
            self._busy_at = time.monotonic()

    def _begun(self, meta: BatchMeta, data: Mapping[str, Any]) -> Group | None:
        """The group in the sampler's hands; None where its rows went back, because weights came first, or out."""
        weights = self._newer_weights()
        if weights is not None:
            self._give_back(meta)
            self.policy.receive(weights)
            return None
        try:
            return self._begin(meta, prompt_runs(data))
        except DataError as error:
            self._drop(meta, error)
            return None

    def _newer_weights(self) -> WeightPayload | None:
        """The run's newest weights, unless the sampler holds them."""
        if self.board is None:
            return None
        payload = self.board.newest(self.policy.version)
        if payload is None and self.policy.version is None:
            raise WeightSyncError("The queue has prompts, but its run has published no weights to answer them with.")
        return payload

    def _begin(self, meta: BatchMeta, runs: Sequence[PromptRun]) -> Group:
        """Hand the prompts to the sampler, which keeps its present weights for them, if all of them can be answered."""
        stamp = BASE if self.policy.version is None else (self.policy.version, self.policy.fingerprint)
        sampler, streams = self.policy.sampler, []
        template, positions, most = sampler.template, sampler.positions, self.params.max_tokens
        prompts = [(run, encoded(run.prompt, template, positions, most)) for run in runs]
        for size in sorted({len(run.rows) for run in runs}):
            alike = [run for run in runs if len(run.rows) == size]
            features = [feature for run, feature in prompts if len(run.rows) == size]
            params = [replace(self.params, seed=run.seed) for run in alike]
            stream = sampler.stream(features, params, self.policy.adapter_name, num_samples=size)
            streams.append((stream, alike, [list(feature["input_ids"]) for feature in features]))
        return Group(meta, streams, stamp)

    def _finish(self, group: Group) -> None:
        """Answer the rows of a group; whatever comes between, their lease is over afterwards."""
        try:
            answers = self._answers(group)
            fields = response_fields([answers[row] for row in range(len(group.meta))], *group.stamp)
            self.client.put(fields, metadata=group.meta, ack=True)
            with self._counting:
                self._rows += len(group.meta)
        except (LeaseError, StepClearedError):
            with self._counting:
                self._late += len(group.meta)
        except SampleAbortedError:
            self._give_back(group.meta)
        except DataError as error:
            self._drop(group.meta, error)
        except BaseException as error:  # noqa: BLE001 - the next call of serve raises it
            self._give_back(group.meta)
            self._failure = error

    def _answers(self, group: Group) -> dict[int, Answer]:
        """The answer to each row. Each that comes is progress, and lets the lease live longer."""
        answers: dict[int, Answer] = {}
        extended = time.monotonic()
        for stream, runs, prompt_ids in group.streams:
            for sequence in stream:
                run = runs[sequence.prompt_index]
                answers[run.rows[sequence.sample_index]] = Answer(sequence, prompt_ids[sequence.prompt_index])
                if (now := time.monotonic()) - extended > self.attach.lease_s / 4:
                    self.client.extend(group.meta, self.attach.lease_s)
                    extended = now
        return answers

    def _give_back(self, meta: BatchMeta) -> None:
        with suppress(TransferQueueError):  # the lease is over, or the queue is gone: nothing is kept from anybody
            self.client.release(meta)

    def _drop(self, meta: BatchMeta, why: DataError) -> None:
        """Take the rows out of all tasks, so that their run hears why; given back, they would meet the next sampler."""
        with suppress(TransferQueueError):  # as in _give_back: who has the rows now drops them
            self.client.drop(meta, str(why))
            with self._counting:
                self._dropped, self._dropped_why = self._dropped + len(meta), str(why)

    def _ended(self, future: Future[Any]) -> None:
        self._running.discard(future)
        self._busy_at = time.monotonic()
        self._free.release()
