"""Task ``train``: whole groups become one optimizer step."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transfer_queue import BatchMeta
from twinkle.data.base import prompt_text
from twinkle.infra import remote_function
from twinkle.loop.config import QueueConfig
from twinkle.loop.payload import Version, WeightPayload
from twinkle.loop.queue_time import TimedClient
from twinkle.loop.sharing import first_rank
from twinkle.loop.step_rows import PreparedRow, PreparedSlice
from twinkle.loop.weight_sync import Probe
from twinkle.model.policy import Policy, TrainBatch, TrainStats, make_batch
from twinkle.rl.config import AlgoConfig

TRAIN_FIELDS = ["sample_id", "prompt_ids", "response_ids", "sampler_logprobs", "version", "fingerprint", "reward"]
SHOWN_FIELDS = ["sample_id", "prompt", "response", "answer", "stop_reason", "reward"]
STATE_S = 600.0
"""How long the state may take: a rank that hangs must not keep a run from ending."""


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


@dataclass
class Trainer:
    """Fetches the rows of a step by data-parallel slices and trains on them: one rank, or all of them in turns.

    A step is ``prepare``, ``compute`` and ``update``, in this order; until ``update`` the parameters stay as they are.

    Attributes:
        dp_size: ranks that share a step.
        ranks: those whose slices are fetched here.
        samples_every, samples_kept: of every so many steps, so many rows are shown in ``samples.jsonl``.
    """

    client: TimedClient
    policy: Policy
    algo: AlgoConfig
    temperature: float
    dp_size: int
    ranks: range
    samples_every: int
    samples_kept: int
    queue: QueueConfig
    _metas: list[BatchMeta] = field(default_factory=list)
    _rows: list[TrainRow] = field(default_factory=list)
    _batch: TrainBatch | None = None

    @remote_function(dispatch=first_rank)
    def export(self, version: Version) -> WeightPayload:
        """Copies of the policy's weights as ``version``."""
        weights = self.policy.export_weights()
        return WeightPayload.of(version, weights.tensors, weights.adapter_config)

    @remote_function(collect="flatten")
    def prepare(self, step: int, count: int) -> list[PreparedSlice]:
        """Fetch this process's part of the ``count`` rows of partition ``step``, and say what they are.

        Rows are sorted by sample id, so that neither the order in which they were finished nor the slices matter.
        """
        slices = [self._get(step, count // self.dp_size, rank) for rank in self.ranks]
        self._metas = [meta for meta, _ in slices]
        self._rows = sorted((row for _, data in slices for row in _rows(data)), key=lambda row: row.sample_id)
        self._batch = make_batch(
            [row.prompt_ids for row in self._rows],
            [row.response_ids for row in self._rows],
            [row.sampler_logprobs for row in self._rows],
            [0.0] * len(self._rows),
        )
        gaps = self._gaps(self._batch)
        rows = [
            PreparedRow(row.sample_id, row.reward, len(row.response_ids), row.version, row.fingerprint, gap)
            for row, gap in zip(self._rows, gaps, strict=True)
        ]
        return [PreparedSlice(rows, self._samples(step, self._metas[0]) if 0 in self.ranks else [])]

    @remote_function
    def compute(self, advantages: Mapping[int, float]) -> None:
        """The gradient of the prepared rows, with the advantage of each sample id; no parameter moves."""
        assert self._batch is not None, "prepare comes first"
        advantages_B = torch.tensor([advantages[row.sample_id] for row in self._rows])
        self.policy.begin_step(replace(self._batch, advantages_B=advantages_B), self.algo, self.temperature)

    @remote_function
    def update(self) -> TrainStats:
        """The optimizer step, and the rows are consumed."""
        stats = self.policy.finish_step()
        for meta in self._metas:
            self.client.ack(meta)
        self._batch, self._rows, self._metas = None, [], []
        return stats

    @remote_function(dispatch=first_rank)
    def probe_gaps(self, probes: list[Probe]) -> list[float]:
        """Largest |sampler - trainer| log-prob of each probe, in nats."""
        batch = make_batch(
            [probe.prompt_ids for probe in probes],
            [probe.tokens for probe in probes],
            [probe.logprobs for probe in probes],
            [0.0] * len(probes),
        )
        return self._gaps(batch)

    @remote_function(dispatch=first_rank, urgent=True, timeout_s=STATE_S)
    def state_dict(self) -> dict[str, Any]:
        """Trained parameters and optimizer state; see Policy.state_dict. May be called while ``prepare`` or ``compute``
        run, which leave both as they are, so that a run that has to end need not wait for them."""
        return self.policy.state_dict()

    @remote_function
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state; see Policy.load_state_dict."""
        self.policy.load_state_dict(state)

    @remote_function(dispatch=first_rank)
    def pretrained(self) -> dict[str, bytes]:
        """The files of Policy.save_pretrained by name: the run's folder may be on another machine."""
        with tempfile.TemporaryDirectory() as folder:
            self.policy.save_pretrained(folder)
            return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}

    @property
    @remote_function
    def sizes(self) -> tuple[int, int]:
        """Parameters of the model, and those of them that are trained."""
        return self.policy.num_parameters, self.policy.num_trainable

    @property
    @remote_function(collect="mean")
    def queue_seconds(self) -> float:
        """Wall time inside calls of the queue so far."""
        return self.client.seconds

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

    def _gaps(self, batch: TrainBatch) -> list[float]:
        """Of each row, the largest gap between the sampler's log-probs and those of an uncached padded forward pass."""
        ours_BT = self.policy.token_logprobs(batch, self.temperature)
        gaps: list[float] = (ours_BT - batch.old_logprobs_BT).abs().amax(1).tolist()
        return gaps


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
