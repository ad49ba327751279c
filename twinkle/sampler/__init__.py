"""Samplers: from prompts to sampled responses. Names are loaded when first used, because engines are heavy."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twinkle.sampler.base import Sampler
    from twinkle.sampler.decoding import Drawing
    from twinkle.sampler.engine import Engine
    from twinkle.sampler.requests import Drawn, ModelLimits, Request
    from twinkle.sampler.stepped_sampler import SteppedSampler
    from twinkle.sampler.torch_sampler import TorchSampler
    from twinkle.sampler.vllm_sampler import vLLMSampler

__all__ = [
    "Drawing",
    "Drawn",
    "Engine",
    "ModelLimits",
    "Request",
    "Sampler",
    "SteppedSampler",
    "TorchSampler",
    "vLLMSampler",
]

_HOMES = {
    "Drawing": "twinkle.sampler.decoding",
    "Drawn": "twinkle.sampler.requests",
    "Engine": "twinkle.sampler.engine",
    "ModelLimits": "twinkle.sampler.requests",
    "Request": "twinkle.sampler.requests",
    "Sampler": "twinkle.sampler.base",
    "SteppedSampler": "twinkle.sampler.stepped_sampler",
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
