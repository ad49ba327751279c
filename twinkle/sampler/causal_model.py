"""A Hugging Face causal model as a function from tokens to next-token logits, and a batch of rows that grow by it.

R = rows, U = distinct prompts, P = prompt length after left padding, K = columns of the cache, V = vocabulary.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
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
# A forward that reads prompts has at most so many tokens, and with more than a few at most so much padding.
READ_TOKENS = 8192
PADDING_AT_MOST = 2
LITTLE = 256
K = TypeVar("K", bound=Hashable)


class CausalModel:
    """What decoding needs to know of a model: device, sizes, and which arguments its forward takes."""

    def __init__(self, module: PreTrainedModel) -> None:
        self.module = module
        self.device: torch.device = module.device
        config = module.config.get_text_config(decoder=True)
        self.vocab_size: int = config.vocab_size
        self.positions: int | None = getattr(config, "max_position_embeddings", None)
        accepted = accepted_arguments(module)
        self._takes_positions = "position_ids" in accepted
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.cache_dtype = torch.float64 if module.config._attn_implementation == FLOAT64 else None
        RollingCache(module.config, self.cache_dtype)

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

    def __init__(self, model: CausalModel) -> None:
        self.logits_RV: Tensor | None = None
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
        self._extend(max(len(self._starts_R), max(places) + 1, self._model.least_rows))
        for together in _read_together(dict.fromkeys(keys)):
            at = {key: index for index, key in enumerate(together)}
            together += together[:1] * (self._model.least_rows - len(together))
            bind([adapter for _, adapter in together])
            logits_UV, read = self._model.read([prompt for prompt, _ in together])
            entering = [(place, key) for place, key in zip(places, keys, strict=True) if key in at]
            rows = [place for place, _ in entering]
            lengths = [len(prompt) for _, (prompt, _) in entering]
            self._move(self._cache.make_room(len(self._starts_R), max(lengths), ahead, read))
            self._take_in(rows, [at[key] for _, key in entering], logits_UV, read)
            self._starts_R[rows] = self._cache.columns.end - np.array(lengths)
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
        self.logits_RV = None if self.logits_RV is None else self.logits_RV[rows]

    def _move(self, columns: int) -> None:
        self._starts_R[self._starts_R != NOWHERE] += columns

    def _extend(self, count: int) -> None:
        fresh_R = np.full(count - len(self._starts_R), NOWHERE)
        self._starts_R = np.concatenate([self._starts_R, fresh_R])

    def _take_in(self, places: list[int], spread: list[int], logits_UV: Tensor, read: DynamicCache) -> None:
        in_turn = places == list(range(places[0], places[-1] + 1))
        # A slice is written in half the time of the same rows one by one.
        rows = slice(places[0], places[-1] + 1) if in_turn else torch.tensor(places, device=self._model.device)
        spread_I = torch.tensor(spread, device=self._model.device)
        self._cache.insert(rows, read, spread_I)
        fresh_I = logits_UV[spread_I]
        if len(places) == len(self._starts_R) and in_turn:
            self.logits_RV = fresh_I
            return
        self.logits_RV = _with_rows(self.logits_RV, len(self._starts_R), fresh_I)
        self.logits_RV[rows] = fresh_I


def _with_rows(tensor_RV: Tensor | None, count: int, like: Tensor) -> Tensor:
    have = 0 if tensor_RV is None else len(tensor_RV)
    if tensor_RV is not None and have == count:
        return tensor_RV
    fresh_RV = like.new_zeros((count - have, like.shape[1]))
    return fresh_RV if tensor_RV is None else torch.cat([tensor_RV, fresh_RV])


def _read_together(keys: Iterable[tuple[tuple[int, ...], K]]) -> Iterator[list[tuple[tuple[int, ...], K]]]:
    """Prompts in forwards that hold neither too many tokens nor too much padding, longest first."""
    together: list[tuple[tuple[int, ...], K]] = []
    width, real = 0, 0
    for key in sorted(keys, key=lambda key: -len(key[0])):
        padded = width * (len(together) + 1)
        if together and (padded > READ_TOKENS or padded > PADDING_AT_MOST * (real + len(key[0])) + LITTLE):
            yield together
            together, real = [], 0
        width = width if together else len(key[0])
        together.append(key)
        real += len(key[0])
    yield together


def _left_padded(prompts: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    # With a single column the model would read its logits off contiguous rows, by another kernel than those of others.
    longest = max(2, *map(len, prompts))
    ids = [[prompt[0]] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
