"""vLLMSampler on a real engine: log-probs, every parameter, callers side by side, streams, aborts, bad input."""

import random
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.twinkle.sampler.conftest import load, logits_uncached
from tests.twinkle.sampler.vllm.conftest import start
from twinkle.data_format import SampledSequence, SamplingParams
from twinkle.errors import AdapterError, ConfigError, DataError, SampleAbortedError, SampleTimeoutError
from twinkle.model.folder import without_progress_bars
from twinkle.sampler.choosing import RowControls, sampling_logprobs

RAGGED: Any = [{"input_ids": ids} for ids in ([5], [5, 6, 7], list(range(4, 40)), [9, 8])]
LONG = SamplingParams(max_tokens=28, ignore_eos=True, seed=0)


def tokens_of(response: Any) -> list[list[int]]:
    return [sequence.tokens for sequence in response.sequences]


def assert_logprobs_are_exact(model: Any, prompt: list[int], sequence: SampledSequence, params: SamplingParams) -> None:
    """Both log-probs are those of one uncached forward of Hugging Face's model."""
    raw_TV = logits_uncached(model, prompt, sequence.tokens).double().log_softmax(-1)
    controls = RowControls.of([params] * len(sequence.tokens), torch.device("cpu"))
    sampled_TV = sampling_logprobs(raw_TV, controls, None)
    at = (torch.arange(len(sequence.tokens)), torch.tensor(sequence.tokens))
    assert sequence.logprobs == pytest.approx(raw_TV[at].tolist(), abs=1e-5)
    assert sequence.sampler_logprobs == pytest.approx(sampled_TV[at].tolist(), abs=1e-5)


def test_both_logprobs_are_those_of_hugging_face(sampler: Any, opt_folder: Path) -> None:
    params = SamplingParams(max_tokens=12, temperature=0.7, top_p=0.9, top_k=50, seed=4)
    response = sampler.sample(RAGGED, params, num_samples=3)

    model = load(opt_folder)
    assert [(s.prompt_index, s.sample_index) for s in response.sequences] == [
        (i, j) for i in range(4) for j in range(3)
    ]
    for sequence in response.sequences:
        assert_logprobs_are_exact(model, RAGGED[sequence.prompt_index]["input_ids"], sequence, params)


def test_greedy_tokens_are_those_of_generate(sampler: Any, opt_folder: Path) -> None:
    model = load(opt_folder)
    response = sampler.sample(RAGGED, SamplingParams(max_tokens=10, temperature=0, ignore_eos=True))

    for prompt, sequence in zip(RAGGED, response.sequences, strict=True):
        ids = torch.tensor([prompt["input_ids"]])
        with without_progress_bars():
            ours = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False, eos_token_id=-1
            )
        assert sequence.tokens == ours[0, ids.shape[1] :].tolist()
        assert sequence.sampler_logprobs == [0.0] * 10


def test_a_seed_repeats_whatever_else_is_in_the_batch(sampler: Any) -> None:
    alone = [tokens_of(sampler.sample(prompt, LONG, num_samples=2)) for prompt in RAGGED[:2]]
    together = tokens_of(sampler.sample(RAGGED[:2] + [RAGGED[3]] * 9, LONG, num_samples=2))

    assert together[:4] == alone[0] + alone[1]
    assert together[0] != together[1]
    fresh = SamplingParams(max_tokens=20)
    assert tokens_of(sampler.sample(RAGGED[0], fresh)) != tokens_of(sampler.sample(RAGGED[0], fresh))


def test_each_prompt_has_its_own_parameters(sampler: Any) -> None:
    params = [SamplingParams(max_tokens=3 + i, seed=7, ignore_eos=True, top_k=1 + i) for i in range(4)]

    together = sampler.sample(RAGGED, params).sequences

    assert [len(sequence.tokens) for sequence in together] == [3, 4, 5, 6]
    assert [s.tokens for s in together] == [
        sampler.sample(prompt, p).sequences[0].tokens for prompt, p in zip(RAGGED, params, strict=True)
    ]
    assert all(sequence.stop_reason == "length" and sequence.stopped_by is None for sequence in together)


