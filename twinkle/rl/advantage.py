"""Advantages: how much better a sample did than the other samples of its prompt.

    grpo      A_i = (r_i - mean(r)) / (std(r) + eps)         Shao et al. 2024, DeepSeekMath, arXiv:2402.03300, eq. 21 f.
    dr_grpo   A_i = r_i - mean(r)                            Liu et al. 2025, Understanding R1-Zero, arXiv:2503.20783
    rloo      A_i = r_i - mean(r without i)                  Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740
                  = n / (n - 1) * (r_i - mean(r))

mean and std (of a sample: divisor n - 1) run over the n rows of one group whose weight is above 0. Rows of weight 0 are
padding: they get 0 and enter no baseline, whatever their reward is. A group whose rewards are all equal, a group of one
among them, gives exactly 0: rewards are read as float32 and summed in float64, so that their mean is exact.
"""

import torch
from torch import Tensor

from twinkle.errors import RewardError
from twinkle.rl.config import AlgoConfig


def group_advantages(
    kind: str, rewards_B: Tensor, group_ids_B: Tensor, weights_B: Tensor | None = None, *, std_eps: float = 1e-4
) -> Tensor:
    """Advantages [B] in float32 of rewards [B]; rows with the same integer in `group_ids_B` are one group, in any
    order.

    `kind` is grpo, dr_grpo or rloo. Raises RewardError for a reward of a live row that is not finite.
    """
    live_B = torch.ones_like(rewards_B, dtype=torch.bool) if weights_B is None else weights_B > 0
    _check_finite(rewards_B, live_B)
    rewards_B = torch.where(live_B, rewards_B.float().double(), 0.0)  # 24 bits in 53: sums of equal rewards are exact
    groups, group_B = torch.unique(group_ids_B, return_inverse=True)
    size_G = _sum_by_group(live_B.double(), group_B, len(groups))
    mean_G = _sum_by_group(rewards_B, group_B, len(groups)) / size_G.clamp(min=1)
    centred_B = torch.where(live_B, rewards_B - mean_G[group_B], 0.0)
    if kind == "grpo":
        variance_G = _sum_by_group(centred_B**2, group_B, len(groups)) / (size_G - 1).clamp(min=1)
        advantages_B = centred_B / (variance_G.sqrt()[group_B] + std_eps)
    elif kind == "dr_grpo":
        advantages_B = centred_B
    elif kind == "rloo":
        advantages_B = centred_B * (size_G / (size_G - 1).clamp(min=1))[group_B]
    else:
        raise ValueError(f"advantage {kind!r} is unknown; choose grpo, dr_grpo or rloo")
    return advantages_B.float()


def controlled_advantages(
    control: str, advantages_B: Tensor, weights_B: Tensor | None = None, *, seed: int, step: int
) -> Tensor:
    """Advantages for a negative control, an experiment that must not learn; ``none`` returns them as they are.

    ``shuffled`` deals them out at random among the rows of weight above 0, ``flipped`` negates them. The order is a
    function of (seed, step) alone, so that a resumed run repeats it; the global RNG is left as it was.
    """
    if control == "none":
        return advantages_B
    if control == "flipped":
        return -advantages_B
    if control != "shuffled":
        raise ValueError(f"control {control!r} is unknown; choose none, shuffled or flipped")
    live = torch.arange(len(advantages_B)) if weights_B is None else torch.nonzero(weights_B > 0)[:, 0]
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    shuffled_B = advantages_B.clone()
    shuffled_B[live] = advantages_B[live[torch.randperm(len(live), generator=generator)]]
    return shuffled_B


def advantages(
    algo: AlgoConfig, rewards_B: Tensor, group_ids_B: Tensor, weights_B: Tensor | None = None, *, seed: int, step: int
) -> Tensor:
    """Advantages [B] as the configuration wants them, its negative control included."""
    plain_B = group_advantages(algo.advantage, rewards_B, group_ids_B, weights_B, std_eps=algo.std_eps)
    return controlled_advantages(algo.control, plain_B, weights_B, seed=seed, step=step)


def _sum_by_group(values_B: Tensor, group_B: Tensor, groups: int) -> Tensor:
    return torch.zeros(groups, dtype=values_B.dtype).index_add_(0, group_B, values_B)


def _check_finite(rewards_B: Tensor, live_B: Tensor) -> None:
    bad = torch.nonzero(live_B & ~torch.isfinite(rewards_B))
    if len(bad):
        row = int(bad[0, 0])
        raise RewardError(f"the reward of row {row} is {float(rewards_B[row])}; every reward must be a finite number")
