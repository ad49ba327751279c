"""The policy loss and its normalisation.

Per token, with ratio = exp(logp - old_logp) and advantage A of the row (PPO, Schulman et al. 2017, arXiv:1707.06347,
eq. 7; two bounds as in DAPO, Yu et al. 2025, arXiv:2503.14476, eq. 10):

    loss = -min(ratio * A, clamp(ratio, 1 - low, 1 + high) * A)

plus kl_coef * k3 with k3 = exp(ref - logp) - (ref - logp) - 1, an unbiased and never negative estimate of
KL(policy || reference) from the policy's own samples (Schulman 2020, "Approximating KL divergence").

Aggregations over rows b of weight w_b with tokens t of the response (mask m_bt, length n_b):

    sequence_mean     sum_b w_b (sum_t m_bt loss_bt / n_b) / sum_b w_b      GRPO, arXiv:2402.03300, eq. 3
    token_mean        sum_bt w_b m_bt loss_bt / sum_bt w_b m_bt             DAPO, arXiv:2503.14476, eq. 8
    constant_length   sum_bt w_b m_bt loss_bt / (L sum_b w_b)               Dr. GRPO, arXiv:2503.20783

Each is a sum over tokens of `token_weights`, whose denominators belong to the whole step. So the losses of
micro-batches (or ranks) add up to the loss of the step, however its rows are cut, padded or ordered.
"""

import torch
from torch import Tensor


def token_weights(
    aggregation: str,
    response_mask_BT: Tensor,
    weights_B: Tensor,
    *,
    constant_length: int = 0,
    total: Tensor | None = None,
) -> Tensor:
    """What each token's loss counts for, [B, T] float32, computed once from the whole step: loss = (weights *
    loss_BT).sum().

    `response_mask_BT` is 1 on response tokens; `weights_B` is 0 for padding rows. A row without response tokens adds
    nothing but counts as a row. Where nothing counts at all, every weight is 0. `total` is the `denominator` of the
    whole step where these rows are but a part of it.
    """
    if total is None:
        total = denominator(aggregation, response_mask_BT, weights_B, constant_length=constant_length)
    mask_BT = response_mask_BT.double()
    weighted_BT = mask_BT * weights_B.double()[:, None]
    if aggregation == "sequence_mean":
        weighted_BT = weighted_BT / mask_BT.sum(1, keepdim=True).clamp(min=1)
    return (weighted_BT / torch.where(total > 0, total, 1.0)).float()


def denominator(aggregation: str, response_mask_BT: Tensor, weights_B: Tensor, *, constant_length: int = 0) -> Tensor:
    """What the sum over tokens is divided by (float64 scalar); those of the parts of a step add up to that of all."""
    rows_B = weights_B.double()
    if aggregation == "sequence_mean":
        return rows_B.sum()
    if aggregation == "token_mean":
        return (response_mask_BT.double() * rows_B[:, None]).sum()
    if aggregation == "constant_length":
        if constant_length < 1:
            raise ValueError(f"constant_length={constant_length}: this aggregation divides by it, so give at least 1")
        return rows_B.sum() * constant_length
    raise ValueError(f"aggregation {aggregation!r} is unknown; choose sequence_mean, token_mean or constant_length")


def clipped_loss(
    logp_BT: Tensor, old_logp_BT: Tensor, advantages_B: Tensor, *, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """Loss per token [B, T], and where it is clipped [B, T] (bool: the gradient there is exactly 0).

    Gradient flows through `logp_BT` alone. Give equal log-probs (say, 0) on tokens that are no response.
    """
    ratio_BT = torch.exp(logp_BT - old_logp_BT)
    advantages_BT = advantages_B[:, None].expand_as(ratio_BT)
    clipped_BT = torch.where(advantages_BT > 0, ratio_BT > 1 + clip_high, ratio_BT < 1 - clip_low) & (
        advantages_BT != 0
    )
    bounded_BT = torch.clamp(ratio_BT, 1 - clip_low, 1 + clip_high)
    loss_BT = -advantages_BT * torch.where(clipped_BT, bounded_BT, ratio_BT)
    return loss_BT, clipped_BT


def k3_divergence(logp_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
    """exp(ref - logp) - (ref - logp) - 1 per token, >= 0, and 0 where both agree; gradient flows through `logp_BT`."""
    difference_BT = ref_logp_BT - logp_BT
    return torch.expm1(difference_BT) - difference_BT
