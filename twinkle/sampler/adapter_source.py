"""Reading an adapter: a folder in PEFT's format, or a configuration with tensors in memory."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from peft import LoraConfig, PeftConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from twinkle import hub
from twinkle.errors import AdapterError, ConfigError, ModelNotFoundError

AdapterSource: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | LoraConfig
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
KEY_PREFIX = "base_model.model."
# Fields that leave the function of a loaded adapter as it is.
IRRELEVANT = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "init_lora_weights",
    "lora_dropout",
    "peft_version",
    "revision",
    "task_type",
}
# Initialisations that also change the weights of the base model, which one adapter's files do not hold.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def read_adapter(
    source: AdapterSource, state_dict: Mapping[str, Tensor] | None
) -> tuple[LoraConfig, dict[str, Tensor] | None]:
    """Configuration (a copy, ready for inference) and weights by short key; None for a configuration alone.

    A folder that is not there or cannot be read, and a configuration that is not of LoRA, is an AdapterError.
    """
    if isinstance(source, str | os.PathLike):
        folder = _folder(source)
        source = _config_in(folder)
        state_dict = _weights_in(folder) if state_dict is None else state_dict
    config = _for_inference(source)
    given = None if state_dict is None else {short_key(key): tensor for key, tensor in state_dict.items()}
    return config, given


def short_key(key: str) -> str:
    """The name of an adapter's tensor without the prefix that PEFT's files put before it."""
    return key.removeprefix(KEY_PREFIX)


def settings_of(config: LoraConfig) -> dict[str, Any]:
    """The fields that decide which modules an adapter has and what they compute; equal settings, equal modules."""
    fields = {key: value for key, value in config.to_dict().items() if key not in IRRELEVANT}
    return {key: frozenset(value) if isinstance(value, list | set) else value for key, value in fields.items()}


def _folder(source: str | os.PathLike[str]) -> Path:
    try:
        return hub.resolve(source, needs=CONFIG_FILE)
    except ModelNotFoundError as error:
        raise AdapterError(f"no adapter found: {error}") from error


def _config_in(folder: Path) -> LoraConfig:
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (TypeError, ValueError) as error:
        raise AdapterError(f"{folder / CONFIG_FILE} is not a configuration that peft reads: {error}") from error
    return config


def _weights_in(folder: Path) -> dict[str, Tensor]:
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise AdapterError(f"the adapter folder {str(folder)!r} holds no {WEIGHTS_FILE}; save it in safetensors format")
    try:
        return cast(dict[str, Tensor], load_file(file))
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{file} cannot be read: {error}") from error


def _for_inference(source: Mapping[str, Any] | LoraConfig) -> LoraConfig:
    fields = dict(source) if isinstance(source, Mapping) else source.to_dict()
    kind = getattr(fields.get("peft_type"), "value", fields.get("peft_type", "LORA"))
    if kind != "LORA":
        raise AdapterError(f"the adapter is of kind {kind!r}; this sampler takes LoRA adapters only")
    _refuse_unsupported(fields)
    _refuse_no_numbers(fields)
    fields |= {"inference_mode": True, "init_lora_weights": True, "lora_dropout": 0.0}
    try:
        return LoraConfig(**fields)
    except (TypeError, ValueError) as error:
        raise AdapterError(f"the adapter's configuration is not one of peft's LoraConfig: {error}") from error


def _refuse_unsupported(fields: Mapping[str, Any]) -> None:
    start = fields.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGES_BASE):
        raise AdapterError(
            f"init_lora_weights={start!r} changes the base model too; convert it to a plain LoRA adapter"
        )
    if fields.get("bias", "none") != "none":
        raise AdapterError(f"bias={fields['bias']!r} trains biases of the base model, which adapters share; use 'none'")
    for name in ("layer_replication", "alora_invocation_tokens"):
        if fields.get(name):
            raise AdapterError(f"{name}={fields[name]!r} is not supported by this sampler")


def _refuse_no_numbers(fields: Mapping[str, Any]) -> None:
    """peft looks at these when it makes layers, half of which are there when it fails."""
    for name, kinds in (("r", int), ("lora_alpha", int | float)):
        value = fields.get(name, 8)
        if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
            raise AdapterError(f"the adapter's configuration has {name}={value!r}; it must be a number above 0")


def check_arguments(adapter_name: object, unknown: Mapping[str, Any]) -> None:
    """The errors of add_adapter_to_model for arguments that no engine takes."""
    if unknown:
        raise ConfigError(f"add_adapter_to_model has no argument {next(iter(unknown))!r}; it takes state_dict")
    if not isinstance(adapter_name, str) or adapter_name == "":
        raise AdapterError(
            f"adapter_name is {adapter_name!r}; it must be a string that is not empty ('' is the base model)"
        )
