"""Reinforcement-learning post-training of language models: samplers, models, RL and the loop around a streaming queue.

Importing this package loads none of torch, ray, vllm, transformers, hydra or kubernetes: names are loaded when used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transfer_queue.clash import refuse_clash

if TYPE_CHECKING:
    from twinkle.infra import DeviceGroup, DeviceMesh, get_device_placement, initialize, remote_class, remote_function

__version__ = "0.1.0"
__all__ = [
    "DeviceGroup",
    "DeviceMesh",
    "__version__",
    "get_device_placement",
    "initialize",
    "remote_class",
    "remote_function",
]

_HOMES = {name: "twinkle.infra" for name in __all__ if not name.startswith("_")}

refuse_clash("twinkle-kit", "twinkle")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'twinkle' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
