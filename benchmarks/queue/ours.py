"""Our queue behind the adapter that the work is written against; only its public API is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import tensordict  # noqa: F401 - what get_data returns; loaded here so that no measurement contains its import
import torch

from benchmarks.queue.system import NotThere
from transfer_queue import BatchMeta, GRPOSampler, SequentialSampler, TransferQueueClient, TransferQueueController
from transfer_queue.options import Options

LEASE_S = 600.0


class Ours:
    """One process's view of our queue. Rows are always leased and acknowledged, which the peer cannot do."""

    gives_back = True

    def __init__(self) -> None:
        self.controller: Any = None
        self.client: Any = None
        self.info: Mapping[str, Any] = {}

    def start(
        self,
        rows: int,
        partitions: int = 2,
        samples: int = 1,
        samplers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Any:
        """Start a controller for `partitions` steps of `rows` rows and give what `attach` needs."""
        require(options)
        self.controller = TransferQueueController.start(
            global_batch_size=rows // samples,
            num_global_batch=partitions,
            num_n_samples=samples,
            task_samplers={task: _sampler(name, samples) for task, name in (samplers or {}).items()},
            **options,
        )
        self.attach(self.controller.get_info())
        return self.info

    def attach(self, info: Any) -> None:
        """A new client, whatever was there before."""
        self.detach()
        self.info = info
        self.client = self.another()

    def another(self) -> TransferQueueClient:
        """One more client of the same queue."""
        return TransferQueueClient("bench", self.info)

    def detach(self) -> None:
        """Close this process's client."""
        if self.client is not None:
            self.client.close()
            self.client = None

    def stop(self) -> None:
        """End the queue."""
        self.detach()
        if self.controller is not None:
            self.controller.stop()
            self.controller = None

    def use_sampler(self, name: str, samples: int) -> None:
        """Nothing to do: tasks have samplers of their own here, given at the start."""

    def prepared(self, columns: Mapping[str, torch.Tensor]) -> Any:
        """Columns as `put` takes them; not timed."""
        return dict(columns)

    def put(self, data: Any, step: int) -> BatchMeta:
        """New rows."""
        return self.client.put(data, global_step=step)

    def fill(self, meta: BatchMeta, data: Any) -> None:
        """More fields of rows."""
        self.client.put(data, metadata=meta)

    def pick(self, meta: BatchMeta, places: Sequence[int]) -> BatchMeta:
        """The rows at these places of `meta`, in this order."""
        parallel = {
            name: [getattr(meta, name)[place] for place in places]
            for name in ("global_indexes", "global_steps", "group_ids")
        }
        return msgspec.structs.replace(meta, **parallel)

    def get_meta(
        self, fields: list[str], batch: int, step: int, task: str, rank: tuple[int, int, str] | None = None
    ) -> BatchMeta:
        """A leased batch, waited for; `rank` is (dp_rank, dp_size, name of the reservation)."""
        params = None if rank is None else {"dp_rank": rank[0], "dp_size": rank[1], "dp_group_id": rank[2]}
        return self.client.get_meta(fields, batch, step, task, sampler_params=params, lease_s=LEASE_S)

    def get_data(self, meta: BatchMeta) -> Any:
        """The values of these rows."""
        return self.client.get_data(meta)

    def done(self, meta: BatchMeta) -> None:
        """The rows are consumed."""
        self.client.ack(meta)

    def give_back(self, metas: Sequence[BatchMeta]) -> None:
        """The rows go back to the task, so that it can be asked again."""
        for lease in {meta.lease: meta for meta in metas}.values():
            self.client.release(lease)

    def take_tenth(self, fields: list[str], rows: int, step: int, task: str) -> None:
        """Lease a tenth of the rows for good, scattered: a fifth is leased in lots and every other lot given back."""
        lot = max(8, rows // 5 // 256 // 8 * 8)
        lots = [self.get_meta(fields, lot, step, task) for _ in range(rows // 5 // lot)]
        self.give_back(lots[::2])

    def clear(self, step: int) -> None:
        """Free the rows of the step, whatever leases there are."""
        self.client.clear(step, force=True)


def _sampler(name: str, samples: int) -> Any:
    return GRPOSampler(samples) if name == "GRPOSampler" else SequentialSampler()


def require(options: Mapping[str, Any]) -> None:
    """Raise `NotThere` for the options that this version of our queue does not have."""
    missing = [name for name in options if name not in Options.__annotations__]
    if missing:
        raise NotThere(f"TransferQueueController has no argument {', '.join(missing)}")
