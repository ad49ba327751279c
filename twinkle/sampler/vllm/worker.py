"""What the engine's workers can do beyond vLLM: methods that vLLM mixes into its worker class.

Each returns None, or what was wrong as text: an exception in one worker would leave the others waiting for the next
call's answers.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper

from twinkle.sampler.vllm.arena import Layout, mapped
from twinkle.sampler.vllm.row_sampler import RowSampler


def _answering(method: Callable[..., None]) -> Callable[..., str | None]:
    @wraps(method)
    def answer(*args: Any, **kwargs: Any) -> str | None:
        try:
            method(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  vLLM documents no error type for adapters and weights
            return f"{type(error).__name__}: {error}"
        return None

    return answer


class WorkerExtension:
    """Installed by vLLM's option worker_extension_cls; ``self`` is the worker."""

    model_runner: Any

    @_answering
    def twinkle_install(self) -> None:
        """Put our sampler in the place of vLLM's."""
        self.model_runner.sampler = RowSampler(self.model_runner.model_config.logprobs_mode)

    @_answering
    def twinkle_add_adapter(self, number: int, config: Mapping[str, Any], path: str, layout: Layout) -> None:
        """Load and activate an adapter from tensors in shared memory, which are copied."""
        worker_adapters = self.model_runner.lora_manager
        adapters = worker_adapters._adapter_manager
        helper = PEFTHelper.from_dict(dict(config))
        helper.validate_legal(worker_adapters.lora_config)
        # The scale of an adapter is multiplied into lora_B in place, so each tensor must be a copy.
        tensors = {name: tensor.clone() for name, tensor in mapped(path, layout).items()}
        mapper = getattr(adapters.model, "hf_to_vllm_mapper", None)
        loaded = LoRAModel.from_lora_tensors(
            lora_model_id=number,
            tensors=tensors,
            peft_helper=helper,
            device="cpu",
            dtype=worker_adapters.lora_config.lora_dtype,
            model_vocab_size=worker_adapters.vocab_size,
            weights_mapper=None if mapper is None else mapper.get_rename_mapper(),
            skip_prefixes=getattr(adapters.model, "lora_skip_prefixes", None),
        )
        _require_modules(loaded, adapters)
        adapters.add_adapter(loaded)
        adapters.activate_adapter(number)

    @_answering
    def twinkle_remove_adapter(self, number: int) -> None:
        """Forget an adapter."""
        self.model_runner.lora_manager.remove_adapter(number)

    @_answering
    def twinkle_update_weights(self, path: str, layout: Layout) -> None:
        """Load all weights of the model from shared memory; vLLM forgets its adapters with that, they are put back."""
        adapters: Any = None
        if hasattr(self.model_runner, "lora_manager"):
            adapters = self.model_runner.lora_manager._adapter_manager
        kept = [] if adapters is None else list(adapters._registered_adapters.cache.items())
        self.model_runner.reload_weights(weights_iterator=iter(mapped(path, layout).items()))
        for number, loaded in kept:
            adapters._registered_adapters[number] = loaded
            adapters.activate_adapter(number)


def _require_modules(loaded: LoRAModel, adapters: Any) -> None:
    """Refuse an adapter of layers that vLLM would silently run without."""
    known = set()
    for name in adapters.modules:
        parent, _, last = name.rpartition(".")
        parts = adapters.packed_modules_mapping.get(last, [last])
        known |= {name, *(f"{parent}.{part}" if parent else part for part in parts)}
    unknown = sorted(set(loaded.loras) - known)
    if unknown:
        raise ValueError(f"vLLM cannot adapt {', '.join(unknown[:5])} of this model")
