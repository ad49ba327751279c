"""Endings, reports and refusals of the sampler as a caller sees them."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import twinkle
from twinkle import DeviceGroup, DeviceMesh
from twinkle.data_format import SamplingParams
from twinkle.errors import ConfigError, DataError, ModelNotFoundError, RunError
from twinkle.sampler import TorchSampler
from twinkle.template import PlainTemplate

PROMPT: Any = {"messages": [{"role": "user", "content": "12"}]}
EOS = 2


def drawn(sampler: TorchSampler, inputs: Any = PROMPT, *, num_samples: int = 1, **params: Any) -> Any:
    params = {"max_tokens": 12, "seed": 4} | params
    return sampler.sample(inputs, SamplingParams(**params), num_samples=num_samples).sequences


@pytest.fixture
def free(sampler: TorchSampler) -> Any:
    """A response of 12 tokens that nothing ends."""
    return drawn(sampler, ignore_eos=True)[0]


def test_length_is_length(free: Any) -> None:
    assert (free.stop_reason, free.stopped_by, len(free.tokens)) == ("length", None, 12)


def test_responses_that_are_done_before_the_caller_waits_are_there(
    sampler: TorchSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = drawn(sampler, [PROMPT, PROMPT], num_samples=2, max_tokens=1)
    submit = sampler._loop.submit

    def submit_and_wait(*args: Any) -> Any:
        call = submit(*args)
        while call.pending:
            pass
        return call

    monkeypatch.setattr(sampler._loop, "submit", submit_and_wait)

    assert drawn(sampler, [PROMPT, PROMPT], num_samples=2, max_tokens=1) == expected


def test_text_is_what_the_tokens_say(sampler: TorchSampler, free: Any) -> None:
    assert free.text == sampler.tokenizer.decode(free.tokens, skip_special_tokens=True)


def test_a_stop_string_cuts_the_text_and_keeps_the_tokens(sampler: TorchSampler, free: Any) -> None:
    string = free.text[4:6]
    end = free.text.index(string)
    stopped = drawn(sampler, ignore_eos=True, stop=["never seen", string])[0]

    assert (stopped.stop_reason, stopped.stopped_by, stopped.text) == ("stop", string, free.text[:end])
    assert stopped.tokens == free.tokens[: len(stopped.tokens)]
    assert sampler.tokenizer.decode(stopped.tokens, skip_special_tokens=True).endswith(string)
    assert len(stopped.tokens) == len(stopped.logprobs) == len(stopped.sampler_logprobs)
    assert stopped.logprobs == pytest.approx(free.logprobs[: len(stopped.tokens)], abs=1e-6)


def test_a_stop_string_is_not_any_of_its_characters(sampler: TorchSampler, free: Any) -> None:
    absent = free.text[1] + free.text[0]
    assert absent not in free.text

    assert drawn(sampler, ignore_eos=True, stop=absent)[0].tokens == free.tokens


def test_a_stop_token_id_ends_and_is_kept_but_not_shown(sampler: TorchSampler, free: Any) -> None:
    token = free.tokens[3]
    stopped = drawn(sampler, ignore_eos=True, stop_token_ids=[token])[0]

    assert stopped.tokens == free.tokens[: free.tokens.index(token) + 1]
    assert (stopped.stop_reason, stopped.stopped_by) == ("stop", token)
    assert stopped.text == sampler.tokenizer.decode(stopped.tokens[:-1], skip_special_tokens=True)


def with_eos(sampler: TorchSampler, **params: Any) -> Any:
    """Responses of which many meet EOS."""
    return drawn(sampler, num_samples=32, temperature=50.0, allowed_token_ids=[EOS, 5, 6, 7], **params)


def test_eos_ends(sampler: TorchSampler) -> None:
    ended = [s for s in with_eos(sampler) if s.stop_reason == "stop"]

    assert len(ended) > 10
    assert all(s.tokens.index(EOS) == len(s.tokens) - 1 and s.stopped_by == EOS for s in ended)
    assert all("</s>" not in s.text for s in ended)


def test_the_last_token_can_be_eos(sampler: TorchSampler) -> None:
    last = next(s for s in with_eos(sampler) if s.stop_reason == "stop" and len(s.tokens) > 1)
    again = with_eos(sampler, max_tokens=len(last.tokens))[last.sample_index]

    assert (again.tokens, again.stop_reason) == (last.tokens, "stop")


def test_eos_as_a_stop_string_is_reported_as_one(sampler: TorchSampler) -> None:
    ended = [s for s in with_eos(sampler, stop="</s>", ignore_eos=True) if s.stop_reason == "stop"]

    assert ended
    assert all((s.stopped_by, s.tokens[-1]) == ("</s>", EOS) for s in ended)


def test_ignore_eos_goes_on(sampler: TorchSampler) -> None:
    sequences = with_eos(sampler, ignore_eos=True)

    assert all((s.stop_reason, len(s.tokens)) == ("length", 12) for s in sequences)
    assert any(EOS in s.tokens for s in sequences)


def test_eos_ids_of_the_generation_config_count(opt_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(opt_folder, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": [EOS, 5]}))
    sequences = with_eos(TorchSampler(tmp_path / "model"))

    assert {s.stopped_by for s in sequences} >= {EOS, 5}


def test_min_tokens_come_before_any_ending(sampler: TorchSampler) -> None:
    sequences = with_eos(sampler, min_tokens=5, stop_token_ids=[7])

    assert all(len(s.tokens) > 5 or s.stop_reason == "length" for s in sequences)
    assert all(not {EOS, 7} & set(s.tokens[:5]) for s in sequences)
    assert any(s.stop_reason == "stop" for s in sequences)


def test_only_allowed_tokens_are_drawn(sampler: TorchSampler) -> None:
    sequences = drawn(sampler, num_samples=16, allowed_token_ids=[9, 11], temperature=3.0)

    assert {token for s in sequences for token in s.tokens} == {9, 11}
    for s in sequences:
        assert np.exp(s.sampler_logprobs).min() > 0.2
        assert all(raw < warped for raw, warped in zip(s.logprobs, s.sampler_logprobs, strict=True))


def test_top_k_off_reaches_beyond_fifty_tokens(sampler: TorchSampler) -> None:
    sequences = drawn(sampler, num_samples=64, temperature=5.0, top_k=-1, ignore_eos=True, max_tokens=20)

    assert len({token for s in sequences for token in s.tokens}) > 60


@pytest.mark.parametrize("count", [0, 1, 3])
def test_reported_logprobs_always_hold_the_sampled_token(sampler: TorchSampler, count: int) -> None:
    sequence = drawn(sampler, logprobs=count, temperature=5.0, ignore_eos=True)[0]

    assert sequence.top_logprobs is not None
    for report, token, logprob in zip(sequence.top_logprobs, sequence.tokens, sequence.logprobs, strict=True):
        assert report[token] == logprob
        assert count <= len(report) <= count + 1
        assert max(report.values()) == sorted(report.values(), reverse=True)[0]


def test_no_report_unless_asked(free: Any) -> None:
    assert free.top_logprobs is None


def test_prompts_may_have_their_own_parameters(sampler: TorchSampler) -> None:
    params = [SamplingParams(max_tokens=n, seed=0, ignore_eos=True) for n in (1, 5, 3)]
    sequences = sampler.sample([PROMPT] * 3, params, num_samples=2).sequences

    assert [len(s.tokens) for s in sequences] == [1, 1, 5, 5, 3, 3]


def test_without_parameters_the_defaults_count(sampler: TorchSampler) -> None:
    with pytest.raises(DataError, match="max_tokens is 256"):
        sampler.sample(PROMPT)


def test_messages_and_token_ids_are_two_ways_to_say_the_same(sampler: TorchSampler) -> None:
    ids = sampler.template.encode(PROMPT)["input_ids"]
    padded = {"input_ids": torch.tensor([0, 0, *ids]), "attention_mask": np.array([0, 0] + [1] * len(ids))}
    before = copy.deepcopy(PROMPT)

    assert drawn(sampler, {"input_ids": ids}) == drawn(sampler, PROMPT) == drawn(sampler, padded)
    assert before == PROMPT


def test_the_template_can_be_set(sampler: TorchSampler) -> None:
    sampler.set_template("plain")
    assert type(sampler.template) is PlainTemplate
    with pytest.raises(ConfigError, match="did you mean chat"):
        sampler.set_template("chats")
    assert type(sampler.template) is PlainTemplate


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "it must be a trajectory"),
        ("text", "it must be a trajectory"),
        ([{"prompt": "x"}], "input 0 .* 'messages' or 'input_ids'"),
        ([PROMPT, {"input_ids": []}], "input 1 is an empty prompt"),
        ([{"input_ids": [[1, 2]]}], "without a batch axis"),
        ([{"input_ids": [1, 2], "attention_mask": [1]}], "2 input_ids but 1 attention_mask"),
        ([{"input_ids": [1, 2], "labels": [-100, 2]}], "it holds a response"),
        ([{"input_ids": [1, 999]}], "token id 999; this model's vocabulary is 0 to"),
        ([{"input_ids": [-1]}], "token id -1"),
        ([{"input_ids": [5] * 53}], "53 tokens and max_tokens is 12, together more than the 64 positions"),
        ([{"messages": [{"role": "assistant", "content": "x"}]}], "ends with an assistant message"),
    ],
)
def test_inputs_that_cannot_be_sampled_from(sampler: TorchSampler, inputs: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        drawn(sampler, inputs)


def test_the_longest_prompt_that_fits_is_sampled_from(sampler: TorchSampler) -> None:
    assert len(drawn(sampler, {"input_ids": [5] * 52}, ignore_eos=True)[0].tokens) == 12


@pytest.mark.parametrize("num_samples", [0, -1, 1.5, True])
def test_num_samples_must_be_a_count(sampler: TorchSampler, num_samples: Any) -> None:
    with pytest.raises(ConfigError, match=f"num_samples is {num_samples!r}"):
        sampler.sample(PROMPT, SamplingParams(max_tokens=1), num_samples=num_samples)


def test_parameters_must_be_as_many_as_prompts(sampler: TorchSampler) -> None:
    with pytest.raises(ConfigError, match="sampling_params has 2 entries for 1 inputs"):
        sampler.sample([PROMPT], [SamplingParams(), SamplingParams()])
    with pytest.raises(ConfigError, match=r"sampling_params\[0\] is \{'max_tokens': 1\}"):
        sampler.sample([PROMPT], [{"max_tokens": 1}])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"stop_token_ids": [9999]}, "stop_token_ids has 9999"),
        ({"allowed_token_ids": [9999]}, "allowed_token_ids has 9999"),
        ({"allowed_token_ids": [EOS], "min_tokens": 1}, "every allowed token ends the response"),
    ],
)
def test_parameters_that_this_model_cannot_meet(sampler: TorchSampler, params: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        drawn(sampler, **params)


@pytest.fixture
def _clean_runtime() -> Iterator[None]:
    yield
    twinkle.initialize("local")


@pytest.mark.usefixtures("_clean_runtime")
def test_where_it_runs_is_checked(opt_folder: Path) -> None:
    twinkle.initialize("local", groups=[DeviceGroup("sampler", 1, "cpu"), DeviceGroup("gpu", 1, "cuda")])

    assert TorchSampler(opt_folder, DeviceMesh.from_sizes(dp_size=1), "sampler").sample(
        PROMPT, SamplingParams(max_tokens=1)
    )
    for arguments, message in (
        ({"device_mesh": DeviceMesh.from_sizes(dp_size=2)}, "the mode is 'local'"),
        ({"remote_group": "trainer"}, "unknown device group 'trainer'"),
        ({"remote_group": "gpu", "device": "cpu"}, "the device group 'gpu' has 'cuda' devices"),
        ({"device": "tpu9"}, "device is 'tpu9'"),
        ({"dtype": "int8"}, "dtype='int8' is unknown; choose one of: float32"),
        ({"dtype": torch.bfloat16}, "dtype='torch.bfloat16' is unknown.*; did you mean bfloat16"),
        ({"max_rows": 0}, "max_rows is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            TorchSampler(opt_folder, **arguments)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_said(opt_folder: Path) -> None:
    with pytest.raises(ConfigError, match="no usable CUDA device"):
        TorchSampler(opt_folder, device="cuda")


def test_a_tokenizer_of_another_model_is_refused(opt_folder: Path, qwen2_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(opt_folder, tmp_path / "model")
    for file in qwen2_folder.glob("tok*"):
        shutil.copy(file, tmp_path / "model")
    with pytest.raises(ConfigError, match="they do not belong together"):
        TorchSampler(tmp_path / "model")


def test_a_folder_without_weights_or_tokenizer(opt_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(opt_folder, tmp_path / "weightless", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ModelNotFoundError, match="holds no model that can be loaded"):
        TorchSampler(tmp_path / "weightless")
    shutil.copytree(opt_folder, tmp_path / "wordless", ignore=shutil.ignore_patterns("tok*"))
    with pytest.raises(ModelNotFoundError, match="holds no tokenizer"):
        TorchSampler(tmp_path / "wordless")


def test_damaged_weights_are_no_tokens(sampler: TorchSampler) -> None:
    weights = {name: torch.full_like(tensor, torch.nan) for name, tensor in sampler._model.module.state_dict().items()}
    sampler.update_weights(weights)
    with pytest.raises(RunError, match="logits that are not finite"):
        drawn(sampler)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smaller_types_sample_close_to_float32(opt_folder: Path, sampler: TorchSampler, dtype: str) -> None:
    small = TorchSampler(opt_folder, dtype=dtype)
    exact, rough = (drawn(s, temperature=0, max_tokens=1)[0] for s in (sampler, small))

    assert small._model.module.dtype == getattr(torch, dtype)
    assert rough.logprobs == pytest.approx(exact.logprobs, abs=0.05)
