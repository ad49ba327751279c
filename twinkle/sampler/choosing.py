"""From logits to tokens: pure functions on tensors. R = rows, V = vocabulary, all probabilities in float64."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinkle.data_format import SamplingParams


@dataclass(frozen=True, slots=True)
class Choice:
    """One token per row: its id, its raw log-probability, and that under the distribution sampled from.

    ``scores_RV`` are logits less their largest, ``log_total_R`` is the log of the sum of their exponentials.
    """

    tokens_R: Tensor
    logprobs_R: Tensor
    sampler_logprobs_R: Tensor
    scores_RV: Tensor
    log_total_R: Tensor

    @property
    def raw_logp_RV(self) -> Tensor:
        """Raw log-probabilities of all tokens."""
        return self.scores_RV - self.log_total_R[:, None]


@dataclass(frozen=True, slots=True)
class RowControls:
    """SamplingParams of the rows of a batch as tensors; None where no row uses a control."""

    temperature_R: Tensor | None
    greedy_R: Tensor | None
    top_k_R: Tensor | None
    top_p_R: Tensor | None
    all_greedy: bool

    @classmethod
    def of(cls, params: Sequence[SamplingParams], device: torch.device) -> "RowControls":
        """The controls of rows with these parameters."""
        kinds = {id(p): p for p in params}.values()

        def tensor(read: Callable[[SamplingParams], float], dtype: torch.dtype, off: float) -> Tensor | None:
            if all(read(p) == off for p in kinds):
                return None
            return torch.tensor([read(p) for p in params], dtype=dtype, device=device)

        never = 2**62
        return cls(
            temperature_R=tensor(lambda p: p.temperature or 1.0, torch.float64, 1.0),
            greedy_R=tensor(lambda p: p.is_greedy, torch.bool, False),
            top_k_R=tensor(lambda p: p.top_k if p.top_k > 0 else never, torch.int64, never),
            top_p_R=tensor(lambda p: p.top_p, torch.float64, 1.0),
            all_greedy=all(p.is_greedy for p in kinds),
        )


def choose(logits_RV: Tensor, controls: RowControls, uniforms_R: Tensor, forbidden_RV: Tensor | None) -> Choice:
    """One token per row, by the inverse of the cumulative distribution at the given uniform numbers in [0, 1).

    Order: forbidden tokens, temperature, top-k, top-p. Greedy rows take the most probable token that is not forbidden.
    """
    scores_RV = logits_RV.double()
    scores_RV = scores_RV - scores_RV.amax(-1, keepdim=True)
    weights_RV = scores_RV.exp()
    log_total_R = weights_RV.sum(-1).log()
    if controls.all_greedy:
        tokens_R = _most_probable(scores_RV, forbidden_RV)
        sampler_logprobs_R = torch.zeros_like(uniforms_R)
    else:
        drawn_RV = _warped(scores_RV, controls, forbidden_RV)
        # exp is what costs here: it is taken once where nothing is warped.
        if drawn_RV is not scores_RV:
            drawn_RV = drawn_RV - drawn_RV.amax(-1, keepdim=True)
            weights_RV = drawn_RV.exp()
        tokens_R = inverse_cdf(weights_RV, uniforms_R)
        if controls.greedy_R is not None:
            tokens_R = torch.where(controls.greedy_R, _most_probable(scores_RV, forbidden_RV), tokens_R)
        sampler_logprobs_R = _at(drawn_RV, tokens_R) - weights_RV.sum(-1).log()
        if controls.greedy_R is not None:
            sampler_logprobs_R = sampler_logprobs_R.masked_fill(controls.greedy_R, 0.0)
    return Choice(tokens_R, _at(scores_RV, tokens_R) - log_total_R, sampler_logprobs_R, scores_RV, log_total_R)


def sampling_logprobs(raw_logp_RV: Tensor, controls: RowControls, forbidden_RV: Tensor | None) -> Tensor:
    """Log-probabilities of the distribution that rows are sampled from; -inf where a token cannot be drawn."""
    warped_RV = _warped(raw_logp_RV, controls, forbidden_RV)
    return raw_logp_RV if warped_RV is raw_logp_RV else torch.log_softmax(warped_RV, dim=-1)


def _warped(scores_RV: Tensor, controls: RowControls, forbidden_RV: Tensor | None) -> Tensor:
    """Scores of the distribution that is sampled from; -inf where a token cannot be drawn."""
    if forbidden_RV is not None:
        scores_RV = scores_RV.masked_fill(forbidden_RV, -math.inf)
    if controls.temperature_R is not None:
        # From the maximum, so that a tiny temperature overflows to -inf and never to inf - inf.
        scores_RV = (scores_RV - scores_RV.amax(-1, keepdim=True)) / controls.temperature_R[:, None]
    if controls.top_k_R is not None or controls.top_p_R is not None:
        scores_RV = _keep_top(scores_RV, controls.top_k_R, controls.top_p_R)
    return scores_RV


def inverse_cdf(weights_RV: Tensor, uniforms_R: Tensor) -> Tensor:
    """The first token whose cumulative weight exceeds that part of the whole; never one of weight zero."""
    cdf_RV = weights_RV.cumsum(-1)
    # At most 1 - 2**-53 times the total rounds to less than the total, so that some token always exceeds it.
    if cdf_RV.device.type == "cpu":
        found_R1 = torch.searchsorted(cdf_RV, (uniforms_R * cdf_RV[:, -1])[:, None], right=True)
        return found_R1.squeeze(-1).clamp_(max=cdf_RV.shape[1] - 1)  # beyond the last only where weights are nan
    # A GPU adds up in parallel, so that rounding may lift the sum at a token of weight zero.
    cdf_RV = cdf_RV.masked_fill_(weights_RV == 0, -1.0)
    target_R = uniforms_R * cdf_RV.amax(-1)
    return (cdf_RV > target_R[:, None]).to(torch.uint8).argmax(-1)


def _keep_top(scores_RV: Tensor, top_k_R: Tensor | None, top_p_R: Tensor | None) -> Tensor:
    """-inf for what top-k, then top-p, leave out; of equal scores the lower token id ranks higher."""
    sorted_RV, order_RV = scores_RV.sort(dim=-1, descending=True, stable=True)
    if top_k_R is not None:
        rank_V = torch.arange(scores_RV.shape[-1], device=scores_RV.device)
        sorted_RV = sorted_RV.masked_fill(rank_V >= top_k_R[:, None], -math.inf)
    if top_p_R is not None:
        probabilities_RV = torch.softmax(sorted_RV, dim=-1)
        before_RV = probabilities_RV.cumsum(-1) - probabilities_RV
        outside_RV = (before_RV >= top_p_R[:, None]) & (top_p_R[:, None] < 1)
        outside_RV[:, 0] = False
        sorted_RV = sorted_RV.masked_fill(outside_RV, -math.inf)
    return torch.empty_like(sorted_RV).scatter_(-1, order_RV, sorted_RV)


def _most_probable(raw_logp_RV: Tensor, forbidden_RV: Tensor | None) -> Tensor:
    scores_RV = raw_logp_RV if forbidden_RV is None else raw_logp_RV.masked_fill(forbidden_RV, -math.inf)
    return scores_RV.argmax(-1)


def _at(values_RV: Tensor, tokens_R: Tensor) -> Tensor:
    return values_RV.gather(-1, tokens_R[:, None]).squeeze(-1)


class Forbidden:
    """Which tokens each row may not draw: those not allowed, and those that would end it before min_tokens."""

    def __init__(
        self,
        params: Sequence[SamplingParams],
        ending_ids: Sequence[Sequence[int]],
        vocab_size: int,
        device: torch.device,
    ) -> None:
        self._never_RV: Tensor | None = None
        self._ending_RV: Tensor | None = None
        self._device = device
        self._min_tokens_R = np.array([p.min_tokens for p in params])
        if any(p.allowed_token_ids is not None for p in params):
            self._never_RV = ~torch.stack([_members(p.allowed_token_ids, vocab_size, device) for p in params])
        if self._min_tokens_R.any():
            self._ending_RV = torch.stack([_members(ids, vocab_size, device) for ids in ending_ids])

    def at(self, counts_R: NDArray[np.int64]) -> Tensor | None:
        """The mask [R, V] of tokens forbidden to rows that have drawn so many; None when nothing is forbidden."""
        early_R = counts_R < self._min_tokens_R
        if self._ending_RV is None or not early_R.any():
            return self._never_RV
        early_RV = self._ending_RV & torch.from_numpy(early_R).to(self._device)[:, None]
        return early_RV if self._never_RV is None else early_RV | self._never_RV


def _members(ids: Iterable[int] | None, vocab_size: int, device: torch.device) -> Tensor:
    if ids is None:
        return torch.ones(vocab_size, dtype=torch.bool, device=device)
    members_V = torch.zeros(vocab_size, dtype=torch.bool, device=device)
    members_V[torch.tensor(list(ids), dtype=torch.long, device=device)] = True
    return members_V
