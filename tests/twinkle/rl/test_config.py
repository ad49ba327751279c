"""Settings of the algorithm."""

import dataclasses
import subprocess
import sys

import pytest

from twinkle.errors import ConfigError
from twinkle.rl.config import AlgoConfig


def test_the_defaults_are_valid() -> None:
    AlgoConfig().validate()


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("advantage", "grp", "; did you mean grpo?"),
        ("aggregation", "mean", "choose one of: sequence_mean, token_mean, constant_length"),
        ("aggregation", "constant_length", "set it to sampler.max_tokens"),
        ("control", "random", "algo.control='random' is unknown"),
        ("clip_low", 0.0, "algo.clip_low=0.0"),
        ("clip_low", 1.5, "algo.clip_low=1.5"),
        ("clip_high", -0.1, "algo.clip_high=-0.1"),
        ("clip_high", float("inf"), "algo.clip_high=inf"),
        ("kl_coef", -1.0, "algo.kl_coef=-1.0"),
        ("std_eps", 0.0, "algo.std_eps=0.0"),
        ("updates_per_step", 0, "algo.updates_per_step=0"),
    ],
)
def test_a_setting_that_cannot_work_is_named(field: str, value: object, part: str) -> None:
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(AlgoConfig(), **{field: value}).validate()  # type: ignore[arg-type]

    assert part in str(error.value)


@pytest.mark.parametrize("module", ["twinkle.rl.config", "twinkle.model.config", "twinkle.data.config"])
def test_settings_load_no_heavy_module(module: str) -> None:
    heavy = "{'torch', 'transformers', 'peft', 'hydra', 'numpy', 'datasets'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert output.strip() == "[]"
