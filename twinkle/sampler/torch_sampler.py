"""Sampling with PyTorch and transformers alone: small models, debugging, machines without a GPU."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from twinkle import hub
from twinkle.choices import one_of
from twinkle.errors import ConfigError, WeightSyncError
from twinkle.infra import DeviceMesh, current_runtime, remote_class, remote_function
from twinkle.model.attention import FLOAT64, GROUPED
from twinkle.model.folder import DTYPES, read_model
from twinkle.sampler.adapter_source import AdapterSource, check_arguments, read_adapter
from twinkle.sampler.adapters import Adapters, LoadedAdapter
from twinkle.sampler.causal_model import CausalModel
from twinkle.sampler.requests import ModelLimits
from twinkle.sampler.stepped_sampler import CALLS_AT_ONCE, SteppedSampler
from twinkle.sampler.tokenizer import load_tokenizer, require_same_vocabulary
from twinkle.sampler.torch_engine import TorchEngine
from twinkle.sampler.weights import FullWeights


@remote_class(actors="replica", concurrency=CALLS_AT_ONCE)
class TorchSampler(SteppedSampler):
    """Continuous batching of a Hugging Face causal model: rows that ended leave, what waits enters, whoever called.

    The sampler owns its weights: loading copies values and never keeps a caller's tensor. Sampling neither reads nor
    sets the global random generators of torch, numpy or Python. Rows with different adapters, or none, share a batch.

    Promised: the same seed, sample index and weights use the same random numbers whatever else is in the batch, and the
    log-probabilities differ by rounding alone (1e-6 in float32): a token can differ only where a random number falls
    that close to a boundary. With ``exact_attention``, on one thread of a CPU, even the bits are the same: products of
    4 and more rows add up alike, and attention is rounded once from float64, where padding shows in about one value of
    10^8. Not promised: equal bits on a GPU, with several threads, or with another version of torch.

    A call keeps the weights that it began with: an adapter that is replaced or removed meanwhile stays for it, and
    ``update_weights`` waits for the calls in flight, while later ones wait for it.
    """

    def __init__(
        self,
        model_id: str | os.PathLike[str],
        device_mesh: DeviceMesh | None = None,
        remote_group: str | None = None,
        *,
        device: str | None = None,
        dtype: str = "float32",
        max_rows: int = 256,
        exact_attention: bool = False,
    ) -> None:
        """Load a model (id or folder, see hub.resolve).

        ``device_mesh``: dp_size replicas of one rank each; more than one need mode 'ray' and ``remote_group``, the
        name of a group of ``initialize``. The device type of that group is used when ``device`` ("cpu", "cuda",
        "cuda:1", ...) is not given. ``max_rows``: most samples in one batch, of each replica. ``exact_attention``: see
        above; for float32 on a CPU, where long responses take up to twice the time.
        """
        _require_one_rank(device_mesh)
        if max_rows < 1:
            raise ConfigError(f"max_rows is {max_rows!r}; it must be an integer >= 1")
        folder = hub.resolve(model_id)
        tokenizer = load_tokenizer(folder)
        dtype = one_of("dtype", str(dtype), list(DTYPES))
        self._place = _device(device, remote_group)
        attention = _attention(exact_attention, self._place, dtype)
        self._module = read_model(folder, self._place, DTYPES[dtype], attention).requires_grad_(False)
        self._model = CausalModel(self._module)
        require_same_vocabulary(tokenizer, self._model.vocab_size, folder)
        self._weights = FullWeights(self._module)
        self._adapters = Adapters(self._module)
        engine = TorchEngine(self._model, self._adapters, lambda tokens: self.template.decode(tokens), max_rows)
        super().__init__(tokenizer, engine, _limits(self._model, tokenizer))

    @property
    @remote_function(urgent=True)
    def positions(self) -> int | None:
        """Most tokens that prompt and response may have together; None when the model has no bound."""
        return self._model.positions

    @property
    @remote_function(urgent=True)
    def adapter_names(self) -> list[str]:
        """Names of the adapters that can be sampled with."""
        return self._adapters.names

    def add_adapter_to_model(
        self,
        adapter_name: str,
        config_or_dir: AdapterSource,
        *,
        state_dict: Mapping[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add a LoRA adapter from a folder in PEFT's format, or from a configuration (LoraConfig or a mapping of its
        fields) and tensors in memory under the names of PEFT's files.

        A configuration without tensors is a fresh adapter that changes nothing yet. One of that name is replaced:
        calls that begin later have the new weights, calls in flight end with the old ones. Keys or shapes that do not
        fit are an AdapterError that names them, and everything stays as it was. The tensors are copied.
        """
        check_arguments(adapter_name, kwargs)
        config, given = read_adapter(config_or_dir, state_dict)
        self._loop.change(lambda: self._adapters.add(adapter_name, config, given))

    def remove_adapter(self, adapter_name: str) -> None:
        """Forget an adapter; an unknown name is an AdapterError. Calls in flight end with it."""
        self._loop.change(lambda: self._adapters.remove(adapter_name))

    def update_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Replace all weights of the model by copies of these, under the names of its state dict (adapters stay).

        Waits for the calls in flight, at most 300 s (SamplerError); later calls have the new weights. Missing or
        unexpected keys, and wrong shapes, are a WeightSyncError that names them; nothing is changed then.
        """
        self._loop.change(lambda: self._weights.load(state_dict, WeightSyncError), drained=True)

    def sleep(self) -> None:
        """Move the weights to the memory of the machine when the calls in flight have ended; later calls wait for
        ``wake``. The cache of keys and values lives only while there are calls.

        A ConfigError on a CPU, where there is nothing to give back.
        """
        self._require_device_memory("sleep")
        self._loop.sleep(lambda: self._move_to(torch.device("cpu")))

    def wake(self) -> None:
        """Move the weights back; calls that came meanwhile are served now."""
        self._require_device_memory("wake")
        self._loop.wake(lambda: self._move_to(self._place))

    def _pin(self, adapter_name: str) -> LoadedAdapter | None:
        return self._adapters.pin(adapter_name)

    def _unpin(self, adapter: LoadedAdapter | None) -> None:
        self._adapters.unpin(adapter)

    def _require_device_memory(self, what: str) -> None:
        if self._place.type == "cpu":
            raise ConfigError(
                f"{what} is for devices with a memory of their own, this sampler is on 'cpu'; leave it out"
            )

    def _move_to(self, place: torch.device) -> None:
        for tensor in [*self._module.parameters(), *self._module.buffers()]:
            tensor.data = tensor.data.to(place)
        self._weights = FullWeights(self._module)
        self._adapters.moved()
        if self._place.type == "cuda":
            torch.cuda.empty_cache()


def _require_one_rank(mesh: DeviceMesh | None) -> None:
    if mesh is not None and mesh.world_size != 1:
        raise ConfigError(
            f"device_mesh gives a replica {mesh.world_size} ranks; a TorchSampler runs on one, so every axis but "
            "dp_size must be 1"
        )


def _attention(exact: bool, place: torch.device, dtype: str) -> str:
    if exact and (place.type, dtype) != ("cpu", "float32"):
        raise ConfigError(f"exact_attention needs float32 on a CPU, but it is {dtype} on {place.type!r}; leave it out")
    return FLOAT64 if exact else GROUPED


def _device(device: str | None, remote_group: str | None) -> torch.device:
    group = None if remote_group is None else current_runtime().group(remote_group)
    name = device or (group.device_type if group is not None else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}; it must be 'cpu', 'cuda' or 'cuda:<number>'") from error
    if group is not None and chosen.type != group.device_type:
        raise ConfigError(f"device is {name!r}, but the device group {group.name!r} has {group.device_type!r} devices")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {name!r}, but this machine has no usable CUDA device; use 'cpu'")
    return chosen


def _limits(model: CausalModel, tokenizer: Any) -> ModelLimits:
    special = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
    return ModelLimits(model.vocab_size, model.positions, _eos_ids(model.module, tokenizer), special)


def _eos_ids(module: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """EOS ids of the tokenizer and of the model's generation config, which may have several."""
    listed = getattr(module.generation_config, "eos_token_id", None)
    ids = listed if isinstance(listed, list) else [listed]
    return frozenset(token for token in [*ids, tokenizer.eos_token_id] if token is not None)
