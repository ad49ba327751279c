"""Adapters and weights of a real engine: exact, side by side, swapped under way, never stale."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.twinkle.sampler.conftest import load, logprobs_uncached
from tests.twinkle.sampler.lora import config_of, make_adapter, weights_of
from twinkle.data_format import SamplingParams
from twinkle.errors import AdapterError, WeightSyncError

# The first prompt is longer than a block, so that its key-value cache is shared by calls.
PROMPTS: Any = [{"input_ids": list(range(4, 42))}, {"input_ids": [9]}, {"input_ids": [5, 6, 7]}]
PARAMS = SamplingParams(max_tokens=10, seed=1, ignore_eos=True)


def samples(sampler: Any, name: str = "") -> list[tuple[list[int], list[float]]]:
    return [(s.tokens, s.logprobs) for s in sampler.sample(PROMPTS, PARAMS, name).sequences]


def assert_samples_come_from(sampler: Any, name: str, model: Any) -> None:
    for prompt, (tokens, logprobs) in zip(PROMPTS, samples(sampler, name), strict=True):
        assert logprobs == pytest.approx(logprobs_uncached(model, prompt["input_ids"], tokens), abs=1e-5)


def add(sampler: Any, name: str, model: Any) -> None:
    sampler.add_adapter_to_model(name, config_of(model), state_dict=weights_of(model))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target_modules": ["q_proj", "v_proj"]},
        {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"fc1": 3}},
    ],
    ids=str,
)
def test_samples_come_from_the_adapter(sampler: Any, opt_folder: Path, settings: Any, tmp_path: Path) -> None:
    trainer = make_adapter(opt_folder, 0, **settings)
    trainer.save_pretrained(str(tmp_path), save_embedding_layers=False)
    base = samples(sampler)
    add(sampler, "memory", trainer)
    sampler.add_adapter_to_model("folder", str(tmp_path))

    assert sampler.adapter_names == ["memory", "folder"]
    assert_samples_come_from(sampler, "memory", trainer)
    assert samples(sampler, "folder") == samples(sampler, "memory") != base
    assert samples(sampler) == base


def test_adapters_and_the_base_model_share_a_batch(sampler: Any, opt_folder: Path) -> None:
    trainers = {name: make_adapter(opt_folder, seed) for seed, name in enumerate(["a", "b", "c"])}
    for name, trainer in trainers.items():
        add(sampler, name, trainer)

    streams = {name: sampler.stream(PROMPTS, PARAMS, name, num_samples=2) for name in ["", "a", "b", "c"]}
    together = {name: list(stream) for name, stream in streams.items()}

    for name, sequences in together.items():
        model = trainers.get(name) or load(opt_folder)
        for s in sequences:
            prompt = PROMPTS[s.prompt_index]["input_ids"]
            assert s.logprobs == pytest.approx(logprobs_uncached(model, prompt, s.tokens), abs=1e-5)


def test_a_swap_serves_new_calls_and_leaves_old_ones_alone(sampler: Any, opt_folder: Path) -> None:
    old, new, newest = (make_adapter(opt_folder, seed) for seed in (1, 2, 3))
    add(sampler, "policy", old)
    before = sampler.stream(PROMPTS, PARAMS, "policy", num_samples=4)
    add(sampler, "policy", new)
    middle = sampler.stream(PROMPTS, PARAMS, "policy")
    add(sampler, "policy", newest)

    assert_samples_come_from(sampler, "policy", newest)
    for stream, model in ((before, old), (middle, new)):
        for s in stream:
            prompt = PROMPTS[s.prompt_index]["input_ids"]
            assert s.logprobs == pytest.approx(logprobs_uncached(model, prompt, s.tokens), abs=1e-5)


def test_many_versions_leave_nothing_behind(sampler: Any, opt_folder: Path) -> None:
    base = samples(sampler)
    for seed in range(12):
        trainer = make_adapter(opt_folder, seed, r=2 + seed % 3)
        add(sampler, f"a{seed % 3}", trainer)
        assert samples(sampler, f"a{seed % 3}")[0][1] == pytest.approx(
            logprobs_uncached(trainer, PROMPTS[0]["input_ids"], samples(sampler, f"a{seed % 3}")[0][0]), abs=1e-5
        )
    assert samples(sampler) == base


def test_the_sampler_owns_its_copy(sampler: Any, opt_folder: Path) -> None:
    trainer = make_adapter(opt_folder, 1)
    weights = {key: tensor.clone() for key, tensor in weights_of(trainer).items()}
    given = {key: tensor.clone() for key, tensor in weights.items()}
    sampler.add_adapter_to_model("a", config_of(trainer), state_dict=given)
    first = samples(sampler, "a")
    assert all(torch.equal(given[key], weights[key]) for key in weights)
    for tensor in given.values():
        tensor.zero_()
    assert samples(sampler, "a") == first


def test_an_adapter_without_weights_changes_nothing_yet(sampler: Any) -> None:
    sampler.add_adapter_to_model("fresh", {"r": 4, "target_modules": "all-linear"})

    assert samples(sampler, "fresh") == samples(sampler)


def test_adapters_that_do_not_fit_are_told(sampler: Any, opt_folder: Path, tmp_path: Path) -> None:
    good = make_adapter(opt_folder, 1)
    add(sampler, "good", good)
    expected = samples(sampler, "good")
    config, weights = config_of(good), weights_of(good)
    short = dict(list(weights.items())[1:])
    of_other_rank = weights_of(make_adapter(opt_folder, 1, r=2))
    dora = make_adapter(opt_folder, 1, use_dora=True)
    high = make_adapter(opt_folder, 1, r=16)
    good.save_pretrained(str(tmp_path / "broken"), save_embedding_layers=False)
    (tmp_path / "broken" / "adapter_model.safetensors").write_bytes(b"no tensors")

    for source, state_dict, names in (
        (config, short, "missing: model"),
        (config, of_other_rank, "has shape"),
        (config_of(dora), weights_of(dora), "DoRA"),
        (config_of(high), weights_of(high), "rank 16|16"),
        ({"r": 4, "target_modules": ["no_such_layer"]}, None, "no_such_layer"),
        (str(tmp_path / "nothing"), None, "nothing"),
        (str(tmp_path / "broken"), None, "adapter_model.safetensors"),
    ):
        for name in ("good", "bad"):
            with pytest.raises(AdapterError, match=names):
                sampler.add_adapter_to_model(name, source, state_dict=state_dict)
        assert sampler.adapter_names == ["good"]
    assert samples(sampler, "good") == expected
    with pytest.raises(AdapterError, match="unknown adapter 'bad'"):
        sampler.remove_adapter("bad")


def test_no_more_adapters_than_there_is_room_for(sampler: Any, opt_folder: Path) -> None:
    trainer = make_adapter(opt_folder, 1)
    for name in ("a", "b", "c"):
        add(sampler, name, trainer)
    with pytest.raises(AdapterError, match="max_adapters"):
        add(sampler, "d", trainer)
    sampler.remove_adapter("b")
    add(sampler, "d", trainer)
    assert_samples_come_from(sampler, "d", trainer)


def test_all_weights_are_replaced_and_adapters_stay(sampler: Any, opt_folder: Path) -> None:
    old = {key: tensor.clone() for key, tensor in load(opt_folder).state_dict().items()}
    changed = load(opt_folder)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)), alpha=0.02)
    for seed, name in enumerate(["a", "b"]):
        add(sampler, name, make_adapter(opt_folder, seed))
    base, adapted = samples(sampler), [samples(sampler, name) for name in ("a", "b")]

    new = changed.state_dict()
    sampler.update_weights(new)
    try:
        assert_samples_come_from(sampler, "", changed)
        assert samples(sampler) != base
        assert samples(sampler, "a") != adapted[0]
        with pytest.raises(WeightSyncError, match="missing"):
            sampler.update_weights(dict(list(new.items())[1:]))
        assert_samples_come_from(sampler, "", changed)
    finally:
        sampler.update_weights(old)
    assert samples(sampler) == base
    assert [samples(sampler, name) for name in ("a", "b")] == adapted
