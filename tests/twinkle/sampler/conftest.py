"""Tiny models of two families on disk, and the slow and obviously right way to get log-probabilities."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from twinkle.model.folder import without_progress_bars
from twinkle.model.tiny import make_tiny_opt, make_tiny_qwen2
from twinkle.sampler import TorchSampler


@pytest.fixture(scope="session")
def opt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_opt(tmp_path_factory.mktemp("opt"))


@pytest.fixture(scope="session")
def qwen2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_qwen2(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="session", params=["opt", "qwen2"])
def folder(request: pytest.FixtureRequest, opt_folder: Path, qwen2_folder: Path) -> Path:
    """Learned positions, then rotary ones."""
    return opt_folder if request.param == "opt" else qwen2_folder


@pytest.fixture
def sampler(opt_folder: Path) -> TorchSampler:
    return TorchSampler(opt_folder)


def load(folder: Path) -> PreTrainedModel:
    """The model as a trainer would load it: another copy of the weights."""
    with without_progress_bars():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    return model


@torch.no_grad()
def logits_uncached(model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int]) -> torch.Tensor:
    """Logits [response tokens, V] by one forward over prompt + response, right-padded, without a cache."""
    ids = [*prompt, *response]
    padding = 3
    batch = torch.tensor([ids + [0] * padding, ids + [1] * padding])
    mask = torch.tensor([[1] * len(ids) + [0] * padding] * 2)
    logits: torch.Tensor = model(input_ids=batch, attention_mask=mask, use_cache=False).logits
    return logits[0, len(prompt) - 1 : len(ids) - 1]


def logprobs_uncached(model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int]) -> list[float]:
    """Log-probabilities of the response's tokens, computed the slow way."""
    logp = logits_uncached(model, prompt, response).log_softmax(-1)
    return [float(value) for value in logp[torch.arange(len(response)), torch.tensor(list(response))]]
