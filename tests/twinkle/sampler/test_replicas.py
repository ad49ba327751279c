"""A TorchSampler on a device group: replicas share the prompts, and answer as one sampler does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import twinkle
from tests.twinkle.sampler.lora import config_of, make_adapter, weights_of
from twinkle import DeviceGroup, DeviceMesh
from twinkle.data_format import SamplingParams
from twinkle.errors import AdapterError, ConfigError, DataError, SampleAbortedError, SampleTimeoutError
from twinkle.sampler import Sampler, TorchSampler
from twinkle.template import make_template

PROMPTS: Any = [{"input_ids": [5, 6, 7]}, {"input_ids": [9]}, {"input_ids": [4, 4]}]
PARAMS = [SamplingParams(max_tokens=3 + i, seed=i, ignore_eos=True) for i in range(3)]
LONG = SamplingParams(max_tokens=900, ignore_eos=True)


@pytest.fixture(scope="module")
def replicas(ray_cluster: Any, qwen2_folder: Path) -> Iterator[Any]:
    twinkle.initialize("ray", groups=[DeviceGroup("samplers", 2, "cpu")])
    yield TorchSampler(qwen2_folder, DeviceMesh.from_sizes(dp_size=2), remote_group="samplers")
    twinkle.initialize("local")


@pytest.fixture(scope="module")
def alone(qwen2_folder: Path) -> Iterator[TorchSampler]:
    with TorchSampler(qwen2_folder) as sampler:
        yield sampler


def same(one: Any, other: Any) -> bool:
    return [(s.prompt_index, s.sample_index, s.tokens) for s in one] == [
        (s.prompt_index, s.sample_index, s.tokens) for s in other
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_results_are_those_of_one_sampler_in_order(replicas: Any, alone: TorchSampler, count: int) -> None:
    inputs, params = (PROMPTS * 3)[:count], (PARAMS * 3)[:count]
    ours = replicas.sample(inputs, params, num_samples=2).sequences

    assert isinstance(replicas, Sampler)
    assert same(ours, alone.sample(inputs, params, num_samples=2).sequences)


def test_a_stream_has_every_sequence_with_its_index(replicas: Any, alone: TorchSampler) -> None:
    streamed = sorted(replicas.stream(PROMPTS, PARAMS, num_samples=2), key=lambda s: (s.prompt_index, s.sample_index))

    assert same(streamed, alone.sample(PROMPTS, PARAMS, num_samples=2).sequences)


def test_adapters_and_weights_reach_every_replica(replicas: Any, alone: TorchSampler, qwen2_folder: Path) -> None:
    trainer = make_adapter(qwen2_folder, 1)
    own = {name: tensor.clone() for name, tensor in alone._module.state_dict().items()}
    for sampler in (replicas, alone):
        sampler.add_adapter_to_model("a", config_of(trainer), state_dict=weights_of(trainer))

    assert replicas.adapter_names == ["a"]
    assert same(replicas.sample(PROMPTS, PARAMS, "a").sequences, alone.sample(PROMPTS, PARAMS, "a").sequences)
    replicas.remove_adapter("a")
    with pytest.raises(AdapterError, match="unknown adapter 'a'"):
        replicas.sample(PROMPTS, PARAMS, "a")
    alone.remove_adapter("a")
    for sampler in (replicas, alone):
        sampler.update_weights({name: tensor * 0.9 for name, tensor in own.items()})
    assert same(replicas.sample(PROMPTS, PARAMS).sequences, alone.sample(PROMPTS, PARAMS).sequences)
    for sampler in (replicas, alone):
        sampler.update_weights(own)


def test_errors_come_as_they_are(replicas: Any) -> None:
    with pytest.raises(DataError, match="input 2 is an empty prompt"):
        replicas.sample([*PROMPTS[:2], {"input_ids": []}], PARAMS[0])
    with pytest.raises(DataError, match="input 3 has the token id 1000000"):
        list(replicas.stream([*PROMPTS, {"input_ids": [10**6]}], PARAMS[0]))
    with pytest.raises(DataError, match="input 0 is an empty prompt"):
        replicas.sample({"input_ids": []}, PARAMS[0])
    with pytest.raises(SampleTimeoutError):
        replicas.sample(PROMPTS, LONG, timeout_s=1e-6)
    with pytest.raises(ConfigError, match="leave it out"):
        replicas.sleep()

    assert len(replicas.sample(PROMPTS, PARAMS).sequences) == 3


def test_a_handle_has_the_template_and_the_tokenizer(replicas: Any, alone: TorchSampler) -> None:
    conversation: Any = {"messages": [{"role": "user", "content": "ab"}]}
    replicas.set_template("plain", system_prompt="c")
    try:
        template = replicas.template
        ids = template.encode(conversation)["input_ids"]

        assert ids == make_template("plain", alone.tokenizer, system_prompt="c").encode(conversation)["input_ids"]
        assert replicas.tokenizer.decode(ids) == alone.tokenizer.decode(ids)
        asked = replicas.sample(conversation, PARAMS[0]).sequences
        assert same(asked, replicas.sample({"input_ids": ids}, PARAMS[0]).sequences)
        assert template.extend(conversation, asked[0])["messages"][-1]["token_ids"] == asked[0].tokens
    finally:
        replicas.set_template("auto")


def test_abort_reaches_every_replica(replicas: Any) -> None:
    stream = replicas.stream(PROMPTS[:2], [SamplingParams(max_tokens=1, ignore_eos=True), LONG])
    next(stream)
    replicas.abort()
    with pytest.raises(SampleAbortedError):
        for _ in stream:
            pass

    assert len(replicas.sample(PROMPTS, PARAMS).sequences) == 3


def test_a_mesh_with_model_ranks_is_refused(qwen2_folder: Path) -> None:
    with pytest.raises(ConfigError, match="device_mesh"):
        TorchSampler(qwen2_folder, DeviceMesh.from_sizes(tp_size=2))
