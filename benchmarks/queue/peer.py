"""TransferQueue 0.1.11 behind the same adapter, with the settings that its documents give for speed.

TQ_NUM_THREADS=1 suits two cores best; polling mode, because a fetch that waits stops its controller for five seconds;
two storage units, its default; consumers attach without Ray, by the addresses in its configuration.
"""

from __future__ import annotations

import os
import pickle
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import ray
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict

import transfer_queue as tq

POLL_S = 0.001
PROMISED_CPUS = 8
"""Its three actors and Ray's own ask for one each; on two cores they would wait for ever."""


class Peer:
    """One process's view of the peer."""

    gives_back = False

    def __init__(self) -> None:
        self.client: Any = None
        self.info: Any = None
        self.started: dict[str, float] = {}

    def start(self, **_: Any) -> Any:
        """Start Ray and the queue; it has no capacity to be told."""
        began = _start_ray()
        between = time.perf_counter()
        config = tq.init(OmegaConf.create({"controller": {"polling_mode": True}}))
        self.started = {"ray_s": between - began, "start_s": time.perf_counter() - between}
        self.attach(b64encode(pickle.dumps(config)).decode())
        return self.info

    def attach(self, info: Any) -> None:
        """A new client, whatever was there before."""
        self.detach()
        self.info = info
        config = pickle.loads(b64decode(info))
        self.client = tq.TransferQueueClient(f"bench-{os.getpid()}-{time.monotonic_ns()}", config.controller.zmq_info)
        backend = config.backend.storage_backend
        self.client.initialize_storage_manager(backend, config.backend[backend])

    def detach(self) -> None:
        """Close this process's client."""
        if self.client is not None:
            self.client.close()
            self.client = None

    def stop(self) -> None:
        """End the queue and Ray."""
        self.detach()
        tq.close()
        ray.shutdown()

    def use_sampler(self, name: str, samples: int) -> None:
        """All tasks share one sampler here."""
        made = tq.GRPOGroupNSampler(samples) if name == "GRPOSampler" else tq.SequentialSampler()
        actor = ray.get_actor("TransferQueueController", namespace="transfer_queue")
        ray.get(actor.register_sampler.remote(made))

    def prepared(self, columns: Mapping[str, torch.Tensor]) -> TensorDict:
        """Columns as `put` takes them; not timed."""
        return TensorDict(dict(columns), batch_size=len(next(iter(columns.values()))))

    def put(self, data: TensorDict, step: int) -> Any:
        """New rows."""
        return self.client.put(data, partition_id=f"step{step}")

    def fill(self, meta: Any, data: TensorDict) -> None:
        """More fields of rows."""
        self.client.put(data, metadata=meta)

    def pick(self, meta: Any, places: Sequence[int]) -> Any:
        """The rows at these places of `meta`, in this order."""
        return meta.select_samples(list(places))

    def get_meta(
        self, fields: list[str], batch: int, step: int, task: str, rank: tuple[int, int, str] | None = None
    ) -> Any:
        """A batch, polled for; it is consumed at once. `rank` is (dp_rank, dp_size, name of the batch)."""
        config = {} if rank is None else {"dp_rank": rank[0], "batch_index": rank[2]}
        while True:
            meta = self.client.get_meta(fields, batch, f"step{step}", task_name=task, sampling_config=config)
            if len(meta):
                return meta
            time.sleep(POLL_S)

    def get_data(self, meta: Any) -> Any:
        """The values of these rows."""
        return self.client.get_data(meta)

    def done(self, meta: Any) -> None:
        """Nothing to say: rows are consumed when they are fetched."""

    def give_back(self, metas: Sequence[Any]) -> None:
        """Not possible: the next round asks for another task."""

    def take_tenth(self, fields: list[str], rows: int, step: int, task: str) -> None:
        """Consume a tenth of the rows, which is what it has for leasing them."""
        self.get_meta(fields, rows // 10 // 8 * 8, step, task)

    def clear(self, step: int) -> None:
        """Free the rows of the step."""
        self.client.clear_partition(f"step{step}")


def _start_ray() -> float:
    """Start Ray and give the moment when that began; it gives up after 30 s, which a busy machine can need."""
    for last in (False, False, True):
        began = time.perf_counter()
        try:
            ray.init(
                address="local",
                num_cpus=PROMISED_CPUS,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except Exception:  # it raises nothing narrower
            if last:
                raise
            ray.shutdown()
        else:
            break
    return began
