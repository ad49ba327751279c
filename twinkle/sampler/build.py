"""From settings to the sampler of a run."""

from pathlib import Path

from twinkle.infra import DeviceMesh
from twinkle.model.config import ModelConfig
from twinkle.sampler.base import Sampler
from twinkle.sampler.config import SamplerConfig


def make_sampler(
    config: SamplerConfig,
    model: ModelConfig,
    folder: Path,
    device_mesh: DeviceMesh | None = None,
    remote_group: str | None = None,
) -> Sampler:
    """A sampler on the model in ``folder``, with room for the one adapter that is trained, or for none; on
    ``model.device``, or on the devices of a group."""
    if config.engine == "torch":
        from twinkle.model.attention import FLOAT64
        from twinkle.model.loading import attention_of
        from twinkle.sampler.torch_sampler import TorchSampler

        device = model.device if remote_group is None else None
        exact = attention_of(model) == FLOAT64  # as the trainer attends, so that both get the same log-probs
        return TorchSampler(folder, device_mesh, remote_group, device=device, dtype=model.dtype, exact_attention=exact)
    from twinkle.sampler.vllm_sampler import vLLMSampler

    return vLLMSampler(
        folder,
        device_mesh,
        remote_group,
        engine_args={"dtype": model.dtype} | config.engine_args,
        max_adapters=int(model.lora.enabled),
        max_lora_rank=model.lora.r,
    )
