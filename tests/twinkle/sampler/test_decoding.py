"""What cached, padded, batched decoding gives, against one uncached forward per response."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from tests.twinkle.sampler.conftest import load, logits_uncached, logprobs_uncached
from twinkle.data_format import InputFeature, SamplingParams
from twinkle.errors import ConfigError
from twinkle.model.folder import without_progress_bars
from twinkle.model.tiny import make_tiny_opt, make_tiny_qwen2
from twinkle.sampler import TorchSampler
from twinkle.sampler.uniforms import uniforms

LONG = SamplingParams(max_tokens=40, seed=5, ignore_eos=True)


def prompts(count: int, *, lengths: tuple[int, int], seed: int = 0) -> list[InputFeature]:
    rng = random.Random(seed)
    return [{"input_ids": [rng.randrange(4, 60) for _ in range(rng.randint(*lengths))]} for _ in range(count)]


@pytest.mark.parametrize("make", [make_tiny_opt, make_tiny_qwen2])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("lengths", [(1, 1), (7, 7), (1, 23)])
def test_log_probs_are_those_of_an_uncached_forward(
    make: Any, seed: int, lengths: tuple[int, int], tmp_path: Path
) -> None:
    folder = make(tmp_path, seed=seed)
    inputs = prompts(6, lengths=lengths, seed=seed)
    response = TorchSampler(folder).sample(inputs, LONG, num_samples=2)
    model = load(folder)
    for sequence in response.sequences:
        prompt = inputs[sequence.prompt_index]["input_ids"]

        assert len(sequence.tokens) == 40
        assert sequence.logprobs == pytest.approx(logprobs_uncached(model, prompt, sequence.tokens), abs=1e-5)


def test_sliding_windows_are_honoured_under_padding(qwen2_folder: Path, tmp_path: Path) -> None:
    config = MistralConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=5,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    with without_progress_bars():
        MistralForCausalLM(config).save_pretrained(tmp_path)
    for file in qwen2_folder.glob("tok*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    inputs = prompts(5, lengths=(1, 12))
    response = TorchSampler(tmp_path).sample(inputs, LONG)
    model = load(tmp_path)
    for sequence in response.sequences:
        prompt = inputs[sequence.prompt_index]["input_ids"]

        assert sequence.logprobs == pytest.approx(logprobs_uncached(model, prompt, sequence.tokens), abs=1e-5)


@pytest.mark.parametrize(
    "params", [{"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.5}, {"temperature": 2.0, "top_k": 9}]
)
def test_log_probs_are_raw_whatever_is_sampled_from(sampler: TorchSampler, opt_folder: Path, params: Any) -> None:
    inputs = prompts(4, lengths=(3, 6))
    response = sampler.sample(inputs, SamplingParams(max_tokens=8, seed=1, ignore_eos=True, **params))
    model = load(opt_folder)
    for sequence in response.sequences:
        logits = logits_uncached(model, inputs[sequence.prompt_index]["input_ids"], sequence.tokens).double()
        raw = logits.log_softmax(-1)
        scaled = logits / params.get("temperature", 1.0)
        kept = scaled.argsort(-1, descending=True)[:, : params.get("top_k", 10**6)]
        for t, token in enumerate(sequence.tokens):
            allowed = scaled[t, kept[t]].softmax(-1)
            if "top_p" in params:
                last = int((allowed.cumsum(-1) < params["top_p"]).sum())
                allowed = allowed[: last + 1] / allowed[: last + 1].sum()
            place = kept[t].tolist().index(token)

            assert sequence.logprobs[t] == pytest.approx(float(raw[t, token]), abs=1e-5)
            assert sequence.sampler_logprobs[t] == pytest.approx(float(allowed[place].log()), abs=1e-4)


def test_tokens_are_those_at_the_uniform_numbers_of_seed_and_sample(sampler: TorchSampler, opt_folder: Path) -> None:
    inputs = prompts(3, lengths=(2, 5))
    params = [SamplingParams(max_tokens=6, seed=seed, ignore_eos=True) for seed in (11, 12, 11)]
    response = sampler.sample(inputs, params, num_samples=2)
    model = load(opt_folder)
    for sequence in response.sequences:
        seed = params[sequence.prompt_index].seed
        assert seed is not None
        numbers = uniforms([(seed, sequence.sample_index)], 0, 6)[0]
        logits = logits_uncached(model, inputs[sequence.prompt_index]["input_ids"], sequence.tokens).double()
        cumulative = logits.softmax(-1).cumsum(-1)

        assert sequence.tokens == [int((row <= u).sum()) for row, u in zip(cumulative, numbers, strict=True)]


def test_greedy_is_the_most_probable_token(folder: Path) -> None:
    inputs = prompts(3, lengths=(1, 9))
    response = TorchSampler(folder).sample(inputs, SamplingParams(max_tokens=9, temperature=0, ignore_eos=True))
    model = load(folder)
    for sequence in response.sequences:
        logits = logits_uncached(model, inputs[sequence.prompt_index]["input_ids"], sequence.tokens)

        assert sequence.tokens == logits.argmax(-1).tolist()
        assert sequence.sampler_logprobs == [0.0] * 9


def test_order_is_prompt_by_prompt(sampler: TorchSampler) -> None:
    inputs = prompts(3, lengths=(1, 5))
    response = sampler.sample(inputs, SamplingParams(max_tokens=2, seed=0), num_samples=4)

    assert [(s.prompt_index, s.sample_index) for s in response.sequences] == [
        (i, j) for i in range(3) for j in range(4)
    ]


def test_one_forward_serves_the_whole_batch(sampler: TorchSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    forward = sampler._model.forward
    monkeypatch.setattr(
        sampler._model, "forward", lambda ids, *rest: shapes.append(tuple(ids.shape)) or forward(ids, *rest)
    )
    sampler.sample(prompts(5, lengths=(4, 4)), SamplingParams(max_tokens=6, ignore_eos=True), num_samples=3)

    # Each prompt is read once; then 15 samples grow together; the sixth token needs no forward.
    assert shapes == [(5, 4)] + [(15, 1)] * 5


def test_equal_prompts_are_read_once(sampler: TorchSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    forward = sampler._model.forward
    monkeypatch.setattr(
        sampler._model, "forward", lambda ids, *rest: shapes.append(tuple(ids.shape)) or forward(ids, *rest)
    )
    inputs = prompts(5, lengths=(4, 4)) * 8
    sampler.sample(inputs, SamplingParams(max_tokens=1))

    assert shapes == [(5, 4)]


def test_rows_that_have_ended_leave_the_batch(sampler: TorchSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    forward = sampler._model.forward
    monkeypatch.setattr(
        sampler._model, "forward", lambda ids, *rest: shapes.append(ids.shape[0]) or forward(ids, *rest)
    )
    inputs = prompts(16, lengths=(1, 9))
    params = [SamplingParams(max_tokens=3 + i, seed=i, ignore_eos=True, logprobs=2) for i in range(16)]
    together = sampler.sample(inputs, params).sequences

    assert shapes[-1] == 4
    alone = [sampler.sample(x, p).sequences[0] for x, p in zip(inputs, params, strict=True)]
    assert [s.tokens for s in together] == [s.tokens for s in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one.top_logprobs is not None
        assert [t[token] for t, token in zip(one.top_logprobs, one.tokens, strict=True)] == one.logprobs


def test_rows_that_stay_keep_their_random_numbers(qwen2_folder: Path) -> None:
    sampler = TorchSampler(qwen2_folder)
    inputs = prompts(10, lengths=(5, 5))
    limits = [3] * 5 + [150] + [3] * 4
    params = [SamplingParams(max_tokens=n, seed=i, ignore_eos=True) for i, n in enumerate(limits)]
    together = sampler.sample(inputs, params).sequences

    assert together[5].tokens == sampler.sample(inputs[5], params[5]).sequences[0].tokens


def test_batches_are_cut_at_max_rows(opt_folder: Path) -> None:
    inputs = prompts(5, lengths=(6, 6))
    params = [SamplingParams(max_tokens=6, seed=i, ignore_eos=True) for i in range(5)]
    whole = TorchSampler(opt_folder, exact_attention=True).sample(inputs, params, num_samples=3)
    cut = TorchSampler(opt_folder, exact_attention=True, max_rows=4).sample(inputs, params, num_samples=3)

    assert cut == whole


@pytest.fixture
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("length", [1, 6])
def test_bits_do_not_depend_on_neighbours(folder: Path, length: int) -> None:
    sampler = TorchSampler(folder, exact_attention=True)
    probe: InputFeature = {"input_ids": list(range(5, 5 + length))}
    own = SamplingParams(max_tokens=12, seed=3, ignore_eos=True)
    alone = sampler.sample(probe, own).sequences[0]
    for neighbours in (1, 2, 3, 4, 12, 63):
        others = prompts(neighbours, lengths=(length, length), seed=neighbours)
        for place in (0, neighbours):
            inputs = [*others[:place], probe, *others[place:]]
            params = [SamplingParams(max_tokens=12, seed=i, ignore_eos=True) for i in range(neighbours)]
            params.insert(place, own)
            crowded = sampler.sample(inputs, params).sequences[place]

            assert (crowded.tokens, crowded.logprobs) == (alone.tokens, alone.logprobs)


@pytest.mark.usefixtures("one_thread")
def test_bits_do_not_depend_on_padding_either(folder: Path) -> None:
    """Ragged prompts, rows that enter and leave, several admissions: the same bits as alone."""
    inputs = prompts(30, lengths=(1, 20), seed=3)
    params = [SamplingParams(max_tokens=2 + 5 * (i % 8), seed=i, ignore_eos=True) for i in range(30)]
    with (
        TorchSampler(folder, exact_attention=True, max_rows=8) as crowded,
        TorchSampler(folder, exact_attention=True) as free,
    ):
        together = crowded.sample(inputs, params).sequences
        alone = [free.sample(x, p).sequences[0] for x, p in zip(inputs, params, strict=True)]

    assert [(s.tokens, s.logprobs) for s in together] == [(s.tokens, s.logprobs) for s in alone]


def test_exact_attention_is_for_float32_on_a_cpu(opt_folder: Path) -> None:
    with pytest.raises(ConfigError, match="exact_attention needs float32 on a CPU, but it is bfloat16"):
        TorchSampler(opt_folder, dtype="bfloat16", exact_attention=True)


def test_global_generators_are_neither_read_nor_set(opt_folder: Path) -> None:
    def state() -> tuple[Any, ...]:
        legacy = np.random.get_state()
        return (torch.get_rng_state().tolist(), random.getstate(), legacy[0], list(legacy[1]), legacy[2:])

    before = state()
    sampler = TorchSampler(opt_folder)
    sampler.sample(prompts(2, lengths=(1, 4)), SamplingParams(max_tokens=5, seed=0))
    first = sampler.sample(prompts(2, lengths=(1, 4)), SamplingParams(max_tokens=5))
    assert state() == before

    torch.manual_seed(1)
    random.seed(1)
    second = sampler.sample(prompts(2, lengths=(1, 4)), SamplingParams(max_tokens=5))
    assert [s.tokens for s in first.sequences] != [s.tokens for s in second.sequences]


def test_the_same_seed_repeats_and_another_differs(sampler: TorchSampler) -> None:
    inputs = prompts(2, lengths=(3, 3))
    first, again, other = (
        [s.tokens for s in sampler.sample(inputs, SamplingParams(max_tokens=9, seed=seed), num_samples=2).sequences]
        for seed in (1, 1, 2)
    )

    assert first == again
    assert first != other
