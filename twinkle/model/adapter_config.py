"""The configuration of an adapter as plain JSON-like data."""

from enum import Enum
from typing import Any

from peft import PeftModel


def plain_adapter_config(model: PeftModel) -> dict[str, Any]:
    """What `adapter_config.json` would hold for the active adapter: sets as sorted lists, enums as their values."""
    config = model.peft_config[model.active_adapter].to_dict()
    return {name: _plain(value) for name, value in config.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    return value.value if isinstance(value, Enum) else value
