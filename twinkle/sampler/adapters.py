"""LoRA adapters on one model, several by name, through peft.

An adapter's weights are replaced in place when its configuration stays the same, as after every training step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedModel

from twinkle.errors import AdapterError
from twinkle.model.lora_layers import bind_layers
from twinkle.sampler.adapter_source import AdapterSource, read_adapter, settings_of, short_key
from twinkle.sampler.weights import check_keys, check_shapes, copy_into


@dataclass(frozen=True, slots=True)
class _Loaded:
    inner_name: str
    settings: dict[str, Any]
    tensors: dict[str, Tensor]


class Adapters:
    """The adapters of a model by name; '' is the model without any."""

    def __init__(self, module: PreTrainedModel) -> None:
        self._module = module
        self._peft: PeftModel | None = None
        self._loaded: dict[str, _Loaded] = {}
        self._active = ""
        self._created = 0

    @property
    def names(self) -> list[str]:
        """Names of the adapters that can be sampled with."""
        return list(self._loaded)

    def add(self, name: str, source: AdapterSource, state_dict: Mapping[str, Tensor] | None) -> None:
        """Add or replace an adapter; it is checked as a whole before anything that exists is changed.

        ``source`` is a folder in PEFT's format or a LoRA configuration. ``state_dict`` holds weights under the names of
        PEFT's files; a configuration without one is a fresh adapter, which changes nothing until weights come.
        """
        if not _is_name(name):
            raise AdapterError(
                f"adapter_name is {name!r}; it must be a string that is not empty ('' is the base model)"
            )
        config, given = read_adapter(source, state_dict)
        settings = settings_of(config)
        old = self._loaded.get(name)
        if old is not None and old.settings == settings and given is not None:
            _load(name, old.tensors, given)
            return
        new = self._create(name, config, settings)
        try:
            if given is not None:
                _load(name, new.tensors, given)
        except AdapterError:
            self._delete(new.inner_name)
            raise
        self._loaded[name] = new
        if old is not None:
            self._delete(old.inner_name)

    def remove(self, name: str) -> None:
        """Forget an adapter; an unknown name is an AdapterError."""
        self._delete(self._known(name).inner_name)
        del self._loaded[name]

    def activate(self, name: str) -> None:
        """Let the model compute with one adapter, or with none ('')."""
        inner_name = self._known(name).inner_name if name else ""
        if self._peft is None or inner_name == self._active:
            return
        if inner_name:
            self._peft.base_model.enable_adapter_layers()
            self._peft.base_model.set_adapter(inner_name, inference_mode=True)
        else:
            self._peft.base_model.disable_adapter_layers()
        bind_layers(self._module, inner_name)
        self._active = inner_name

    def _known(self, name: str) -> _Loaded:
        if name not in self._loaded:
            known = ", ".join(map(repr, self._loaded)) or "none; add one with add_adapter_to_model"
            raise AdapterError(f"unknown adapter {name!r}; known adapters: {known}")
        return self._loaded[name]

    def _create(self, name: str, config: LoraConfig, settings: dict[str, Any]) -> _Loaded:
        inner_name = f"adapter{self._created}"
        try:
            with torch.random.fork_rng(devices=[]):
                if self._peft is None:
                    self._peft = PeftModel(self._module, config, adapter_name=inner_name)
                else:
                    self._peft.add_adapter(inner_name, config)
        except ValueError as error:
            raise AdapterError(f"adapter {name!r} does not fit this model: {error}") from error
        self._created += 1
        self._peft.eval()
        self._active = inner_name
        self.activate("")
        tensors = get_peft_model_state_dict(self._peft, adapter_name=inner_name, save_embedding_layers=False)
        return _Loaded(inner_name, settings, {short_key(key): tensor for key, tensor in tensors.items()})

    def _delete(self, inner_name: str) -> None:
        if self._peft is not None:
            self.activate("")
            self._peft.base_model.set_adapter([], inference_mode=True)
            self._peft.delete_adapter(inner_name)


def _load(name: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    what = f"adapter {name!r}"
    check_keys(what, own.keys() - given.keys(), given.keys() - own.keys(), AdapterError)
    check_shapes(what, own, given, AdapterError)
    copy_into(own, given)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""
