"""From settings to the sampler of a run."""

from pathlib import Path

from twinkle.model.config import ModelConfig
from twinkle.sampler.base import Sampler
from twinkle.sampler.config import SamplerConfig


def make_sampler(config: SamplerConfig, model: ModelConfig, folder: Path) -> Sampler:
    """A sampler on the model in ``folder``, with room for the one adapter that is trained, or for none."""
    if config.engine == "torch":
        from twinkle.model.attention import FLOAT64
        from twinkle.model.loading import attention_of
        from twinkle.sampler.torch_sampler import TorchSampler

        # It attends as the trainer does, so that both get the same log-probs.
        exact = attention_of(model) == FLOAT64
        return TorchSampler(folder, device=model.device, dtype=model.dtype, exact_attention=exact)
    from twinkle.sampler.vllm_sampler import vLLMSampler

    return vLLMSampler(
        folder,
        engine_args={"dtype": model.dtype} | config.engine_args,
        max_adapters=int(model.lora.enabled),
        max_lora_rank=model.lora.r,
    )
