"""A key-value cache that grows in place.

The layers of transformers copy everything they hold at every token; these write into a buffer with room to spare.
B = rows, H = heads, L = cached tokens, D = head size.
"""

from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

LEAST_ROOM = 32


def cache_for(config: PretrainedConfig, max_tokens: int) -> DynamicCache:
    """The cache that a model of this configuration needs for that many new tokens.

    Responses too short to repay a buffer, and layers that are not plain (sliding windows), keep transformers' layers.
    """
    cache = DynamicCache(config=config)
    if max_tokens > LEAST_ROOM:
        cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, as views [B, H, L, D] of buffers whose third axis is longer."""

    keys: Tensor
    values: Tensor
    _buffers: tuple[Tensor, Tensor]

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append the states [B, H, new, D]; all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._hold(key_states, value_states)
            return self.keys, self.values
        start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            self._buffers = (_with_room(self.keys), _with_room(self.values))
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows only, in this order."""
        if self.is_initialized:
            self._hold(self.keys[indices], self.values[indices])

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = self._buffers = (keys, values)


def _with_room(states: Tensor) -> Tensor:
    length = states.shape[-2]
    buffer = states.new_empty((*states.shape[:2], length + max(LEAST_ROOM, length // 2), states.shape[-1]))
    buffer[:, :, :length] = states
    return buffer
