"""Settings of the learning algorithm; plain data, no torch."""

import math
from dataclasses import dataclass

from twinkle.choices import one_of
from twinkle.errors import ConfigError

ADVANTAGES = ("grpo", "dr_grpo", "rloo")
AGGREGATIONS = ("sequence_mean", "token_mean", "constant_length")
CONTROLS = ("none", "shuffled", "flipped")


@dataclass(frozen=True)
class AlgoConfig:
    """What is maximised.

    Attributes:
        advantage: how rewards of a group become advantages: grpo, dr_grpo or rloo.
        std_eps: added to the group's standard deviation (grpo only).
        aggregation: how token losses become one number: sequence_mean, token_mean or constant_length.
        constant_length: tokens by which the aggregation of that name divides: the longest response that is sampled.
        clip_low, clip_high: the probability ratio earns nothing outside of [1 - clip_low, 1 + clip_high].
        kl_coef: weight of the k3 divergence to the model as it was before training; 0 needs no reference model.
        updates_per_step: optimizer steps on one batch, the old log-probs staying as they were.
        control: an experiment that must not learn: ``shuffled`` deals the advantages out at random, ``flipped``
            negates them. Never a way to train.
    """

    advantage: str = "grpo"
    std_eps: float = 1e-4
    aggregation: str = "sequence_mean"
    constant_length: int = 0
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coef: float = 0.0
    updates_per_step: int = 1
    control: str = "none"

    def validate(self) -> None:
        """Raise ConfigError for the first setting that cannot work."""
        one_of("algo.advantage", self.advantage, ADVANTAGES)
        one_of("algo.aggregation", self.aggregation, AGGREGATIONS)
        one_of("algo.control", self.control, CONTROLS)
        if not 0 < self.clip_low <= 1:
            raise ConfigError(f"algo.clip_low={self.clip_low} must be above 0 and at most 1, for example 0.2.")
        for name, example in (("clip_high", "0.2"), ("std_eps", "1e-4")):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(
                    f"algo.{name}={getattr(self, name)} must be a positive number, for example {example}."
                )
        if not 0 <= self.kl_coef < math.inf:
            raise ConfigError(f"algo.kl_coef={self.kl_coef} must be 0 (no reference model) or a positive number.")
        if self.updates_per_step < 1:
            raise ConfigError(f"algo.updates_per_step={self.updates_per_step} must be at least 1.")
        if self.aggregation == "constant_length" and self.constant_length < 1:
            raise ConfigError(
                f"algo.constant_length={self.constant_length}, but algo.aggregation=constant_length divides by it: "
                "set it to sampler.max_tokens."
            )
