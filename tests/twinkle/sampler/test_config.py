"""Settings of generation that cannot be right."""

import pytest

from twinkle.errors import ConfigError
from twinkle.sampler.config import SamplerConfig


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            SamplerConfig(engine="troch"),
            r"sampler\.engine='troch' is unknown; choose one of: torch, vllm; did you mean torch\?$",
        ),
        (SamplerConfig(engine="x"), r"sampler\.engine='x' is unknown; choose one of: torch, vllm\.$"),
        (SamplerConfig(engine_args={"max_model_len": 64}), r"sampler\.engine_args=.*sampler=vllm"),
        (SamplerConfig(max_tokens=0), r"sampler\.max_tokens=0"),
        (SamplerConfig(temperature=0.0), r"sampler\.temperature=0\.0 must be above 0"),
        (SamplerConfig(top_p=0.9), r"sampler\.top_p=0\.9"),
        (SamplerConfig(top_k=5), r"top_k=5"),
    ],
)
def test_a_setting_that_cannot_work_is_named(config: SamplerConfig, message: str) -> None:
    SamplerConfig().validate()
    with pytest.raises(ConfigError, match=message):
        config.validate()
