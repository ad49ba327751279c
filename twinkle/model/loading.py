"""From a model folder to a module that is ready to train."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import PreTrainedModel

from twinkle.errors import ConfigError
from twinkle.model.attention import FLOAT64
from twinkle.model.config import LoraSettings, ModelConfig
from twinkle.model.folder import DTYPES, read_model
from twinkle.model.lora_layers import bind_layers


def device_of(config: ModelConfig) -> torch.device:
    """The device that the configuration names; ConfigError when this machine does not have it."""
    device = torch.device(config.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"model.device={config.device}, but torch sees {torch.cuda.device_count()} CUDA devices; "
            "set model.device=cpu or install a torch that fits this machine's driver."
        )
    return device


def attention_of(config: ModelConfig) -> str:
    """Which attention the model computes, unless named: sdpa on CUDA; on a CPU what repeats bit for bit, in float64
    for a float32 model and eager for others."""
    if config.attention != "auto":
        return config.attention
    if config.device.startswith("cuda"):
        return "sdpa"
    return FLOAT64 if config.dtype == "float32" else "eager"


def load_frozen(folder: str, config: ModelConfig) -> PreTrainedModel:
    """The model in `folder`, frozen, without dropout, on its device in `config.dtype`."""
    return _read(folder, config, DTYPES[config.dtype]).requires_grad_(False)


def load_trainable(folder: str, config: ModelConfig) -> PreTrainedModel | PeftModel:
    """The model in `folder`, with an adapter that starts at zero or with all its weights trainable.

    What is trained is float32, a frozen model below an adapter is `config.dtype`. Dropout is off for good: it would
    make the trainer's log-probs differ from the sampler's. The global RNG is left as it was.
    """
    if not config.lora.enabled:
        return _read(folder, config, torch.float32)
    adapted = with_adapter(load_frozen(folder, config), config.lora, config.seed).eval()
    bind_layers(adapted, adapted.active_adapter)
    return adapted


def with_adapter(model: PreTrainedModel, settings: LoraSettings, seed: int) -> PeftModel:
    """`model` with a LoRA adapter on its linear layers, initialised from `seed`; ConfigError when no layer has such a
    name."""
    names = [name.strip() for name in settings.target_modules.split(",") if name.strip()]
    lora = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        target_modules=names[0] if names == ["all-linear"] else names,
        task_type="CAUSAL_LM",
    )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            adapted: PeftModel = get_peft_model(model, lora)
    except ValueError as error:
        layers = sorted(
            {name.rpartition(".")[2] for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
        )
        raise ConfigError(
            f"model.lora.target_modules={settings.target_modules!r} does not fit this model, whose linear layers are: "
            f"{', '.join(layers)}. {error}"
        ) from error
    return adapted


def skeleton(folder: str, config: ModelConfig) -> PreTrainedModel | PeftModel:
    """The model in `folder` as shapes alone, with its adapter if it gets one: nothing is read but config.json."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        return with_adapter(model.requires_grad_(False), config.lora, 0) if config.lora.enabled else model


def _read(folder: str, config: ModelConfig, dtype: torch.dtype) -> PreTrainedModel:
    return read_model(folder, device_of(config), dtype, attention_of(config))
