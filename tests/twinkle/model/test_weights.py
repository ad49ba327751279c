"""What leaves a policy: exports to samplers, folders that others read, and checkpoints."""

import io
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.twinkle.model.conftest import PolicyMaker, random_batch
from twinkle.data_format import SamplingParams
from twinkle.errors import CheckpointError
from twinkle.model.attention import FLOAT64
from twinkle.model.policy import Policy
from twinkle.rl.config import AlgoConfig
from twinkle.sampler import TorchSampler

ALGO = AlgoConfig()


def trained(policy: Policy, steps: int = 3) -> Policy:
    for seed in range(steps):
        policy.train_step(random_batch(seed=seed), ALGO, 1.0)
    return policy


def read(folder: Path) -> torch.nn.Module:
    """What plain transformers makes of a folder, with the attention that a policy uses on a CPU."""
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=FLOAT64)


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(4, 12)[None]).logits  # type: ignore[no-any-return]


def test_plain_peft_reads_the_saved_adapter(make_policy: PolicyMaker, folder: Path, tmp_path: Path) -> None:
    policy = trained(make_policy(folder=folder))

    policy.save_pretrained(tmp_path / "adapter")

    model = PeftModel.from_pretrained(read(folder), tmp_path / "adapter")
    assert torch.equal(logits_of(model), logits_of(policy.model))
    assert (logits_of(model) - logits_of(read(folder))).abs().max() > 1e-3


def test_plain_transformers_reads_the_saved_model(make_policy: PolicyMaker, folder: Path, tmp_path: Path) -> None:
    policy = trained(make_policy(folder=folder, lora=False))

    policy.save_pretrained(tmp_path / "model")

    assert torch.equal(logits_of(read(tmp_path / "model")), logits_of(policy.model))
    assert AutoTokenizer.from_pretrained(tmp_path / "model")("07") == AutoTokenizer.from_pretrained(folder)("07")
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("lora", [True, False])
def test_whoever_may_read_the_config_may_read_the_weights(
    make_policy: PolicyMaker, folder: Path, tmp_path: Path, lora: bool
) -> None:
    make_policy(folder=folder, lora=lora).save_pretrained(tmp_path)

    for place in (tmp_path, folder):
        assert len({path.stat().st_mode for path in place.iterdir()}) == 1


@pytest.mark.parametrize("lora", [True, False])
def test_a_sampler_takes_the_export(make_policy: PolicyMaker, folder: Path, lora: bool) -> None:
    policy, sampler = trained(make_policy(folder=folder, lora=lora)), TorchSampler(folder)
    weights = policy.export_weights()

    if lora:
        sampler.add_adapter_to_model("policy", weights.adapter_config, state_dict=weights.tensors)
    else:
        sampler.update_weights(weights.tensors)

    response = sampler.sample(
        {"input_ids": [5, 6, 7]}, SamplingParams(max_tokens=8), "policy" if lora else ""
    ).sequences[0]
    ids = torch.tensor([[5, 6, 7, *response.tokens]])
    with torch.no_grad():
        logp_TV = policy.model(ids).logits[0].log_softmax(-1)
    expected = logp_TV[2:-1].gather(1, ids[0, 3:, None])[:, 0]
    assert_close(torch.tensor(response.logprobs), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("lora", [True, False])
def test_an_export_is_a_copy_and_its_configuration_is_plain_data(make_policy: PolicyMaker, lora: bool) -> None:
    policy = make_policy(lora=lora)
    before = policy.export_weights()
    kept = {name: tensor.clone() for name, tensor in before.tensors.items()}

    trained(policy)

    assert all(torch.equal(before.tensors[name], tensor) for name, tensor in kept.items())
    assert any(not torch.equal(kept[name], tensor) for name, tensor in policy.export_weights().tensors.items())
    assert json.loads(json.dumps(before.adapter_config)) == before.adapter_config


@pytest.mark.parametrize("lora", [True, False])
def test_a_resumed_policy_goes_on_bit_for_bit(make_policy: PolicyMaker, lora: bool) -> None:
    undisturbed = make_policy(lora=lora)
    trained(undisturbed, 3)
    buffer = io.BytesIO()
    torch.save(undisturbed.state_dict(), buffer)
    buffer.seek(0)
    resumed = make_policy(lora=lora, seed=9)

    resumed.load_state_dict(torch.load(buffer, weights_only=True))

    for policy in (undisturbed, resumed):
        for seed in range(10, 13):
            policy.train_step(random_batch(seed=seed), ALGO, 1.0)
    expected, actual = undisturbed.state_dict(), resumed.state_dict()
    assert all(torch.equal(actual["parameters"][name], tensor) for name, tensor in expected["parameters"].items())
    for index, moments in expected["optimizer"]["state"].items():
        assert all(torch.equal(actual["optimizer"]["state"][index][name], value) for name, value in moments.items())


def test_a_state_is_a_copy_that_loading_does_not_tie(make_policy: PolicyMaker) -> None:
    policy = trained(make_policy())
    state = policy.state_dict()
    parameter = next(iter(state["parameters"]))
    kept, moment = state["parameters"][parameter].clone(), state["optimizer"]["state"][0]["exp_avg"].clone()

    trained(policy)
    policy.load_state_dict(state)
    trained(policy)

    assert torch.equal(state["parameters"][parameter], kept)
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], moment)


def test_a_state_of_another_model_is_refused(make_policy: PolicyMaker) -> None:
    with pytest.raises(CheckpointError, match=r"another model or adapter: \d+ parameters differ"):
        make_policy(lora=True).load_state_dict(make_policy(lora=False).state_dict())
