"""LoRA adapters on one model, several by name, through peft.

A call pins the adapter that its name means at that moment, and keeps it: an adapter that is replaced while calls use it
lives on, without a name, until the last of them has ended. Its modules are kept as a spare then, so that an adapter
which is replaced again and again under load has two sets of modules and makes no third.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedModel

from twinkle.errors import AdapterError
from twinkle.model.lora_layers import bind_layers
from twinkle.sampler.adapter_source import settings_of, short_key
from twinkle.sampler.mixed_lora import MixedLayers, can_mix
from twinkle.sampler.weights import check_keys, check_shapes, copy_into

MIXED = ""


class LoadedAdapter:
    """The modules of an adapter in the model: equal settings, equal modules. ``users`` counts calls that hold it."""

    def __init__(self, inner_name: str, settings: dict[str, Any], tensors: dict[str, Tensor], mixes: bool) -> None:
        self.inner_name = inner_name
        self.settings = settings
        self.tensors = tensors
        self.mixes = mixes
        self.users = 0


class Adapters:
    """The adapters of a model by name; None is the model without any.

    ``pin`` and ``unpin`` may be called by any thread at any time, ``bind`` by the engine's alone; adapters are added
    and removed between two steps of the engine.
    """

    def __init__(self, module: PreTrainedModel) -> None:
        self._module = module
        self._peft: PeftModel | None = None
        self._mixed = MixedLayers(module)
        self._named: dict[str, LoadedAdapter] = {}
        self._unnamed: list[LoadedAdapter] = []
        self._users = threading.Lock()
        self._created = 0
        self._bound: Sequence[LoadedAdapter | None] | None = None
        self._alone: str | None = None

    @property
    def names(self) -> list[str]:
        """Names of the adapters that can be sampled with."""
        return list(self._named)

    def pin(self, name: str) -> LoadedAdapter | None:
        """The adapter of that name, which stays as it is until ``unpin``; an unknown name is an AdapterError."""
        if not name:
            return None
        with self._users:
            loaded = self._known(name)
            loaded.users += 1
            return loaded

    def unpin(self, adapter: LoadedAdapter | None) -> None:
        """A call that had pinned it has ended."""
        if adapter is not None:
            with self._users:
                adapter.users -= 1

    def add(self, name: str, config: LoraConfig, given: Mapping[str, Tensor] | None) -> None:
        """Add or replace an adapter; it is checked as a whole before anything that exists is changed.

        ``given`` holds weights by short key; a configuration without any is a fresh adapter, which changes nothing yet.
        """
        settings = settings_of(config)
        old = self._named.get(name)
        free = self._free(name, settings) if given is not None else None
        if free is not None and given is not None:
            _load(name, free.tensors, given)
            new = free
        else:
            new = self._create(name, config, settings)
            try:
                if given is not None:
                    _load(name, new.tensors, given)
            except AdapterError:
                self._delete(new)
                raise
        self._bound = None
        self._mixed.forget()
        self._named[name] = new
        if new in self._unnamed:
            self._unnamed.remove(new)
        if old is not None and old is not new:
            self._retire(old)

    def remove(self, name: str) -> None:
        """Forget an adapter; an unknown name is an AdapterError. Calls that hold it end with it as it is."""
        with self._users:
            old = self._known(name)
            del self._named[name]
        self._retire(old)

    def batch_of(self, adapter: LoadedAdapter | None) -> str:
        """Name of the batch that rows of this adapter belong to: all whose adapters can share a forward are in one."""
        return MIXED if adapter is None or adapter.mixes else adapter.inner_name

    def bind(self, rows: Sequence[LoadedAdapter | None]) -> None:
        """Let the next forward compute row i with adapter ``rows[i]``; all of one batch."""
        if rows is self._bound or self._peft is None:
            return
        first = rows[0]
        if first is not None and not first.mixes:
            self._switch_to(first.inner_name)
        else:
            self._switch_to("")
            self._mixed.bind([None if adapter is None else adapter.inner_name for adapter in rows])
        self._bound = rows

    def moved(self) -> None:
        """The weights of the model lie on another device now, those of the adapters among them."""
        self._bound, self._alone = None, None
        self._mixed.forget()
        if self._peft is not None:
            for each in [*self._named.values(), *self._unnamed]:
                each.tensors = _tensors_of(self._peft, each.inner_name)

    def _switch_to(self, inner_name: str) -> None:
        """Let peft compute with one adapter that cannot be mixed, or with none ('')."""
        if self._peft is None or inner_name == self._alone:
            return
        if inner_name:
            self._peft.base_model.enable_adapter_layers()
            self._peft.base_model.set_adapter(inner_name, inference_mode=True)
        else:
            self._peft.base_model.disable_adapter_layers()
        bind_layers(self._module, inner_name)
        self._mixed.forget()
        self._alone = inner_name

    def _known(self, name: str) -> LoadedAdapter:
        if name not in self._named:
            known = ", ".join(map(repr, self._named)) or "none; add one with add_adapter_to_model"
            raise AdapterError(f"unknown adapter {name!r}; known adapters: {known}")
        return self._named[name]

    def _free(self, name: str, settings: dict[str, Any]) -> LoadedAdapter | None:
        """Modules of these settings that no call holds: those of the adapter itself, or a spare."""
        own = self._named.get(name)
        with self._users:
            candidates = ([] if own is None else [own]) + self._unnamed
            return next((each for each in candidates if each.users == 0 and each.settings == settings), None)

    def _create(self, name: str, config: LoraConfig, settings: dict[str, Any]) -> LoadedAdapter:
        inner_name = f"adapter{self._created}"
        try:
            with torch.random.fork_rng(devices=[]):
                if self._peft is None:
                    self._peft = PeftModel(self._module, config, adapter_name=inner_name)
                else:
                    self._peft.add_adapter(inner_name, config)
        except (TypeError, ValueError) as error:
            raise AdapterError(f"adapter {name!r} does not fit this model: {error}") from error
        self._created += 1
        self._peft.eval()
        self._alone = None
        self._mixed.find_layers()
        tensors = _tensors_of(self._peft, inner_name)
        return LoadedAdapter(inner_name, settings, tensors, can_mix(self._module, inner_name))

    def _retire(self, old: LoadedAdapter) -> None:
        """Keep the modules while calls hold them, and as a spare where they do; delete the others."""
        with self._users:
            in_use = old.users > 0
            useless = [each for each in self._unnamed if each.users == 0 and each.settings == old.settings]
        if in_use:
            self._unnamed.append(old)
        else:
            useless.append(old)
        for each in useless:
            self._delete(each)

    def _delete(self, adapter: LoadedAdapter) -> None:
        if adapter in self._unnamed:
            self._unnamed.remove(adapter)
        if self._peft is not None:
            self._switch_to("")
            self._peft.base_model.set_adapter([], inference_mode=True)
            self._peft.delete_adapter(adapter.inner_name)
            self._alone, self._bound = None, None
            self._mixed.forget()


def _tensors_of(model: PeftModel, inner_name: str) -> dict[str, Tensor]:
    tensors = get_peft_model_state_dict(model, adapter_name=inner_name, save_embedding_layers=False)
    return {short_key(key): tensor for key, tensor in tensors.items()}


def _load(name: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    what = f"adapter {name!r}"
    check_keys(what, own.keys() - given.keys(), given.keys() - own.keys(), AdapterError)
    check_shapes(what, own, given, AdapterError)
    copy_into(own, given)
