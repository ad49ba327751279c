"""The estimate of a training step's memory."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.twinkle.model.conftest import PolicyMaker
from twinkle.errors import ModelNotFoundError
from twinkle.model.config import LoraSettings, ModelConfig
from twinkle.model.memory import estimate_memory

FULL = ModelConfig(lora=LoraSettings(enabled=False))


@pytest.mark.parametrize("lora", [True, False])
def test_parameters_are_counted_exactly(make_policy: PolicyMaker, folder: Path, lora: bool) -> None:
    policy = make_policy(folder=folder, lora=lora)

    estimate = estimate_memory(folder, policy.config, rows=1, tokens=8)

    assert (estimate.parameters, estimate.trainable) == (policy.num_parameters, policy.num_trainable)


def test_bytes_by_hand(tiny_opt: Path) -> None:
    estimate = estimate_memory(tiny_opt, FULL, rows=2, tokens=10)

    n = estimate.parameters
    assert (estimate.weights, estimate.gradients, estimate.optimizer) == (4 * n, 4 * n, 8 * n)
    assert estimate.activations == 2 * 10 * (2 * (17 + 8) * 64 * 4 + 3 * 12 * 4)
    assert estimate.total == 16 * n + estimate.activations


def test_scores_are_counted_where_attention_keeps_them(tiny_opt: Path) -> None:
    eager, sdpa = (
        estimate_memory(tiny_opt, replace(FULL, attention=name), rows=2, tokens=10) for name in ("eager", "sdpa")
    )

    assert eager.activations == 2 * 10 * (2 * (17 * 64 + 2.5 * 2 * 10) * 4 + 3 * 12 * 4)
    assert sdpa.activations == 2 * 10 * (2 * 17 * 64 * 4 + 3 * 12 * 4)


def test_a_reference_model_and_a_narrower_type_are_counted(tiny_opt: Path) -> None:
    n = estimate_memory(tiny_opt, FULL, rows=1, tokens=1).parameters

    assert estimate_memory(tiny_opt, FULL, rows=1, tokens=1, kl_coef=0.1).weights == 8 * n
    lora = estimate_memory(
        tiny_opt, replace(FULL, dtype="bfloat16", lora=LoraSettings()), rows=1, tokens=1, kl_coef=0.1
    )
    assert lora.weights == 2 * n + 4 * lora.trainable


def test_weights_need_not_be_there_but_the_model_must(tiny_opt: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_opt / "config.json").read_bytes())

    assert estimate_memory(tmp_path, FULL, rows=1, tokens=1) == estimate_memory(tiny_opt, FULL, rows=1, tokens=1)
    with pytest.raises(ModelNotFoundError):
        estimate_memory(tmp_path / "none", FULL, rows=1, tokens=1)