def test_what_ends_a_response(sampler: Any) -> None:
    free = sampler.sample(RAGGED[1], LONG).sequences[0]
    token, text = free.tokens[20], free.text[20:22]
    first, place = free.tokens.index(token), free.text.index(text)

    by_id = sampler.sample(RAGGED[1], SamplingParams(max_tokens=28, ignore_eos=True, seed=0, stop_token_ids=[token]))
    by_text = sampler.sample(RAGGED[1], SamplingParams(max_tokens=28, ignore_eos=True, seed=0, stop=[text, "never"]))

    one = by_id.sequences[0]
    assert (one.tokens, one.stop_reason, one.stopped_by) == (free.tokens[: first + 1], "stop", token)
    assert one.text == free.text[:first]
    one = by_text.sequences[0]
    assert (one.text, one.stop_reason, one.stopped_by) == (free.text[:place], "stop", text)
    assert one.tokens == free.tokens[: place + 2]
    assert len(one.tokens) == len(one.logprobs) == len(one.sampler_logprobs)


def test_eos_and_special_tokens_end_it_after_min_tokens(sampler: Any) -> None:
    tokenizer = sampler.tokenizer
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    pair = {"allowed_token_ids": [eos, 20], "seed": 1}

    early = sampler.sample(RAGGED[0], SamplingParams(max_tokens=40, **pair), num_samples=8).sequences
    late = sampler.sample(RAGGED[0], SamplingParams(max_tokens=40, min_tokens=9, **pair), num_samples=8).sequences
    special = SamplingParams(max_tokens=40, allowed_token_ids=[pad, 20], seed=1, stop="<pad>", min_tokens=2)
    by_name = sampler.sample(RAGGED[0], special, num_samples=8).sequences

    ended = [s for s in early if s.stop_reason == "stop"]
    assert all(s.tokens[-1] == s.stopped_by == eos for s in ended)
    assert all(set(s.tokens[:-1]) <= {20} and len(s.text) == len(s.tokens) - 1 for s in ended)
    assert all(set(s.tokens[:9]) == {20} and s.sampler_logprobs[:9] == [0.0] * 9 for s in late)
    assert all(s.stopped_by in ("<pad>", None) and set(s.tokens[:2]) == {20} for s in by_name)


def test_reported_logprobs_always_hold_the_sampled_token(sampler: Any, opt_folder: Path) -> None:
    params = SamplingParams(max_tokens=6, seed=2, logprobs=3, ignore_eos=True)
    mixed = sampler.sample(RAGGED[:2], [params, SamplingParams(max_tokens=6, seed=2, logprobs=0, ignore_eos=True)])
    three, none = mixed.sequences

    raw_TV = logits_uncached(load(opt_folder), RAGGED[0]["input_ids"], three.tokens).log_softmax(-1)
    for token, top, raw_V in zip(three.tokens, three.top_logprobs, raw_TV, strict=True):
        assert set(top) == {token, *raw_V.topk(3).indices.tolist()}
        assert all(value == pytest.approx(float(raw_V[key]), abs=1e-5) for key, value in top.items())
    assert [list(top) for top in none.top_logprobs] == [[token] for token in none.tokens]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_p=st.sampled_from([0.2, 0.9, 1.0]),
    top_k=st.sampled_from([-1, 1, 5]),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
)
def test_tokens_are_drawn_from_what_was_asked_for(
    sampler: Any, temperature: float, top_p: float, top_k: int, lengths: list[int]
) -> None:
    params = [
        SamplingParams(max_tokens=n, temperature=temperature, top_p=top_p, top_k=top_k, seed=n, ignore_eos=True)
        for n in lengths
    ]
    response = sampler.sample(RAGGED[: len(lengths)], params, num_samples=2)

    assert [len(s.tokens) for s in response.sequences] == [n for n in lengths for _ in range(2)]
    assert all(value <= 1e-6 for s in response.sequences for value in s.sampler_logprobs)
    assert tokens_of(response) == tokens_of(sampler.sample(RAGGED[: len(lengths)], params, num_samples=2))


def test_callers_share_one_batch_and_get_their_own_results(sampler: Any) -> None:
    params = [SamplingParams(max_tokens=20, seed=i, ignore_eos=True) for i in range(6)]
    alone = [tokens_of(sampler.sample(RAGGED, p)) for p in params]
    results: dict[int, list[list[int]]] = {}

    def call(i: int) -> None:
        results[i] = tokens_of(sampler.sample(RAGGED, params[i], timeout_s=60))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [results[i] for i in range(6)] == alone


