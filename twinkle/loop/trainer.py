"""Task ``train``: whole groups become one optimizer step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from transfer_queue import BatchMeta, TransferQueueClient
from twinkle.data.base import prompt_text
from twinkle.errors import WeightSyncError
from twinkle.loop.config import QueueConfig
from twinkle.loop.weight_sync import PublishedVersions, Version, WeightPayload
from twinkle.model.policy import Policy, TrainBatch, make_batch
from twinkle.rl.advantage import advantages
from twinkle.rl.config import AlgoConfig

TRAIN_FIELDS = ["sample_id", "prompt_ids", "response_ids", "sampler_logprobs", "version", "fingerprint", "reward"]
SHOWN_FIELDS = ["sample_id", "prompt", "response", "answer", "stop_reason", "reward"]


@dataclass(frozen=True)
class TrainRow:
    """One sample as the trainer fetched it; its fields are those of the queue."""

    sample_id: int
    prompt_ids: Tensor | list[int]
    response_ids: Tensor | list[int]
    sampler_logprobs: Tensor | list[float]
    version: Version
    fingerprint: str
    reward: float


@dataclass(frozen=True)
class PreparedStep:
    """Everything about a step that is known before the optimizer moves; ``samples`` is what ``samples.jsonl`` keeps."""

    step: int
    metas: list[BatchMeta]
    batch: TrainBatch
    samples: list[dict[str, Any]]
    figures: dict[str, float]


@dataclass
class Trainer:
    """Fetches the rows of a step by data-parallel slices, refuses what it did not publish, and trains on the rest.

    Attributes:
        dp_size: ranks of the mesh; here they take turns, each fetching its own slice.
        logp_tolerance: largest |sampler - trainer| log-prob, in nats, that still counts as the same weights.
        seed: of the negative controls.
        samples_every, samples_kept: of every so many steps, so many rows are shown in ``samples.jsonl``.
    """

    client: TransferQueueClient
    policy: Policy
    algo: AlgoConfig
    temperature: float
    samples_per_prompt: int
    dp_size: int
    logp_tolerance: float
    seed: int
    samples_every: int
    samples_kept: int
    queue: QueueConfig
    published: PublishedVersions = field(default_factory=PublishedVersions)

    def export(self, version: Version) -> WeightPayload:
        """Copies of the policy's weights as ``version``."""
        weights = self.policy.export_weights()
        return WeightPayload(version, weights.tensors, weights.adapter_config)

    def prepare(self, step: int, count: int) -> PreparedStep:
        """Fetch ``count`` rows of partition ``step``, check where they come from, and make a batch of them.

        Rows are sorted by sample id, so that neither the order in which they were finished nor the slices matter.

        Raises:
            WeightSyncError: a row was made by weights that this trainer never published, or its log-probs are not those
                of the weights here.
        """
        slices = [self._get(step, count // self.dp_size, rank) for rank in range(self.dp_size)]
        metas = [meta for meta, _ in slices]
        rows = sorted((row for _, data in slices for row in _rows(data)), key=lambda row: row.sample_id)
        for row in rows:
            self.published.check(row.version, row.fingerprint, sample_id=row.sample_id)
        rewards_B = torch.tensor([row.reward for row in rows])
        groups_B = torch.tensor([row.sample_id // self.samples_per_prompt for row in rows])
        batch = make_batch(
            [row.prompt_ids for row in rows],
            [row.response_ids for row in rows],
            [row.sampler_logprobs for row in rows],
            advantages(self.algo, rewards_B, groups_B, seed=self.seed, step=step),
        )
        figures = {
            "reward_mean": float(rewards_B.mean()),
            "reward_std": float(rewards_B.std(correction=0)),
            "response_length_mean": sum(len(row.response_ids) for row in rows) / len(rows),
            "staleness_max": max(step - 1 - row.version.step for row in rows),
            "logp_diff_max": self._compare(batch, rows),
        }
        return PreparedStep(step, metas, batch, self._samples(step, metas[0]), figures)

    def train(self, prepared: PreparedStep, *, before_change: Callable[[], None]) -> dict[str, float]:
        """The optimizer step, and the rows are consumed; returns the figures of the step. ``before_change`` is called
        right before the parameters move."""
        stats = self.policy.train_step(prepared.batch, self.algo, self.temperature, before_change=before_change)
        for meta in prepared.metas:
            self.client.ack(meta)
        trained = {name: value for name, value in vars(stats).items() if name != "tokens"}
        return {**prepared.figures, **trained}

    def _get(self, step: int, batch_size: int, rank: int) -> tuple[BatchMeta, Any]:
        return self.client.get(
            TRAIN_FIELDS,
            batch_size=batch_size,
            global_step=step,
            task_name="train",
            get_n_samples=True,
            sampler_params={"dp_rank": rank, "dp_size": self.dp_size, "dp_group_id": f"step-{step}"},
            lease_s=self.queue.lease_s,
            timeout_s=self.queue.timeout_s,
            plain=True,
        )

    def _samples(self, step: int, meta: BatchMeta) -> list[dict[str, Any]]:
        """Some of the rows, as a person reads them."""
        if not self.samples_every or step % self.samples_every or not self.samples_kept:
            return []
        data = self.client.get_data(meta.first(self.samples_kept), SHOWN_FIELDS, plain=True)
        columns = {name: list(_items(data[name])) for name in SHOWN_FIELDS}
        columns["prompt"] = [prompt_text(prompt) for prompt in columns["prompt"]]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _compare(self, batch: TrainBatch, rows: list[TrainRow]) -> float:
        """Largest gap between the sampler's cached log-probs and those of an uncached padded forward pass here."""
        ours_BT = self.policy.token_logprobs(batch, self.temperature)
        gap_B = (ours_BT - batch.old_logprobs_BT).abs().amax(1)
        worst = int(gap_B.argmax())
        if not gap_B[worst] <= self.logp_tolerance:
            raise WeightSyncError(
                f"Sample {rows[worst].sample_id} of version {rows[worst].version}: the sampler's log-probs differ from "
                f"the trainer's by {float(gap_B[worst]):.2g}, more than loop.logp_tolerance={self.logp_tolerance:g}: "
                "the sampler does not hold the weights that it says it does."
            )
        return float(gap_B[worst])


def _rows(data: Any) -> list[TrainRow]:
    """The rows of one fetched slice."""
    columns = {name: list(_items(data[name])) for name in TRAIN_FIELDS}
    columns["version"] = [Version(*version) for version in columns["version"]]
    return [TrainRow(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def _items(column: Any) -> Any:
    """A column row by row: ragged ones as tensors, dense ones of numbers as numbers, others as they are."""
    if not isinstance(column, Tensor):
        return column
    return column.unbind() if column.is_nested else column.tolist()
