"""Full weights: strict, copied, all or nothing."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from tests.twinkle.sampler.conftest import load, logprobs_uncached
from twinkle.data_format import SamplingParams
from twinkle.errors import WeightSyncError
from twinkle.model.folder import without_progress_bars
from twinkle.sampler import TorchSampler
from twinkle.sampler.weights import FullWeights

PROMPT: Any = {"input_ids": [5, 6, 7]}


def trained(folder: Path) -> PreTrainedModel:
    """The model after somebody has trained it."""
    model = load(folder)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def sequence(sampler: TorchSampler) -> Any:
    return sampler.sample(PROMPT, SamplingParams(max_tokens=10, seed=0, ignore_eos=True)).sequences[0]


@pytest.mark.parametrize("with_adapter", [False, True])
def test_samples_come_from_the_new_weights(folder: Path, with_adapter: bool) -> None:
    sampler = TorchSampler(folder)
    if with_adapter:
        sampler.add_adapter_to_model("a", LoraConfig(target_modules="all-linear"))
    before, model = sequence(sampler), trained(folder)
    sampler.update_weights(model.state_dict())
    after = sequence(sampler)

    assert after.logprobs == pytest.approx(logprobs_uncached(model, PROMPT["input_ids"], after.tokens), abs=1e-5)
    assert after.logprobs != before.logprobs


def test_the_sampler_owns_its_weights(sampler: TorchSampler, opt_folder: Path) -> None:
    model = trained(opt_folder)
    weights = model.state_dict()
    sampler.update_weights(weights)
    before = sequence(sampler)
    for tensor in weights.values():
        tensor.zero_()

    assert sequence(sampler) == before


def test_a_model_file_written_later_changes_nothing(opt_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "model" / "model.safetensors"
    shutil.copytree(opt_folder, file.parent)
    sampler = TorchSampler(file.parent)
    start = file.stat().st_size // 2
    with file.open("r+b") as opened:  # in place, as a copy over it would be
        opened.seek(start)
        opened.write(b"\x3f" * (file.stat().st_size - start))

    assert sequence(sampler) == sequence(TorchSampler(opt_folder))


def test_a_skipped_update_is_seen_in_the_log_probs(sampler: TorchSampler, opt_folder: Path) -> None:
    stale, model = sequence(sampler), trained(opt_folder)
    difference = torch.tensor(stale.logprobs) - torch.tensor(
        logprobs_uncached(model, PROMPT["input_ids"], stale.tokens)
    )

    assert difference.abs().max() > 1e-2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("lm_head.weight"), "missing: lm_head.weight"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "unexpected: extra"),
        (lambda weights: weights.update({"lm_head.weight": torch.zeros(2)}), r"lm_head.weight has shape \(2,\)"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_change_nothing(
    sampler: TorchSampler, opt_folder: Path, change: Any, message: str
) -> None:
    before, weights = sequence(sampler), trained(opt_folder).state_dict()
    change(weights)
    with pytest.raises(WeightSyncError, match=message):
        sampler.update_weights(weights)

    assert sequence(sampler) == before


@pytest.fixture
def tied_folder(qwen2_folder: Path, tmp_path: Path) -> Path:
    config = Qwen2Config.from_pretrained(str(qwen2_folder), tie_word_embeddings=True)
    with without_progress_bars():
        Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", ["both", "embedding", "head"])
def test_tied_weights_need_one_of_their_names(tied_folder: Path, given: str) -> None:
    model, own = trained(tied_folder), load(tied_folder)
    weights = model.state_dict()
    if given != "both":
        del weights["lm_head.weight" if given == "embedding" else "model.embed_tokens.weight"]
    FullWeights(own).load(weights, WeightSyncError)

    assert all(torch.equal(tensor, own.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_tied_weights_that_differ_are_refused(tied_folder: Path) -> None:
    model = trained(tied_folder)
    weights = model.state_dict()
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1
    with pytest.raises(WeightSyncError, match="are one tied tensor of the model but differ here"):
        FullWeights(load(tied_folder)).load(weights, WeightSyncError)
