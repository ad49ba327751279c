"""What a model's weights and adapters must look like, from its configuration alone: no weights are read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from twinkle.errors import AdapterError, ModelNotFoundError, WeightSyncError
from twinkle.sampler.adapter_source import settings_of, short_key
from twinkle.sampler.weights import check_keys, check_shapes


class ModelShapes:
    """A model without weights, to check tensors against before an engine takes them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._module = self._skeleton()
        self._names: dict[int, list[str]] = {}
        for name, parameter in self._module.named_parameters(remove_duplicate=False):
            self._names.setdefault(id(parameter), []).append(name)
        self._known: list[tuple[dict[str, Any], dict[str, Tensor]]] = []

    @property
    def vocab_size(self) -> int:
        """The number of token ids."""
        return int(self._module.config.get_text_config(decoder=True).vocab_size)

    def eos_ids(self, tokenizer: Any) -> frozenset[int]:
        """EOS ids of the tokenizer and of the folder's generation configuration, which may have several."""
        try:
            generation = GenerationConfig.from_pretrained(str(self._folder), local_files_only=True)
        except OSError:
            generation = self._module.generation_config
        listed = getattr(generation, "eos_token_id", None)
        ids = listed if isinstance(listed, list) else [listed]
        return frozenset(token for token in [*ids, tokenizer.eos_token_id] if token is not None)

    def checked_adapter(self, name: str, config: LoraConfig, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of an adapter's tensors, by their short keys; AdapterError unless they are all there and fit."""
        own = self._adapter(name, config)
        what = f"adapter {name!r}"
        check_keys(what, own.keys() - given.keys(), given.keys() - own.keys(), AdapterError)
        check_shapes(what, own, given, AdapterError)
        return {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in given.items()}

    def require_fit(self, name: str, config: LoraConfig) -> None:
        """AdapterError unless an adapter of this configuration fits the model."""
        self._adapter(name, config)

    def checked_weights(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All weights of the model, tied ones under their first name; WeightSyncError unless they are there and fit."""
        what = "the weights for this model"
        own = dict(self._module.state_dict())
        groups = [
            *self._names.values(),
            *([name] for name in own.keys() - {n for g in self._names.values() for n in g}),
        ]
        missing = [names[0] for names in groups if not given.keys() & set(names)]
        check_keys(what, missing, given.keys() - own.keys(), WeightSyncError)
        check_shapes(what, own, given, WeightSyncError)
        weights = {}
        for names in groups:
            first, *others = [name for name in names if name in given]
            for name in others:
                if not torch.equal(given[first], given[name]):
                    raise WeightSyncError(
                        f"{what}: {first} and {name} are one tied tensor of the model but differ here"
                    )
            weights[names[0]] = given[first]
        return weights

    def _adapter(self, name: str, config: LoraConfig) -> dict[str, Tensor]:
        settings = settings_of(config)
        for known, tensors in self._known:
            if known == settings:
                return tensors
        try:
            with torch.device("meta"), torch.random.fork_rng(devices=[]):
                model = PeftModel(self._skeleton(), config, adapter_name="adapter")
        except (TypeError, ValueError) as error:
            raise AdapterError(f"adapter {name!r} does not fit this model: {error}") from error
        found = get_peft_model_state_dict(model, adapter_name="adapter", save_embedding_layers=False)
        tensors = {short_key(key): tensor for key, tensor in found.items()}
        self._known.append((settings, tensors))
        return tensors

    def _skeleton(self) -> PreTrainedModel:
        try:
            config = AutoConfig.from_pretrained(str(self._folder), local_files_only=True)
            with torch.device("meta"):
                model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(
                f"the folder {str(self._folder)!r} holds no model that can be loaded: {error}"
            ) from error
        return model
