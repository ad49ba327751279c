"""The rows of a running batch, and how each draws its next token: pure functions on tensors, without vLLM.

A token comes from twinkle.sampler.choosing and the counter-based numbers of (seed, sample index, position), so that it
does not depend on what else is in the batch. R = rows, V = vocabulary, K = reported log-probabilities.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinkle.data_format import SamplingParams
from twinkle.sampler.choosing import Choice, RowControls, choose
from twinkle.sampler.uniforms import WORDS_PER_BLOCK, uniforms

UNIFORMS_AHEAD = 64
# Most logits that are turned to float64 at once: 64 MB.
CHUNK = 8 * 2**20


@dataclass(frozen=True, slots=True)
class RowSpec:
    """How one response is drawn: sample ``sample_index`` under ``seed``; ``ending_ids`` are token ids that end it."""

    params: SamplingParams
    ending_ids: tuple[int, ...]
    seed: int
    sample_index: int


class Row:
    """One response that grows: its tokens so far, a list that vLLM extends, and its next random numbers."""

    __slots__ = ("_ahead", "_numbers", "_start", "output", "spec")

    def __init__(self, spec: RowSpec, output: list[int]) -> None:
        self.spec, self.output = spec, output
        blocks = -(-spec.params.max_tokens // WORDS_PER_BLOCK)
        self._ahead = min(UNIFORMS_AHEAD, blocks * WORDS_PER_BLOCK)
        self._start = 0
        self._numbers: list[float] = []

    def uniform(self) -> float:
        at = len(self.output) - self._start
        if not 0 <= at < len(self._numbers):
            self._start = len(self.output) // WORDS_PER_BLOCK * WORDS_PER_BLOCK
            key = (self.spec.seed, self.spec.sample_index)
            numbers: NDArray[np.float64] = uniforms([key], self._start, self._ahead)
            self._numbers = numbers[0].tolist()
            at = len(self.output) - self._start
        return self._numbers[at]


class RowBatch:
    """What does not change while the same rows are in the batch: their parameters as tensors, some rows at a time."""

    def __init__(self, rows: Sequence[Row], vocab_size: int, device: torch.device, chunk: int = CHUNK) -> None:
        params = [row.spec.params for row in rows]
        step = max(1, chunk // vocab_size)
        self._rows = rows
        self._vocab_size, self._device = vocab_size, device
        self._parts = [
            (slice(at, at + step), RowControls.of(params[at : at + step], device)) for at in range(0, len(rows), step)
        ]
        self._reported = min(max((p.logprobs or 0 for p in params), default=0), vocab_size)
        self._early = [i for i, p in enumerate(params) if p.min_tokens > 0 and rows[i].spec.ending_ids]
        self._never_RV: Tensor | None = None
        if any(p.allowed_token_ids is not None for p in params):
            self._never_RV = torch.stack([self._not_allowed(p.allowed_token_ids) for p in params])

    def draw(self, logits_RV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One token per row [R]; ids and log-probabilities [R, 2 + K] in the columns of messages.py."""
        uniforms_R, forbidden_RV = self._uniforms_R(), self._forbidden_RV()
        parts = []
        for at, controls in self._parts:
            forbidden = None if forbidden_RV is None else forbidden_RV[at]
            choice = choose(logits_RV[at], controls, uniforms_R[at], forbidden)
            parts.append((choice.tokens_R, *_report(choice, self._reported)))
        if len(parts) == 1:
            return parts[0]
        tokens_R, ids_RK, logp_RK = (torch.cat(part) for part in zip(*parts, strict=True))
        return tokens_R, ids_RK, logp_RK

    def _uniforms_R(self) -> Tensor:
        numbers = torch.tensor([row.uniform() for row in self._rows], dtype=torch.float64)
        return numbers.to(self._device, non_blocking=True)

    def _forbidden_RV(self) -> Tensor | None:
        """The tokens that each row may not draw now; None when there are none."""
        early = [i for i in self._early if len(self._rows[i].output) < self._rows[i].spec.params.min_tokens]
        if not early:
            return self._never_RV
        shape = (len(self._rows), self._vocab_size)
        mask_RV = torch.zeros(shape, dtype=torch.bool) if self._never_RV is None else self._never_RV.cpu().clone()
        for i in early:
            mask_RV[i, list(self._rows[i].spec.ending_ids)] = True
        return mask_RV.to(self._device)

    def _not_allowed(self, ids: Iterable[int] | None) -> Tensor:
        if ids is None:
            return torch.zeros(self._vocab_size, dtype=torch.bool, device=self._device)
        mask_V = torch.ones(self._vocab_size, dtype=torch.bool)
        mask_V[list(ids)] = False
        return mask_V.to(self._device)


def _report(choice: Choice, count: int) -> tuple[Tensor, Tensor]:
    ids_R2 = torch.stack((choice.tokens_R, choice.tokens_R), dim=1)
    logp_R2 = torch.stack((choice.logprobs_R, choice.sampler_logprobs_R), dim=1)
    if count == 0:
        return ids_R2, logp_R2
    logp_RK, ids_RK = choice.raw_logp_RV.topk(count, dim=-1)
    return torch.cat((ids_R2, ids_RK), dim=1), torch.cat((logp_R2, logp_RK), dim=1)
