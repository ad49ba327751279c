"""A tiny model, and batches for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from twinkle.model.batch import TrainBatch, make_batch
from twinkle.model.config import LoraSettings, ModelConfig, OptimConfig
from twinkle.model.policy import Policy
from twinkle.model.tiny import make_tiny_opt, make_tiny_qwen2


@pytest.fixture(scope="session")
def tiny_opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_opt(tmp_path_factory.mktemp("opt"), alphabet="01234567")


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_qwen2(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(params=["opt", "qwen2"])
def folder(request: pytest.FixtureRequest, tiny_opt: Path, tiny_qwen2: Path) -> Path:
    return tiny_opt if request.param == "opt" else tiny_qwen2


PolicyMaker = Callable[..., Policy]


@pytest.fixture
def make_policy(tiny_opt: Path) -> PolicyMaker:
    """A policy on the tiny OPT, or on `folder`, with an adapter or without; other settings are the optimizer's."""

    def make(*, lora: bool = True, folder: Path = tiny_opt, seed: int = 0, **optim: float) -> Policy:
        config = ModelConfig(id=str(folder), seed=seed, lora=LoraSettings(enabled=lora))
        return Policy(folder, config, replace(OptimConfig(), **optim))  # type: ignore[arg-type]

    return make


def random_batch(
    *, rows: int = 8, seed: int = 0, lengths: tuple[int, int] = (1, 6), vocabulary: int = 12
) -> TrainBatch:
    """Rows of random tokens, with prompts of 2-5 and responses of `lengths` tokens, and log-probs and advantages."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> torch.Tensor:
        size = int(torch.randint(low, high + 1, (), generator=generator))
        return torch.randint(4, vocabulary, (size,), generator=generator)

    responses = [tokens(*lengths) for _ in range(rows)]
    return make_batch(
        [tokens(2, 5) for _ in range(rows)],
        responses,
        [torch.log(torch.rand(len(response), generator=generator)) for response in responses],
        torch.randn(rows, generator=generator),
    )


def on_policy(policy: Policy, batch: TrainBatch, temperature: float = 1.0) -> TrainBatch:
    """The batch as if `policy` had sampled its responses."""
    return replace(batch, old_logprobs_BT=policy.token_logprobs(batch, temperature))
