"""Adapters as a trainer would have them."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict

from tests.twinkle.sampler.conftest import load


def make_adapter(folder: Path, seed: int, **settings: Any) -> PeftModel:
    """An adapter that matters: no tensor of it is zero."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | settings
    model = get_peft_model(load(folder), LoraConfig(**settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def weights_of(model: PeftModel) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return weights


def config_of(model: PeftModel) -> LoraConfig:
    return model.peft_config["default"]
