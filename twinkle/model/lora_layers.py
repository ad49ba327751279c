"""The LoRA layers of a model while one adapter, or none, is active.

peft's layers answer the same questions (which adapters, merged, which variant, which dtype) at every call, which costs
more than the arithmetic of a small model. The answers do not change between two activations, so they are given here
once: a plain linear layer then computes exactly what peft's does, W x + b + scaling * B A x, and nothing else. Layers
of any other kind keep peft's own forward.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from peft import PeftModel
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor, nn
from torch.nn import functional

Forward = Callable[[Tensor], Tensor]


def bind_layers(module: nn.Module, adapter: str) -> None:
    """Let each LoRA layer compute with ``adapter`` alone, or with its base weights when that is ''."""
    for layer in module.modules():
        if isinstance(layer, LoraLayer):
            layer.__dict__.pop("forward", None)
            forward = lean_forward(layer, adapter)
            if forward is not None:
                layer.__dict__["forward"] = forward


@contextmanager
def adapter_off(model: PeftModel) -> Iterator[None]:
    """Let a model compute with its base weights inside the block, and with its active adapter after it."""
    with model.disable_adapter():
        bind_layers(model, "")
        try:
            yield
        finally:
            bind_layers(model, model.active_adapter)


def lean_forward(layer: Any, adapter: str) -> Forward | None:
    """The forward of a plain LoRA layer under an adapter, its base weights where it has none; None for other kinds."""
    base = layer.base_layer
    if type(layer) is not Linear or type(base) is not nn.Linear or layer.merged:
        return None
    if adapter not in layer.lora_A:
        return cast(Forward, base.forward)
    a, b = layer.lora_A[adapter], layer.lora_B[adapter]
    if adapter in layer.lora_variant or b.bias is not None or a.weight.dtype != base.weight.dtype:
        return None
    scaling = layer.scaling[adapter]
    # Looking a parameter up in its module costs as much as a small product; the parameters stay, their values change.
    a_weight, b_weight, weight, bias = a.weight, b.weight, base.weight, base.bias

    def forward(x: Tensor) -> Tensor:
        update = functional.linear(functional.linear(x, a_weight), b_weight)
        result: Tensor = functional.linear(x, weight, bias) + update * scaling
        return result

    return forward
