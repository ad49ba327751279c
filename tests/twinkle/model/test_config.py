"""Settings of model and optimizer."""

from dataclasses import replace

import pytest

from twinkle.errors import ConfigError
from twinkle.model.config import LoraSettings, ModelConfig, OptimConfig, TinySettings


def test_the_defaults_are_valid() -> None:
    ModelConfig().validate()
    OptimConfig().validate()


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (ModelConfig(id=""), "model.id"),
        (ModelConfig(dtype="flaot32"), "did you mean float32?"),
        (ModelConfig(device="gpu"), "model.device='gpu'"),
        (ModelConfig(device="cuda:x"), "model.device='cuda:x'"),
        (ModelConfig(attention="fast"), "model.attention='fast'"),
        (ModelConfig(lora=LoraSettings(r=0)), "model.lora.r=0"),
        (ModelConfig(lora=LoraSettings(alpha=0)), "model.lora.alpha=0"),
        (ModelConfig(lora=LoraSettings(target_modules=" ")), "model.lora.target_modules"),
        (ModelConfig(tiny=TinySettings(hidden_size=48)), "model.tiny.hidden_size=48"),
        (ModelConfig(tiny=TinySettings(layers=0)), "model.tiny.layers=0"),
        (ModelConfig(tiny=TinySettings(alphabet="")), "model.tiny.alphabet"),
        (ModelConfig(tiny=TinySettings(init_std=0.0)), "model.tiny.init_std=0.0"),
        (OptimConfig(lr=0.0), "optim.lr=0.0"),
        (OptimConfig(beta1=1.0), "optim.beta1=1.0"),
        (OptimConfig(weight_decay=-0.1), "optim.weight_decay=-0.1"),
        (OptimConfig(max_grad_norm=float("nan")), "optim.max_grad_norm=nan"),
        (OptimConfig(tokens_per_microbatch=-1), "optim.tokens_per_microbatch=-1"),
    ],
)
def test_a_setting_that_cannot_work_is_named(config: ModelConfig | OptimConfig, part: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.validate()

    assert part in str(error.value)


def test_indexed_devices_are_valid() -> None:
    replace(ModelConfig(), device="cuda:1").validate()
