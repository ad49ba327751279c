"""What a training step is begun with, what it was like, and the weights that come of it."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from twinkle.model.batch import TrainBatch
from twinkle.rl.config import AlgoConfig


@dataclass(frozen=True)
class TrainStats:
    """What a training step was like; with several updates per step, the mean over them.

    Attributes:
        loss: the minimised number, divergence included.
        grad_norm: 2-norm of the gradient before clipping.
        kl: k3 estimate of KL(policy || reference) in nats per token; 0 when `algo.kl_coef` is 0 and there is no
            reference.
        kl_old: the same against the policy that sampled.
        clip_fraction: part of the response tokens whose gradient was cut off by a bound of the ratio.
        entropy: minus the mean log-prob of the sampled tokens: an estimate of the entropy in nats per token.
        tokens: response tokens trained on, in one update.
    """

    loss: float
    grad_norm: float
    kl: float
    kl_old: float
    clip_fraction: float
    entropy: float
    tokens: int


@dataclass(frozen=True)
class WeightExport:
    """Copies of the trained weights: an adapter's tensors with its PEFT configuration, or all weights and None."""

    tensors: dict[str, Tensor]
    adapter_config: dict[str, Any] | None


@dataclass(frozen=True)
class BegunStep:
    """A step whose first gradient is there."""

    batch: TrainBatch
    algo: AlgoConfig
    temperature: float
    figures: dict[str, float]
