"""A key-value cache whose rows all end at the same column, so that a token is one write for the whole batch.

A row of n tokens lies in the n columns before the end, wherever it began: rows may enter at any time, and leave. What
lies before the longest row is not read. B = rows, H = heads, D = head size; columns are the third axis.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from twinkle.errors import ConfigError

LEAST_ROOM = 64


class Columns:
    """The columns in use, [start, end), the same in every layer."""

    def __init__(self) -> None:
        self.start = 0
        self.end = 0


class RollingLayer(DynamicLayer):  # type: ignore[misc]
    """One layer of the cache: buffers [B, H, columns, D] that are written at the end and read from the start.

    ``dtype`` is what keys and values are kept in, None for that of the model.
    """

    def __init__(self, columns: Columns, sliding: bool, dtype: torch.dtype | None) -> None:
        super().__init__()
        self._columns = columns
        self._kept_as = dtype
        self.is_sliding = sliding
        self.buffers: tuple[Tensor, ...] = ()

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the states [B, H, 1, D] of a token at the end; keys and values up to it."""
        start, end = self._columns.start, self._columns.end
        keys, values = self.buffers
        keys[:, :, end : end + 1] = key_states
        values[:, :, end : end + 1] = value_states
        return keys[:, :, start : end + 1], values[:, :, start : end + 1]

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self._columns.end - self._columns.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that a mask covers, and the first of them."""
        return self.get_seq_length() + query_length, 0

    def reshape(self, rows: Tensor | None, count: int, width: int, end: int, like: Tensor) -> None:
        """Have ``count`` rows of ``width`` columns, of which the first ones are these rows, moved to end at ``end``."""
        old, length = self.buffers, self.get_seq_length()
        shape = (count, like.shape[1], width, like.shape[3])
        self.buffers = tuple(like.new_zeros(shape, dtype=self._kept_as or like.dtype) for _ in range(2))
        for buffer, states in zip(self.buffers, old, strict=False):
            states = states[:, :, self._columns.start : self._columns.end]
            states = states if rows is None else states[rows]
            buffer[: len(states), :, end - length : end] = states

    def insert(self, rows: Tensor | slice, states: tuple[Tensor, Tensor], spread: Tensor, clean: bool) -> None:
        """Put prompts read elsewhere, [prompts, H, length, D], at the end of these rows; ``clean`` what is older."""
        end, read = self._columns.end, states[0].shape[2]
        length = min(end, read)  # what is longer is padding
        for buffer, new in zip(self.buffers, states, strict=True):
            if clean:
                buffer[rows, :, : end - length] = 0
            buffer[rows, :, end - length : end] = new[:, :, read - length :][spread].to(buffer.dtype)


class RollingCache:
    """The cache of a running batch, empty at first. ``dtype`` as in RollingLayer."""

    def __init__(self, config: PretrainedConfig, dtype: torch.dtype | None) -> None:
        self.columns = Columns()
        self.cache = DynamicCache(config=config)
        for layer in self.cache.layers:
            if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
                raise ConfigError(
                    f"{type(config).__name__} asks for a cache of {type(layer).__name__}, which this sampler cannot "
                    "batch; choose a model with plain or sliding attention"
                )
        self._layers = [RollingLayer(self.columns, layer.is_sliding, dtype) for layer in self.cache.layers]
        self.cache.layers = list(self._layers)
        self._count, self._width = 0, 0
        self._clean = True

    def make_room(self, count: int, length: int, ahead: int, like: DynamicCache) -> int:
        """Have at least ``count`` rows, ``length`` columns before the end, and one more behind it; see reshape."""
        columns = self.columns
        if count <= self._count and length <= columns.end < self._width:
            return 0
        longest = max(length, columns.end - columns.start)
        return self.reshape(None, max(count, self._count), longest, ahead, [layer.keys for layer in like.layers])

    def reshape(
        self, rows: Tensor | None, count: int, length: int, ahead: int, like: Sequence[Tensor] | None = None
    ) -> int:
        """Move these rows (None: all) into buffers of ``count`` rows that end at column ``length`` for now, and have
        room for some of the ``ahead`` tokens that may come; how far the columns moved."""
        width = length + 1 + min(ahead, max(LEAST_ROOM, length))
        for index, layer in enumerate(self._layers):
            layer.reshape(rows, count, width, length, layer.buffers[0] if like is None else like[index])
        self._count, self._width = count, width
        self._clean = self.columns.end == self.columns.start
        moved = length - self.columns.end
        self.columns.start, self.columns.end = self.columns.start + moved, length
        return moved

    def insert(self, rows: Tensor | slice, prompts: DynamicCache, spread: Tensor) -> None:
        """Let rows begin with prompts of another cache: row ``rows[i]`` with prompt ``spread[i]``."""
        clean, self._clean = not self._clean, False
        for index, layer in enumerate(self._layers):
            read = prompts.layers[index]
            layer.insert(rows, (read.keys, read.values), spread, clean)

    def has_room(self) -> bool:
        """Whether another token can be written."""
        return self.columns.end < self._width
