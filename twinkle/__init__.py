"""Reinforcement-learning post-training of language models: samplers, models, RL and the loop around a streaming queue.

Importing this package loads none of torch, ray, vllm, transformers, hydra or kubernetes: names are loaded when used.
"""

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twinkle.infra import DeviceGroup, DeviceMesh, initialize

__version__ = "0.1.0"
__all__ = ["DeviceGroup", "DeviceMesh", "__version__", "initialize"]

_HOMES = {"DeviceGroup": "twinkle.infra", "DeviceMesh": "twinkle.infra", "initialize": "twinkle.infra"}


def _clash(folders: Iterable[str], distribution: str = "twinkle_kit") -> str | None:
    """The entry of one of the folders that shows ``distribution`` to be installed there; reads directories only."""
    for folder in folders:
        try:
            entries = os.listdir(folder or ".")
        except OSError:
            continue
        for entry in entries:
            if entry.lower().startswith(distribution + "-") and entry.endswith((".dist-info", ".egg-info")):
                return os.path.join(folder, entry)
    return None


if (_found := _clash(sys.path)) is not None:
    raise ImportError(
        f"the distribution twinkle-kit ({_found}) installs another package named twinkle in this environment; "
        "uninstall it (pip uninstall twinkle-kit) and install twinkle-rl again, or use a fresh virtual environment"
    )


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'twinkle' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
