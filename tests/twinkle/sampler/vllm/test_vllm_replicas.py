"""vLLM engines as replicas on a device group of a real Ray."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import twinkle
from tests.twinkle.sampler.lora import config_of, make_adapter, weights_of
from tests.twinkle.sampler.vllm.conftest import start
from twinkle import DeviceGroup, DeviceMesh
from twinkle.data_format import SamplingParams
from twinkle.errors import AdapterError, DataError

PROMPTS: Any = [{"input_ids": [5, 6, 7]}, {"input_ids": [9]}, {"input_ids": [4, 4]}]
PARAMS = [SamplingParams(max_tokens=3 + i, seed=i, ignore_eos=True) for i in range(3)]


@pytest.fixture(scope="module")
def replicas(ray_cluster: Any, opt_folder: Path) -> Iterator[Any]:
    twinkle.initialize("ray", groups=[DeviceGroup("samplers", 2, "cpu")])
    yield start(opt_folder, device_mesh=DeviceMesh.from_sizes(dp_size=2), remote_group="samplers")
    twinkle.initialize("local")


def test_replicas_answer_as_one_engine_does(replicas: Any, sampler: Any, opt_folder: Path) -> None:
    trainer = make_adapter(opt_folder, 1)
    for each in (replicas, sampler):
        each.add_adapter_to_model("a", config_of(trainer), state_dict=weights_of(trainer))

    for name in ("", "a"):
        alone = sampler.sample(PROMPTS, PARAMS, name, num_samples=2).sequences
        streamed = replicas.stream(PROMPTS, PARAMS, name, num_samples=2)
        for ours in (replicas.sample(PROMPTS, PARAMS, name, num_samples=2).sequences, [*streamed]):
            in_order = sorted(ours, key=lambda s: (s.prompt_index, s.sample_index))
            assert [s.tokens for s in in_order] == [s.tokens for s in alone]
    with pytest.raises(DataError, match="empty prompt"):
        replicas.sample([PROMPTS[0], {"input_ids": []}], PARAMS[0])
    replicas.remove_adapter("a")
    with pytest.raises(AdapterError, match="unknown adapter 'a'"):
        replicas.sample(PROMPTS, PARAMS, "a")
