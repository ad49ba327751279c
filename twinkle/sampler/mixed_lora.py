"""Rows of one batch with different LoRA adapters, or none, in a single forward.

The low-rank factors of the adapters in a batch lie side by side: A as rows of one matrix, B as columns of another. A
row multiplies with all of them, and what is not its own is set to zero in between, so that B adds exact zeros:

    y_r = W x_r + b + scaling_r * B (own_r * (A x_r))

That is two matrix products for any number of adapters, and for each row the sums of its adapter alone.
R = rows, L = tokens, N = sum of the ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.nn import functional

from twinkle.errors import SamplerError
from twinkle.model.lora_layers import lean_forward

Forward = Callable[[Tensor], Tensor]


def can_mix(module: nn.Module, adapter: str) -> bool:
    """Whether an adapter is plain LoRA on plain linear layers, so that its rows can share a forward with others."""
    for name, layer in module.named_modules():
        if isinstance(layer, LoraLayer) and adapter in _named_in(layer) and ".experts." in name:
            return False  # an expert sees some of the tokens, in an order of its own
        if isinstance(layer, ModulesToSaveWrapper) and adapter in layer.modules_to_save:
            return False
        if isinstance(layer, LoraLayer) and adapter in _named_in(layer) and lean_forward(layer, adapter) is None:
            return False
    return True


def _named_in(layer: Any) -> set[str]:
    return {*layer.lora_A, *layer.lora_embedding_A}


@dataclass
class _Rows:
    """Which adapter each row of the next forward has: its place among the names, the last for none."""

    index_R: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.long))

    def index_for(self, x: Tensor) -> Tensor:
        """The same for the input of a layer: [R, 1] for one of [R, L, I], [R * L] for one whose tokens lie in a row."""
        if x.ndim == 3:
            return self.index_R[:, None]
        tokens, rest = divmod(x.shape[0], len(self.index_R))
        if rest or x.ndim != 2:
            raise SamplerError(
                f"a LoRA layer of this model got an input of shape {tuple(x.shape)} for {len(self.index_R)} rows, so "
                "that rows with different adapters cannot share a batch; sample with one adapter at a time"
            )
        return self.index_R if tokens == 1 else self.index_R.repeat_interleave(tokens)


class MixedLayers:
    """The LoRA layers of a model, bound to the adapters of the rows that they compute."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._layers: list[Any] = []
        self._rows = _Rows()
        self._bound: tuple[str, ...] | None = None

    def find_layers(self) -> None:
        """Look for LoRA layers again: an adapter was added."""
        self._layers = [layer for layer in self._module.modules() if isinstance(layer, LoraLayer)]
        self.forget()

    def forget(self) -> None:
        """Bind anew before the next forward: weights or adapters are others than before."""
        self._bound = None

    def bind(self, adapters: Sequence[str | None]) -> None:
        """Let row i of the next forwards compute with ``adapters[i]``, or the base weights where that is None."""
        names = tuple(dict.fromkeys(name or "" for name in adapters))
        if len(names) > 1:
            # Those in use in the order of their names: the same set is the same matrices.
            names = tuple(sorted(name for name in names if name))
            place = {name: index for index, name in enumerate(names)}
            rows = [len(names) if name is None else place[name] for name in adapters]
            self._rows.index_R = torch.tensor(rows, device=next(self._module.parameters()).device)
            names = ("mixed", *names)
        if names == self._bound:
            return
        for layer in self._layers:
            layer.__dict__.pop("forward", None)
            forward = lean_forward(layer, names[0]) if len(names) == 1 else _mixed_forward(layer, names[1:], self._rows)
            if forward is not None:
                layer.__dict__["forward"] = forward
        self._bound = names


def _mixed_forward(layer: Any, names: Sequence[str], rows: _Rows) -> Forward | None:
    base = layer.base_layer
    own = [name for name in names if name in layer.lora_A]
    if not own:
        return cast(Forward, base.forward) if lean_forward(layer, "") is not None else None
    a_NI = torch.cat([layer.lora_A[name].weight for name in own])
    b_ON = torch.cat([layer.lora_B[name].weight for name in own], dim=1)
    own_MN, scaling_M = _tables(layer, names, a_NI)
    weight, bias = base.weight, base.bias

    def forward(x: Tensor) -> Tensor:
        index = rows.index_for(x)
        low = functional.linear(x, a_NI) * own_MN[index]
        update = functional.linear(low, b_ON) * scaling_M[index].unsqueeze(-1)
        result: Tensor = functional.linear(x, weight, bias) + update
        return result

    return forward


def _tables(layer: Any, names: Sequence[str], like: Tensor) -> tuple[Tensor, Tensor]:
    """For each adapter of the batch, and none as the last: 1 where the columns are its own, and its scaling."""
    ranks = [layer.lora_A[name].weight.shape[0] if name in layer.lora_A else 0 for name in names]
    own_MN = like.new_zeros(len(names) + 1, sum(ranks))
    start = 0
    for place, rank in enumerate(ranks):
        own_MN[place, start : start + rank] = 1
        start += rank
    scaling = [layer.scaling.get(name, 0.0) for name in names]
    return own_MN, like.new_tensor([*scaling, 0.0])
