"""The rows of vLLM's running batch: whose they are and how far they have come. Runs in the engine's workers.

vLLM tells its logits processors of every row that enters, leaves or moves; this one changes no logits and only keeps
the book. R = rows, V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from twinkle.data_format import SamplingParams
from twinkle.sampler.choosing import RowControls
from twinkle.sampler.uniforms import WORDS_PER_BLOCK, uniforms

EXTRA = "twinkle"
UNIFORMS_AHEAD = 64


@dataclass(frozen=True, slots=True)
class RowSpec:
    """How one response is drawn: sample ``sample_index`` under ``seed``; ``ending_ids`` are token ids that end it."""

    params: SamplingParams
    ending_ids: tuple[int, ...]
    seed: int
    sample_index: int


class _Row:
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


class RowBook(LogitsProcessor):  # type: ignore[misc]
    """Which response is in which row of the running batch."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._device = device
        self._rows: dict[int, _Row] = {}
        self._batch: RowBatch | None = None

    def is_argmax_invariant(self) -> bool:
        """True: the logits stay as they are."""
        return True

    def apply(self, logits: Tensor) -> Tensor:
        """The logits as they are."""
        return logits

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the rows; vLLM's order is removed, added, moved."""
        if batch_update is None:
            return
        for index in batch_update.removed:
            self._rows.pop(index, None)
        for index, params, _, output in batch_update.added:
            self._rows[index] = _Row(params.extra_args[EXTRA], output)
        for first, second, direction in batch_update.moved:
            self._move(first, second, swap=direction == MoveDirectionality.SWAP)
        self._batch = None

    def _move(self, first: int, second: int, *, swap: bool) -> None:
        moved, other = self._rows.pop(first, None), self._rows.pop(second, None)
        if moved is not None:
            self._rows[second] = moved
        if swap and other is not None:
            self._rows[first] = other

    def batch(self, rows: int, vocab_size: int) -> "RowBatch | None":
        """The first ``rows`` rows together; None when some of them are nobody's, as in vLLM's trial runs."""
        if self._batch is None:
            if not all(index in self._rows for index in range(rows)):
                return None
            self._batch = RowBatch([self._rows[index] for index in range(rows)], vocab_size, self._device)
        return self._batch


class RowBatch:
    """What does not change while the same rows are in the batch: their parameters as tensors."""

    def __init__(self, rows: Sequence[_Row], vocab_size: int, device: torch.device) -> None:
        params = [row.spec.params for row in rows]
        self.rows = rows
        self.controls = RowControls.of(params, device)
        self.most_reported = max((p.logprobs or 0 for p in params), default=0)
        self._vocab_size, self._device = vocab_size, device
        self._early = [i for i, p in enumerate(params) if p.min_tokens > 0 and rows[i].spec.ending_ids]
        self._never_RV: Tensor | None = None
        if any(p.allowed_token_ids is not None for p in params):
            self._never_RV = torch.stack([self._not_allowed(p.allowed_token_ids) for p in params])

    def uniforms_R(self) -> Tensor:
        """The next random number of each row, in [0, 1)."""
        numbers = torch.tensor([row.uniform() for row in self.rows], dtype=torch.float64)
        return numbers.to(self._device, non_blocking=True)

    def forbidden_RV(self) -> Tensor | None:
        """The tokens that each row may not draw now; None when there are none."""
        early = [i for i in self._early if len(self.rows[i].output) < self.rows[i].spec.params.min_tokens]
        if not early:
            return self._never_RV
        shape = (len(self.rows), self._vocab_size)
        mask_RV = torch.zeros(shape, dtype=torch.bool) if self._never_RV is None else self._never_RV.cpu().clone()
        for i in early:
            mask_RV[i, list(self.rows[i].spec.ending_ids)] = True
        return mask_RV.to(self._device)

    def _not_allowed(self, ids: Any) -> Tensor:
        if ids is None:
            return torch.zeros(self._vocab_size, dtype=torch.bool, device=self._device)
        mask_V = torch.ones(self._vocab_size, dtype=torch.bool)
        mask_V[list(ids)] = False
        return mask_V.to(self._device)
