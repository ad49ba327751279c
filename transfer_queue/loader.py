"""`StreamingDataLoader`: the rows of a task as batches for a training loop, fetched ahead by workers, each acked once.

    dataset = QueueDataset(controller.get_info(), ["prompt", "response"], 8, "train", steps=100)
    for batch in StreamingDataLoader(dataset, num_workers=2):
        train(batch["response"])

Every row is under a lease until it has been used: a batch is acknowledged when the next one is asked for, or before
with `batch.ack()`; when the loop ends early, what was fetched and not used goes back to the task, and what a worker
that died had fetched does so too, by the release of its leases or at the latest when they expire.

Workers fetch and decode; they tell this process the leases they hold through a pipe, in messages so short that a kill
cannot tear one. This process alone acknowledges and releases.
"""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import weakref
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any

from torch.utils.data import DataLoader

from transfer_queue.client import TransferQueueClient
from transfer_queue.errors import ConfigurationError, LeaseError, rebuild
from transfer_queue.ledger.request import DP_KEYS
from transfer_queue.loader_workers import Failure, Held, Ties
from transfer_queue.queue_dataset import Batch, QueueDataset, used

log = logging.getLogger(__name__)


class StreamingDataLoader:
    """Batches of a `QueueDataset`, fetched ahead by `num_workers` processes, `prefetch_factor` batches by each.

    Batches come in the order in which they are ready. Safe under fork and spawn: each worker has a client of its own.
    A lease begins when its batch is fetched and starts anew when the loop gets it, so `lease_s` must cover the time
    that a batch waits, and the time that the loop needs for one; a batch whose lease ran out while it waited is passed
    over, for its rows went back to the task. Use it in a `with` block, or close it, where the loop may end early.
    """

    def __init__(
        self,
        dataset: QueueDataset,
        *,
        num_workers: int = 0,
        prefetch_factor: int = 2,
        multiprocessing_context: str | None = None,
    ) -> None:
        params = dataset.params(0) or {}
        if num_workers > 1 and any(key in params for key in DP_KEYS):
            raise ConfigurationError(
                f"num_workers={num_workers} would hand DP groups to the loop in another order on each rank: use "
                "num_workers=1 with dp_rank, dp_size and dp_group_id"
            )
        self.dataset, self.num_workers, self.prefetch_factor = dataset, num_workers, prefetch_factor
        self._context = multiprocessing.get_context(multiprocessing_context)
        self._running: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()

    def __iter__(self) -> Iterator[Batch]:
        stream = self._streamed() if self.num_workers else self.dataset.in_loop()
        self._running.add(stream)
        return stream

    def __enter__(self) -> StreamingDataLoader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every iteration that is under way, and give back what it holds; may be called twice."""
        for stream in list(self._running):
            stream.close()

    def _streamed(self) -> Generator[Batch, None, None]:
        reader, writer = self._context.Pipe(duplex=False)
        told, leave = self._context.Pipe(duplex=False)
        dataset = copy.copy(self.dataset)
        dataset.ties = Ties(writer, told)
        others = multiprocessing.active_children()
        workers: Any = iter(
            DataLoader(
                dataset, batch_size=None, num_workers=self.num_workers, prefetch_factor=self.prefetch_factor,
                multiprocessing_context=self._context, collate_fn=_as_it_is, in_order=False,
            )
        )  # fmt: skip
        writer.close()
        held = Held(reader, [each for each in multiprocessing.active_children() if each not in others])
        with dataset.connect(dataset.client_id) as client:  # after the workers were forked: they inherit no connection
            try:
                for item in _arriving(workers):
                    if isinstance(item, Failure):
                        raise rebuild(*item)
                    batch = _renewed(item, client, dataset.lease_s)
                    if batch is not None:
                        yield from used(batch, Batch.is_left)
                    held.over(item.meta)
            finally:
                os.write(leave.fileno(), bytes(self.num_workers))
                held.release(client)
                for end in (reader, told, leave):
                    end.close()


def _renewed(batch: Batch, client: TransferQueueClient, lease_s: float) -> Batch | None:
    """The batch with its lease begun anew, or None where that ran out while the batch waited."""
    try:
        client.extend(batch.meta, lease_s)
    except LeaseError as error:
        log.warning("a batch waited longer for the loop than lease_s=%g allows and is passed over: %s", lease_s, error)
        return None
    return batch.held_by(client)


def _arriving(workers: Iterator[Any]) -> Iterator[Any]:
    """What workers send. A batch whose tensors were with a worker that died is the same error as torch's own for it."""
    try:
        yield from workers
    except (ConnectionError, EOFError) as error:
        raise RuntimeError("DataLoader worker exited unexpectedly while a batch of it was on the way") from error


def _as_it_is(item: Any) -> Any:
    return item
