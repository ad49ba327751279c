"""Samplers: from prompts to sampled responses. Names are loaded when first used, because engines are heavy."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twinkle.sampler.base import Sampler
    from twinkle.sampler.torch_sampler import TorchSampler
    from twinkle.sampler.vllm_sampler import vLLMSampler

__all__ = ["Sampler", "TorchSampler", "vLLMSampler"]

_HOMES = {
    "Sampler": "twinkle.sampler.base",
    "TorchSampler": "twinkle.sampler.torch_sampler",
    "vLLMSampler": "twinkle.sampler.vllm_sampler",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'twinkle.sampler' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