def test_sequences_come_as_they_end(sampler: Any) -> None:
    lengths = [40, 2, 20]
    params = [SamplingParams(max_tokens=n, seed=1, ignore_eos=True) for n in lengths]

    streamed = list(sampler.stream(RAGGED[:3], params))

    assert [s.prompt_index for s in streamed] == [1, 2, 0]
    response = sampler.sample(RAGGED[:3], params)
    assert sorted(streamed, key=lambda s: s.prompt_index) == response.sequences


def test_a_closed_stream_leaves_nothing_behind(sampler: Any) -> None:
    stream = sampler.stream(RAGGED, [SamplingParams(max_tokens=1, seed=1), LONG, LONG, LONG])
    assert next(stream).prompt_index == 0
    stream.close()

    assert len(sampler.sample(RAGGED[0], SamplingParams(max_tokens=2, ignore_eos=True)).sequences[0].tokens) == 2
    assert not sampler._engine.busy


def test_a_deadline_ends_a_call_and_not_the_engine(sampler: Any) -> None:
    with pytest.raises(SampleTimeoutError, match=r"of 64 sequences were done"):
        sampler.sample(RAGGED[1], LONG, num_samples=64, timeout_s=0.001)
    with pytest.raises(ConfigError, match="timeout_s"):
        sampler.sample(RAGGED[1], LONG, timeout_s=-1)
    assert len(sampler.sample(RAGGED[1], LONG, timeout_s=60).sequences) == 1


def test_abort_ends_every_call_in_flight(sampler: Any) -> None:
    stream = sampler.stream(RAGGED[1], LONG, num_samples=16)
    sampler.abort()

    with pytest.raises(SampleAbortedError):
        list(stream)
    assert len(sampler.sample(RAGGED[1], LONG).sequences) == 1


def test_the_calling_process_stays_as_it_was(sampler: Any) -> None:
    before = (torch.get_num_threads(), torch.get_rng_state().tolist(), random.getstate())
    sampler.sample(RAGGED, LONG)

    assert before == (torch.get_num_threads(), torch.get_rng_state().tolist(), random.getstate())
    assert "vllm" not in sys.modules
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("inputs", "params", "error", "names"),
    [
        ({"input_ids": []}, {}, DataError, "empty prompt"),
        ({"input_ids": [5] * 60}, {"max_tokens": 5}, DataError, "64 positions"),
        ({"input_ids": [5, 10**6]}, {"max_tokens": 5}, DataError, "1000000"),
        ({"input_ids": [5]}, {"max_tokens": 5, "stop_token_ids": [10**6]}, ConfigError, "stop_token_ids"),
        ({"input_ids": [5]}, {"max_tokens": 5, "allowed_token_ids": [2], "min_tokens": 1}, ConfigError, "min_tokens"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, {"max_tokens": 5}, DataError, "assistant"),
    ],
)
def test_what_cannot_be_sampled_is_told(sampler: Any, inputs: Any, params: Any, error: Any, names: str) -> None:
    with pytest.raises(error, match=names):
        sampler.sample(inputs, SamplingParams(**params))
    with pytest.raises(AdapterError, match="unknown adapter 'nobody'"):
        sampler.sample(RAGGED, LONG, "nobody")
    assert not sampler._engine.busy


def test_trajectories_are_prompts_too(sampler: Any) -> None:
    conversation: Any = {"messages": [{"role": "user", "content": "1234"}]}
    ids = sampler.template.encode(conversation)["input_ids"]

    assert tokens_of(sampler.sample(conversation, LONG)) == tokens_of(sampler.sample({"input_ids": ids}, LONG))


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"engine_args": {"max_model_length": 32}}, "max_model_length.*did you mean 'max_model_len'"),
        ({"engine_args": {"enable_lora": True}}, "enable_lora"),
        ({"max_adapters": -1}, "max_adapters"),
    ],
)
def test_settings_that_cannot_work_are_told(opt_folder: Path, settings: Any, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        start(opt_folder, **settings)


def test_a_cpu_has_no_sleep(sampler: Any) -> None:
    with pytest.raises(ConfigError, match="'cpu'"):
        sampler.sleep()
