"""Reinforcement-learning post-training of language models: samplers, models, RL and the loop around a streaming queue.

Importing this package loads none of torch, ray, vllm, transformers, hydra or kubernetes: names are loaded when used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transfer_queue.clash import refuse_clash

if TYPE_CHECKING:
    from twinkle.infra import DeviceGroup, DeviceMesh, initialize, remote_class, remote_function

__version__ = "0.1.0"
__all__ = ["DeviceGroup", "DeviceMesh", "__version__", "initialize", "remote_class", "remote_function"]

_HOMES = dict.fromkeys(["DeviceGroup", "DeviceMesh", "initialize", "remote_class", "remote_function"], "twinkle.infra")

refuse_clash("twinkle-kit", "twinkle")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'twinkle' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
