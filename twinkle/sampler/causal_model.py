"""A Hugging Face causal model as a function from tokens to next-token logits, with its key-value cache.

R = rows (samples), U = distinct prompts, P = prompt length after left padding, V = vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from twinkle.model.forward import accepted_arguments
from twinkle.sampler.growing_cache import cache_for


class CausalModel:
    """What the decoding loop needs to know of a model: device, sizes, and which arguments its forward takes."""

    def __init__(self, module: PreTrainedModel) -> None:
        self.module = module
        self.device: torch.device = module.device
        config = module.config.get_text_config(decoder=True)
        self.vocab_size: int = config.vocab_size
        self.positions: int | None = getattr(config, "max_position_embeddings", None)
        accepted = accepted_arguments(module)
        self._takes_positions = "position_ids" in accepted
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

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


class CachedRows:
    """Rows that grow by one token at a time.

    The distinct prompts are read in one forward; their cache is then spread over the rows. ``logits_RV`` are those of
    the next token of each row.
    """

    def __init__(self, model: CausalModel, prompts: Sequence[tuple[int, ...]], max_tokens: int, min_slots: int) -> None:
        self._model = model
        self._cache = cache_for(model.module.config, max_tokens)
        distinct = list(dict.fromkeys(prompts))
        place = {prompt: index for index, prompt in enumerate(distinct)}
        distinct += distinct[:1] * (min_slots - len(distinct))
        ids_UP, mask_UP = _left_padded(distinct, model.device)
        padded = bool((mask_UP == 0).any())
        positions_UP = (mask_UP.cumsum(-1) - 1).clamp_(min=0)
        logits_UV = model.forward(ids_UP, positions_UP, mask_UP if padded else None, self._cache)
        spread_R = torch.tensor([place[prompt] for prompt in prompts], device=model.device)
        self._cache.batch_select_indices(spread_R)
        self.logits_RV = logits_UV[spread_R]
        self._next_position_R = positions_UP[spread_R, -1] + 1
        self._length = ids_UP.shape[1]
        self._mask_RK = _room_for(mask_UP[spread_R], max_tokens) if padded else None

    def grow(self, tokens_R: Tensor) -> None:
        """Append one token to each row and compute the logits of the next."""
        self._length += 1
        mask_RK = None if self._mask_RK is None else self._mask_RK[:, : self._length]
        positions_R1 = self._next_position_R[:, None]
        self.logits_RV = self._model.forward(tokens_R[:, None], positions_R1, mask_RK, self._cache)
        self._next_position_R = self._next_position_R + 1

    def select(self, rows: Tensor) -> None:
        """Keep these rows only, in this order."""
        self._cache.batch_select_indices(rows)
        self._next_position_R = self._next_position_R[rows]
        self._mask_RK = None if self._mask_RK is None else self._mask_RK[rows]


def _left_padded(prompts: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(map(len, prompts))
    ids = [[prompt[0]] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _room_for(mask_RP: Tensor, tokens: int) -> Tensor:
    return torch.cat([mask_RP, mask_RP.new_ones(mask_RP.shape[0], tokens)], dim=-1)
