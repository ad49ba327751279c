"""LoRA adapters: by name, from a folder or from memory, replaced in place, strictly checked."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from tests.twinkle.sampler.conftest import logprobs_uncached
from tests.twinkle.sampler.lora import config_of, make_adapter, weights_of
from twinkle.data_format import SamplingParams
from twinkle.errors import AdapterError, ConfigError
from twinkle.model.attention import FLOAT64
from twinkle.sampler import TorchSampler

PROMPTS: Any = [{"input_ids": [5, 6, 7]}, {"input_ids": [9]}]
PARAMS = SamplingParams(max_tokens=10, seed=1, ignore_eos=True)


def samples(sampler: TorchSampler, name: str = "") -> list[tuple[list[int], list[float]]]:
    return [(s.tokens, s.logprobs) for s in sampler.sample(PROMPTS, PARAMS, name).sequences]


def assert_samples_come_from(sampler: TorchSampler, name: str, model: Any) -> None:
    for prompt, (tokens, logprobs) in zip(PROMPTS, samples(sampler, name), strict=True):
        assert logprobs == pytest.approx(logprobs_uncached(model, prompt["input_ids"], tokens), abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target_modules": ["q_proj", "v_proj"]},
        {"use_rslora": True, "rank_pattern": {"q_proj": 2}},
        {"use_dora": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"lora_dropout": 0.5},
    ],
    ids=str,
)
def test_samples_come_from_the_adapter(folder: Path, settings: Any, tmp_path: Path) -> None:
    trainer = make_adapter(folder, 0, **settings)
    trainer.save_pretrained(str(tmp_path), save_embedding_layers=False)
    sampler = TorchSampler(folder)
    base = samples(sampler)
    sampler.add_adapter_to_model("memory", config_of(trainer), state_dict=weights_of(trainer))
    sampler.add_adapter_to_model("folder", str(tmp_path))

    assert sampler.adapter_names == ["memory", "folder"]
    assert_samples_come_from(sampler, "memory", trainer)
    assert samples(sampler, "folder") == samples(sampler, "memory") != base
    assert samples(sampler) == base


def test_several_adapters_keep_to_themselves(folder: Path) -> None:
    sampler = TorchSampler(folder)
    base = samples(sampler)
    trainers = {
        "one": make_adapter(folder, 1),
        "v1.2/two": make_adapter(folder, 2, r=2, target_modules=["q_proj"]),
        "three": make_adapter(folder, 3, r=6),
    }
    for name, trainer in trainers.items():
        sampler.add_adapter_to_model(name, config_of(trainer), state_dict=weights_of(trainer))
    for name in ("three", "one", "v1.2/two", "one"):
        assert_samples_come_from(sampler, name, trainers[name])
        assert samples(sampler) == base


@pytest.mark.parametrize("change", [{}, {"r": 2}, {"lora_alpha": 32}], ids=str)
def test_the_same_name_again_replaces(opt_folder: Path, change: Any) -> None:
    sampler = TorchSampler(opt_folder)
    first, second = make_adapter(opt_folder, 1), make_adapter(opt_folder, 2, **change)
    sampler.add_adapter_to_model("a", config_of(first), state_dict=weights_of(first))
    assert_samples_come_from(sampler, "a", first)
    sampler.add_adapter_to_model("a", config_of(second), state_dict=weights_of(second))

    assert sampler.adapter_names == ["a"]
    assert_samples_come_from(sampler, "a", second)


def test_replacing_in_place_is_fast_and_makes_nothing_new(sampler: TorchSampler, opt_folder: Path) -> None:
    trainer = make_adapter(opt_folder, 1)
    config, weights = config_of(trainer), weights_of(trainer)
    sampler.add_adapter_to_model("a", config, state_dict=weights)
    parameters = {name: tensor.data_ptr() for name, tensor in sampler._model.module.named_parameters()}
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        sampler.add_adapter_to_model("a", config, state_dict=weights)
        seconds.append(time.perf_counter() - start)

    assert {name: tensor.data_ptr() for name, tensor in sampler._model.module.named_parameters()} == parameters
    assert min(seconds) < 1e-3


def test_the_sampler_owns_its_tensors(sampler: TorchSampler, opt_folder: Path) -> None:
    trainer = make_adapter(opt_folder, 1)
    weights = weights_of(trainer)
    for _ in range(2):  # created, then replaced in place
        sampler.add_adapter_to_model("a", config_of(trainer), state_dict=weights)
        theirs = {tensor.untyped_storage().data_ptr() for tensor in weights.values()}
        ours = {tensor.untyped_storage().data_ptr() for tensor in sampler._model.module.state_dict().values()}
        before = samples(sampler, "a")
        for tensor in weights.values():
            tensor.mul_(2)

        assert not theirs & ours
        assert samples(sampler, "a") == before


def test_a_config_may_be_plain_data_and_is_not_changed(sampler: TorchSampler, opt_folder: Path) -> None:
    trainer = make_adapter(opt_folder, 1)
    fields = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]}
    sampler.add_adapter_to_model("plain", fields, state_dict=weights_of(trainer))
    sampler.add_adapter_to_model("whole", config_of(trainer).to_dict(), state_dict=weights_of(trainer))

    assert fields["target_modules"] == ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    assert samples(sampler, "plain") == samples(sampler, "whole")
    assert_samples_come_from(sampler, "plain", trainer)


def test_a_config_alone_changes_nothing_yet(sampler: TorchSampler) -> None:
    base = samples(sampler)
    sampler.add_adapter_to_model("fresh", LoraConfig(r=4, target_modules="all-linear"))

    assert samples(sampler, "fresh") == base


def test_unknown_adapters_are_refused_and_the_known_ones_listed(sampler: TorchSampler, opt_folder: Path) -> None:
    with pytest.raises(AdapterError, match="unknown adapter 'a'; known adapters: none"):
        samples(sampler, "a")
    trainer = make_adapter(opt_folder, 1)
    sampler.add_adapter_to_model("b", config_of(trainer), state_dict=weights_of(trainer))
    sampler.add_adapter_to_model("c", config_of(trainer), state_dict=weights_of(trainer))
    with pytest.raises(AdapterError, match="unknown adapter 'a'; known adapters: 'b', 'c'"):
        samples(sampler, "a")
    with pytest.raises(AdapterError, match="unknown adapter 'a'"):
        sampler.remove_adapter("a")


def test_a_removed_adapter_is_gone_and_leaves_the_others(sampler: TorchSampler, opt_folder: Path) -> None:
    base = samples(sampler)
    trainers = [make_adapter(opt_folder, seed) for seed in (1, 2)]
    for name, trainer in zip("ab", trainers, strict=True):
        sampler.add_adapter_to_model(name, config_of(trainer), state_dict=weights_of(trainer))
    samples(sampler, "a")
    sampler.remove_adapter("a")

    assert sampler.adapter_names == ["b"]
    assert samples(sampler) == base
    assert_samples_come_from(sampler, "b", trainers[1])
    sampler.remove_adapter("b")
    assert samples(sampler) == base
    sampler.add_adapter_to_model("a", config_of(trainers[0]), state_dict=weights_of(trainers[0]))
    assert_samples_come_from(sampler, "a", trainers[0])


def broken(weights: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    first = next(iter(weights))
    if how == "missing":
        return {key: tensor for key, tensor in weights.items() if key != first}
    if how == "unexpected":
        return weights | {"base_model.model.model.extra.lora_A.weight": torch.zeros(1)}
    return weights | {first: torch.zeros(3, 3)}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "missing: model.decoder.layers.0.self_attn.k_proj.lora_A.weight"),
        ("unexpected", "unexpected: model.extra.lora_A.weight"),
        ("shape", r"k_proj.lora_A.weight has shape \(3, 3\), the model needs \(4, 64\)"),
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_weights_that_do_not_fit_are_named_and_change_nothing(
    sampler: TorchSampler, opt_folder: Path, how: str, message: str, known: bool
) -> None:
    trainer = make_adapter(opt_folder, 1)
    base = samples(sampler)
    if known:
        sampler.add_adapter_to_model("a", config_of(trainer), state_dict=weights_of(trainer))
    changed = {key: tensor + 1 for key, tensor in weights_of(trainer).items()}
    with pytest.raises(AdapterError, match=message):
        sampler.add_adapter_to_model("a", config_of(trainer), state_dict=broken(changed, how))

    assert sampler.adapter_names == (["a"] if known else [])
    assert samples(sampler) == base
    if known:
        assert_samples_come_from(sampler, "a", trainer)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoraConfig(target_modules=["absent"]), "does not fit this model: .*absent"),
        (LoraConfig(target_modules=["q_proj"], bias="all"), "bias='all'"),
        ({"target_modules": ["q_proj"], "peft_type": "IA3"}, "kind 'IA3'"),
        ({"target_modules": ["q_proj"], "rank": 4}, "rank"),
        ({"target_modules": ["q_proj"], "r": 0}, "r=0; it must be a number above 0"),
        ({"target_modules": ["q_proj"], "init_lora_weights": "pissa"}, "init_lora_weights='pissa' changes the base"),
        ({"target_modules": ["q_proj"], "layer_replication": [[0, 2]]}, "layer_replication"),
        ("/no/such/folder", "no adapter found: .*no/such/folder"),
    ],
    ids=str,
)
@pytest.mark.parametrize("others", [False, True])
def test_configs_that_cannot_work(
    sampler: TorchSampler, opt_folder: Path, config: Any, message: str, others: bool
) -> None:
    if others:
        sampler.add_adapter_to_model("b", LoraConfig(target_modules=["q_proj"]))
    base = samples(sampler)
    with pytest.raises(AdapterError, match=message):
        sampler.add_adapter_to_model("a", config)

    assert samples(sampler) == base
    trainer = make_adapter(opt_folder, 1)
    sampler.add_adapter_to_model("a", config_of(trainer), state_dict=weights_of(trainer))
    assert_samples_come_from(sampler, "a", trainer)


def test_a_folder_must_hold_what_it_says(sampler: TorchSampler, opt_folder: Path, tmp_path: Path) -> None:
    make_adapter(opt_folder, 1).save_pretrained(str(tmp_path))
    file = tmp_path / "adapter_model.safetensors"
    save_file(broken(load_file(file), "missing"), file)
    with pytest.raises(AdapterError, match="missing"):
        sampler.add_adapter_to_model("a", tmp_path)
    file.write_bytes(b"damaged")
    with pytest.raises(AdapterError, match="cannot be read"):
        sampler.add_adapter_to_model("a", tmp_path)
    file.unlink()
    with pytest.raises(AdapterError, match=r"holds no adapter_model\.safetensors"):
        sampler.add_adapter_to_model("a", tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        sampler.add_adapter_to_model("a", tmp_path)

    assert sampler.adapter_names == []


@pytest.mark.parametrize("name", ["", 3])
def test_an_adapter_needs_a_name(sampler: TorchSampler, name: Any) -> None:
    with pytest.raises(AdapterError, match=f"adapter_name is {name!r}"):
        sampler.add_adapter_to_model(name, LoraConfig(target_modules=["q_proj"]))


def test_unknown_arguments_are_refused(sampler: TorchSampler) -> None:
    with pytest.raises(ConfigError, match="no argument 'weights'"):
        sampler.add_adapter_to_model("a", LoraConfig(target_modules=["q_proj"]), weights={})


def test_lean_layers_compute_what_pefts_layers_compute(folder: Path) -> None:
    trainer = make_adapter(folder, 1)
    trainer.get_base_model().set_attn_implementation(FLOAT64)
    sampler = TorchSampler(folder, exact_attention=True)
    sampler.add_adapter_to_model("a", config_of(trainer), state_dict=weights_of(trainer))
    samples(sampler, "a")
    ids = torch.tensor([[5, 6, 7, 8, 9], [6, 7, 8, 9, 10]])
    with torch.no_grad():
        lean, peft = sampler._model.module(input_ids=ids).logits, trainer(input_ids=ids).logits

    assert torch.equal(lean, peft)
    assert any("forward" in module.__dict__ for module in sampler._model.module.modules())
