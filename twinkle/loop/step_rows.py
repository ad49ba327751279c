"""The rows of one step as the driver sees them: where they come from, what they are worth, and the step's figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from twinkle.errors import WeightSyncError
from twinkle.loop.payload import Version
from twinkle.loop.weight_sync import PublishedVersions, badness
from twinkle.rl.advantage import advantages
from twinkle.rl.config import AlgoConfig


@dataclass(frozen=True)
class PreparedRow:
    """A sample that a trainer rank has fetched; ``logp_gap`` is the largest |sampler - trainer| log-prob, in nats."""

    sample_id: int
    reward: float
    response_length: int
    version: Version
    fingerprint: str
    logp_gap: float


@dataclass(frozen=True)
class PreparedSlice:
    """What one trainer rank has fetched; ``samples`` is what ``samples.jsonl`` keeps of the step, at one rank."""

    rows: Sequence[PreparedRow]
    samples: list[dict[str, Any]]


class StepRows:
    """All rows of a step, in the order of their sample ids."""

    def __init__(self, slices: Sequence[PreparedSlice]):
        self.rows = sorted((row for each in slices for row in each.rows), key=lambda row: row.sample_id)
        self.samples = [sample for each in slices for sample in each.samples]
        self._rewards_B = torch.tensor([row.reward for row in self.rows])

    @property
    def tokens(self) -> int:
        """Tokens of all responses."""
        return sum(row.response_length for row in self.rows)

    def check(self, published: PublishedVersions, tolerance: float, newest: Version) -> None:
        """Raise WeightSyncError for a row of weights that were never published or are not the ``newest``, or whose
        log-probs are not those of the weights that it names."""
        for row in self.rows:
            published.check(row.version, row.fingerprint, sample_id=row.sample_id)
            if row.version != newest:
                raise WeightSyncError(
                    f"Sample {row.sample_id} was made by version {row.version}, but this step trains on samples of "
                    f"{newest} alone: its sampler missed a weight sync."
                )
        worst = max(self.rows, key=lambda row: badness(row.logp_gap))
        if not worst.logp_gap <= tolerance:
            raise WeightSyncError(
                f"Sample {worst.sample_id} of version {worst.version}: the sampler's log-probs differ from the "
                f"trainer's by {worst.logp_gap:.2g}, more than loop.logp_tolerance={tolerance:g}: the sampler does not "
                "hold the weights that it says it does."
            )

    def advantages(self, algo: AlgoConfig, samples_per_prompt: int, *, seed: int, step: int) -> dict[int, float]:
        """The advantage of each sample id, from the rewards of the whole step."""
        groups_B = torch.tensor([row.sample_id // samples_per_prompt for row in self.rows])
        advantages_B = advantages(algo, self._rewards_B, groups_B, seed=seed, step=step)
        return dict(zip((row.sample_id for row in self.rows), advantages_B.tolist(), strict=True))

    def figures(self, step: int) -> dict[str, float]:
        """What is known of the step before the optimizer moves."""
        return {
            "reward_mean": float(self._rewards_B.mean()),
            "reward_std": float(self._rewards_B.std(correction=0)),
            "response_length_mean": self.tokens / len(self.rows),
            "staleness_max": max(step - 1 - row.version.step for row in self.rows),
            "logp_diff_max": max(row.logp_gap for row in self.rows),
        }
