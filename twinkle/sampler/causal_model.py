"""A Hugging Face causal model as a function from tokens to next-token logits, and a batch of rows that grow by it.

R = rows, U = distinct prompts, P = prompt length after left padding, K = columns of the cache, V = vocabulary.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from twinkle.model.attention import FLOAT64
from twinkle.model.forward import accepted_arguments
from twinkle.sampler.rolling_cache import RollingCache

# On a CPU the kernels for 1 to 3 rows add up in another order than those for 4 and more.
CPU_SLOTS = 4
NOWHERE = 2**40
K = TypeVar("K", bound=Hashable)


class CausalModel:
    """What decoding needs to know of a model: device, sizes, and which arguments its forward takes."""

    def __init__(self, module: PreTrainedModel) -> None:
        self.module = module
        config = module.config.get_text_config(decoder=True)
        self.vocab_size: int = config.vocab_size
        self.positions: int | None = getattr(config, "max_position_embeddings", None)
        accepted = accepted_arguments(module)
        self._takes_positions = "position_ids" in accepted
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.cache_dtype = torch.float64 if module.config._attn_implementation == FLOAT64 else None
        RollingCache(module.config, self.cache_dtype)

    @property
    def device(self) -> torch.device:
        """Where the weights are now."""
        device: torch.device = self.module.device
        return device

    @property
    def least_rows(self) -> int:
        """Fewest rows with which a row's bits do not depend on how many there are."""
        return CPU_SLOTS if self.device.type == "cpu" else 1

    def forward(self, ids_RL: Tensor, positions_RL: Tensor, mask_RK: Tensor | None, cache: DynamicCache) -> Tensor:
        """Logits [R, V] after the last of L new tokens; the cache takes up the new tokens.

        ``mask_RK`` covers cached and new tokens, 0 = padding; None = no padding anywhere.
        """
        arguments: dict[str, Any] = {"position_ids": positions_RL} if self._takes_positions else {}
        output = self.module(
            input_ids=ids_RL,
            attention_mask=mask_RK,
            past_key_values=cache,
            use_cache=True,
            **arguments,
            **self._last_only,
        )
        logits_RV: Tensor = output.logits[:, -1]
        return logits_RV

    def read(self, prompts: Sequence[tuple[int, ...]]) -> tuple[Tensor, DynamicCache]:
        """Logits [U, V] after each prompt, and what the model keeps of them."""
        cache = DynamicCache(config=self.module.config)
        ids_UP, mask_UP = _left_padded(prompts, self.device)
        padded = bool((mask_UP == 0).any())
        positions_UP = (mask_UP.cumsum(-1) - 1).clamp_(min=0)
        return self.forward(ids_UP, positions_UP, mask_UP if padded else None, cache), cache


class CachedRows:
    """Rows that grow by one token at a time; ``logits_RV`` are those of the next token of each row.

    A row stays at its place until ``select``; one that is released computes on, unseen, until another takes its place.
    """

    logits_RV: Tensor

    def __init__(self, model: CausalModel) -> None:
        self._model = model
        self._cache = RollingCache(model.module.config, model.cache_dtype)
        self._starts_R = np.zeros(0, np.int64)

    def enter(
        self,
        places: Sequence[int],
        prompts: Sequence[tuple[int, ...]],
        adapters: Sequence[K],
        bind: Callable[[list[K]], None],
        ahead: int,
    ) -> None:
        """Let rows begin at these places, free ones or the next behind the last; ``ahead`` tokens at most will follow.

        Each distinct prompt is read once for each adapter; ``bind`` is told which adapter each row of that forward has.
        """
        keys = list(zip(prompts, adapters, strict=True))
        distinct = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        rows_read = [*distinct]
        rows_read += rows_read[:1] * (self._model.least_rows - len(rows_read))
        bind([adapter for _, adapter in rows_read])
        logits_UV, read = self._model.read([prompt for prompt, _ in rows_read])
        spread = torch.tensor([distinct[key] for key in keys], device=self._model.device)
        count = max(len(self._starts_R), max(places) + 1, self._model.least_rows)
        self._move(self._cache.make_room(count, max(map(len, prompts)), ahead, read))
        rows = torch.tensor(places, device=self._model.device)
        self._cache.insert(rows, read, spread)
        self._extend(count, logits_UV)
        self.logits_RV[rows] = logits_UV[spread]
        self._starts_R[list(places)] = self._cache.columns.end - np.array(list(map(len, prompts)))
        self._cache.columns.start = int(self._starts_R.min())

    def grow(self, tokens_R: Tensor, ahead: int) -> None:
        """Append one token to each row and compute the logits of the next; ``ahead`` more at most will follow."""
        columns, device = self._cache.columns, self._model.device
        if not self._cache.has_room():
            self._move(self._cache.reshape(None, len(self._starts_R), columns.end - columns.start, ahead))
        starts_R = torch.from_numpy(self._starts_R).to(device)
        mask_RK = None
        if (self._starts_R != columns.start).any():
            mask_RK = torch.arange(columns.start, columns.end + 1, device=device) >= starts_R[:, None]
            mask_RK[:, -1] = True
        positions_R1 = (columns.end - starts_R).clamp_(min=0)[:, None]
        self.logits_RV = self._model.forward(tokens_R[:, None], positions_R1, mask_RK, self._cache.cache)
        columns.end += 1

    def release(self, places: Sequence[int]) -> None:
        """These rows have ended: their prompts and tokens are not read any more."""
        self._starts_R[list(places)] = NOWHERE
        self._cache.columns.start = min(int(self._starts_R.min()), self._cache.columns.end)

    def select(self, places: Sequence[int], ahead: int) -> None:
        """Keep these rows only, in this order."""
        columns = self._cache.columns
        rows = torch.tensor(places, device=self._model.device)
        self._starts_R = self._starts_R[list(places)]
        self._move(self._cache.reshape(rows, len(places), columns.end - columns.start, ahead))
        self.logits_RV = self.logits_RV[rows]

    def _move(self, columns: int) -> None:
        self._starts_R[self._starts_R != NOWHERE] += columns

    def _extend(self, count: int, like_UV: Tensor) -> None:
        more = count - len(self._starts_R)
        if more:
            self._starts_R = np.concatenate([self._starts_R, np.full(more, NOWHERE)])
            fresh_RV = like_UV.new_zeros((more, like_UV.shape[1]))
            self.logits_RV = fresh_RV if len(fresh_RV) == count else torch.cat([self.logits_RV, fresh_RV])


def _left_padded(prompts: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(map(len, prompts))
    ids = [[prompt[0]] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
