"""The engine's process dies: it is replaced with all it had, and calls are served or told, never left waiting."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.twinkle.sampler.lora import config_of, make_adapter, weights_of
from twinkle.data_format import SamplingParams
from twinkle.errors import EngineLostError

PROMPTS: Any = [{"input_ids": [5, 6, 7]}, {"input_ids": [9]}]
PARAMS = SamplingParams(max_tokens=40, seed=1, ignore_eos=True)


def kill(sampler: Any) -> None:
    process = sampler._engine._child._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_a_dead_engine_is_replaced_with_all_it_had(sampler: Any, opt_folder: Path) -> None:
    trainer = make_adapter(opt_folder, 1)
    sampler.add_adapter_to_model("a", config_of(trainer), state_dict=weights_of(trainer))
    expected = sampler.sample(PROMPTS, PARAMS, "a", num_samples=4).sequences
    deaths = sampler._engine.deaths

    stream = sampler.stream(PROMPTS, PARAMS, "a", num_samples=4)
    kill(sampler)

    assert sorted(stream, key=lambda s: (s.prompt_index, s.sample_index)) == expected
    assert sampler._engine.deaths == deaths + 1


def test_a_request_that_sees_too_many_die_is_given_up(sampler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinkle.sampler.vllm.engine.MOST_DEATHS", 1)
    stream = sampler.stream(PROMPTS, PARAMS, num_samples=4)
    kill(sampler)

    with pytest.raises(EngineLostError, match="exit code -9"):
        list(stream)
    assert len(sampler.sample(PROMPTS, PARAMS).sequences) == 2
