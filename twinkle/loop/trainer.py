"""Task ``train``: whole groups become one optimizer step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from transfer_queue import BatchMeta, TransferQueueClient
from twinkle.errors import WeightSyncError
from twinkle.loop.weight_sync import PolicySampler, PublishedVersions, Version, WeightPayload
from twinkle.model.policy import Policy, TrainBatch, TrainStats
from twinkle.rl.config import AlgoConfig

TRAIN_FIELDS = [
    "sample_id", "prompt", "prompt_ids", "response", "response_ids", "sampler_logprobs", "version", "fingerprint", "reward",
]  # fmt: skip


@dataclass(frozen=True)
class TrainRow:
    """One sample as the trainer fetched it."""

    sample_id: int
    prompt: str | list[dict[str, str]]
    response: str
    prompt_ids: torch.Tensor
    response_ids: torch.Tensor
    sampler_logprobs: torch.Tensor
    version: Version
    fingerprint: str
    reward: float


@dataclass
class Trainer:
    """Fetches the rows of a step by data-parallel slices, refuses what it did not publish, and trains on the rest.

    Attributes:
        dp_size: ranks of the mesh; here they take turns, each fetching its own slice.
        logp_tolerance: largest |sampler - trainer| log-prob that still counts as the same weights.
    """

    client: TransferQueueClient
    policy: Policy
    algo: AlgoConfig
    temperature: float
    samples_per_prompt: int
    dp_size: int
    logp_tolerance: float
    lease_s: float
    timeout_s: float

    def __post_init__(self) -> None:
        self.published = PublishedVersions()

    def fetch(self, step: int, rows: int) -> tuple[list[BatchMeta], list[TrainRow]]:
        """The rows of partition ``step``, sorted by sample id, whatever order they were finished in."""
        metas = [self._get_meta(step, rows // self.dp_size, rank) for rank in range(self.dp_size)]
        fetched = [row for meta in metas for row in _rows(self.client.get_data(meta))]
        return metas, sorted(fetched, key=lambda row: row.sample_id)

    def _get_meta(self, step: int, batch_size: int, rank: int) -> BatchMeta:
        return self.client.get_meta(
            TRAIN_FIELDS,
            batch_size=batch_size,
            global_step=step,
            task_name="train",
            get_n_samples=True,
            sampler_params={"dp_rank": rank, "dp_size": self.dp_size, "dp_group_id": f"step-{step}"},
            lease_s=self.lease_s,
            timeout_s=self.timeout_s,
        )
