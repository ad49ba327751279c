"""Which response is in which row of vLLM's running batch. Runs in the engine's workers.

vLLM tells its logits processors of every row that enters, leaves or moves; this one changes no logits and only keeps
the book.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from twinkle.sampler.vllm.row_batch import Row, RowBatch

EXTRA = "twinkle"


class RowBook(LogitsProcessor):  # type: ignore[misc]
    """Which response is in which row of the running batch."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._device = device
        self._rows: dict[int, Row] = {}
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
            self._rows[index] = Row(params.extra_args[EXTRA], output)
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
