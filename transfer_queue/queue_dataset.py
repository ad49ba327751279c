"""`QueueDataset`: the batches of a task as an iterable of torch; in a worker of `StreamingDataLoader`, or alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from transfer_queue.client import TransferQueueClient
from transfer_queue.errors import ConfigurationError, ExhaustedError, StepClearedError, TransferQueueError
from transfer_queue.loader_workers import LEASE, Failure, Ties, WayOut, give_back
from transfer_queue.meta import BatchMeta

SamplerParams = Mapping[str, Any] | Callable[[int], Mapping[str, Any]]


class Batch:
    """Rows in the consumer's hands: `meta` says which, `data` holds their values, as `batch["response"]` does too."""

    def __init__(self, meta: BatchMeta, data: Any, client: TransferQueueClient | None = None) -> None:
        self.meta, self.data = meta, data
        self.settled = False
        self._client = client

    def held_by(self, client: TransferQueueClient | None) -> Batch:
        """The batch, to be settled through this client: one of this process."""
        self._client = client
        return self

    def __len__(self) -> int:
        return len(self.meta)

    def __getitem__(self, field: str) -> Any:
        return self.data[field]

    def ack(self) -> None:
        """Consume the rows now; a lease that is over is a `LeaseError`. Nothing the second time."""
        self._settle(lambda client: client.ack(self.meta))

    def release(self) -> None:
        """Give the rows back to the task now. Nothing where they were acknowledged or given back before."""
        self._settle(lambda client: client.release(self.meta))

    def give_back(self) -> None:
        """`release`, where a loop ends: what cannot be given back is left to expire."""
        if not self.settled and self._client is not None:
            give_back(self._client, self.meta)
            self.settled = True

    def is_left(self) -> None:
        """The loop ends with this batch in hand, and whoever made it gives its lease back."""
        self.settled = True

    def drop(self, reason: str) -> None:
        """Drop the rows, for every task that has not taken them. Nothing where they were acknowledged before."""
        self._settle(lambda client: client.drop(self.meta, reason))

    def _settle(self, how: Callable[[TransferQueueClient], None]) -> None:
        if self.settled:
            return
        if self._client is None:
            raise ConfigurationError(
                "this batch came from a worker of a DataLoader that cannot acknowledge it: use StreamingDataLoader, or "
                "client.ack(batch.meta) with a client of this process"
            )
        how(self._client)
        self.settled = True


class QueueDataset(IterableDataset[Batch]):
    """Batches of a task, one after the other, each under a lease of `lease_s` seconds.

    Iteration ends after `steps` batches, and where `global_step` is given, when the rows of that step are used up (the
    last batch may be smaller) or the step was cleared. `NotReadyError` at the deadline `timeout_s` comes through.
    `sampler_params` are those of `get_meta`, or a function of the number of the batch that gives them (one of a
    module, where workers are spawned), which data-parallel ranks need for a `dp_group_id` of each batch.
    """

    def __init__(
        self,
        controller_info: Mapping[str, Any],
        data_fields: Sequence[str],
        batch_size: int,
        task_name: str,
        *,
        global_step: int | None = None,
        steps: int | None = None,
        get_n_samples: bool = False,
        sampler_params: SamplerParams | None = None,
        lease_s: float = 60.0,
        timeout_s: float = 300.0,
        client_id: str = "loader",
    ) -> None:
        if steps is not None and steps < 0:
            raise ConfigurationError(f"QueueDataset: steps={steps} is negative; it counts batches")
        self.controller_info, self.data_fields = dict(controller_info), list(data_fields)
        self.batch_size, self.task_name = batch_size, task_name
        self.global_step, self.steps, self.get_n_samples = global_step, steps, get_n_samples
        self.sampler_params, self.lease_s, self.timeout_s = sampler_params, lease_s, timeout_s
        self.client_id = client_id
        self.ties: Ties | None = None

    def __iter__(self) -> Iterator[Batch]:
        """In this process: each batch is acknowledged when the next is asked for. In a worker: the parent does it."""
        worker = get_worker_info()
        if worker is not None:
            return self._in_worker(worker.id, worker.num_workers)
        return self.in_loop()

    def params(self, number: int) -> Mapping[str, Any] | None:
        """The sampler parameters of the batch of that number."""
        return self.sampler_params(number) if callable(self.sampler_params) else self.sampler_params

    def connect(self, name: str) -> TransferQueueClient:
        return TransferQueueClient(name, self.controller_info)

    def in_loop(self) -> Generator[Batch, None, None]:
        with self.connect(self.client_id) as client:
            for batch in self._fetched(client, 0, 1, WayOut()):
                yield from used(batch)

    def _in_worker(self, worker: int, workers: int) -> Iterator[Any]:
        way_out = WayOut()
        if self.ties is not None:
            threading.Thread(target=way_out.watch, args=(self.ties.leave, os.getppid()), daemon=True).start()
        with self.connect(f"{self.client_id}.{worker}") as client:
            try:
                for batch in self._fetched(client, worker, workers, way_out):
                    batch.held_by(None)
                    yield batch
            except TransferQueueError as error:
                yield Failure(type(error).__name__, str(error), error.details)

    def _fetched(self, client: TransferQueueClient, number: int, stride: int, way_out: WayOut) -> Iterator[Batch]:
        size = self.batch_size
        while (self.steps is None or number < self.steps) and way_out.begins_to_ask():
            try:
                meta = self._take(client, number, size)
            except StepClearedError:
                return
            except ExhaustedError as error:
                size = self._rest(error, number)
                if not size:
                    return
                continue
            if self.ties is not None:
                self.ties.report.send_bytes(LEASE.pack(meta.lease))
            way_out.has_reported()
            yield Batch(meta, client.get_data(meta), client)
            number += stride

    def _take(self, client: TransferQueueClient, number: int, size: int) -> BatchMeta:
        return client.get_meta(
            self.data_fields, size, self.global_step, self.task_name, self.get_n_samples, self.params(number),
            lease_s=self.lease_s, timeout_s=self.timeout_s,
        )  # fmt: skip

    def _rest(self, error: ExhaustedError, number: int) -> int:
        """How many rows each rank can still get of the step; the error itself where there is no step to use up."""
        if self.global_step is None:
            raise error
        ranks = (self.params(number) or {}).get("dp_size") or 1
        return int(error.details.get("possible", 0)) // int(ranks)


def used(batch: Batch, give_back: Callable[[Batch], None] = Batch.give_back) -> Generator[Batch, None, None]:
    """Hand the batch to the loop, acknowledge it when the loop asks for more, give it back where it does not."""
    try:
        yield batch
        batch.ack()
    except GeneratorExit:
        give_back(batch)
        raise
