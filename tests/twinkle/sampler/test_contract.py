"""What every sampler must do, whatever engine it runs on: the same file for each entry of ENGINES."""

import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.twinkle.sampler.engines import ENGINES, Logits, UnderTest
from twinkle.data_format import SampledSequence, SamplingParams
from twinkle.errors import (
    AdapterError,
    ConfigError,
    DataError,
    SampleAbortedError,
    SampleTimeoutError,
    TwinkleError,
    WeightSyncError,
)
from twinkle.sampler import Sampler
from twinkle.sampler.choosing import RowControls, sampling_logprobs
from twinkle.template import PlainTemplate

PROMPTS: Any = [{"input_ids": ids} for ids in ([5, 6, 7], [9], [40, 41, 42, 43, 44, 45, 46])]
LONG = SamplingParams(max_tokens=900, ignore_eos=True, seed=1)


@pytest.fixture(scope="module", params=ENGINES)
def under_test(request: pytest.FixtureRequest, qwen2_folder: Path) -> Iterator[UnderTest]:
    with ENGINES[request.param](qwen2_folder) as engine:
        yield engine


@pytest.fixture
def sampler(under_test: UnderTest) -> Iterator[Sampler]:
    """Without adapters before and after a test, in which no engine may die: what it was about would be drawn again."""
    yield under_test.sampler
    for name in under_test.sampler.adapter_names:
        under_test.sampler.remove_adapter(name)
    engine = getattr(under_test.sampler, "_engine", None)
    assert getattr(engine, "deaths", 0) == 0


@pytest.fixture
def adapted(under_test: UnderTest, sampler: Sampler) -> dict[str, Logits]:
    """Adapters a and b; logits by adapter name."""
    if not under_test.adapters:
        pytest.skip("this engine takes no adapters")
    logits = {"": under_test.logits}
    for name, case in zip("ab", under_test.adapters, strict=False):
        sampler.add_adapter_to_model(name, case.config, state_dict=case.state_dict)
        logits[name] = case.logits
    return logits


def own_params(count: int, **settings: Any) -> list[SamplingParams]:
    return [
        SamplingParams(**({"max_tokens": 12, "seed": 100 + i, "ignore_eos": True} | settings)) for i in range(count)
    ]


def drawn(sampler: Sampler, inputs: Any = PROMPTS[0], *, num_samples: int = 1, adapter: str = "", **params: Any) -> Any:
    params = {"max_tokens": 12, "seed": 4, "ignore_eos": True} | params
    return sampler.sample(inputs, SamplingParams(**params), adapter, num_samples=num_samples).sequences


def tokens(sequences: Sequence[SampledSequence]) -> list[list[int]]:
    return [sequence.tokens for sequence in sequences]


def assert_drawn_by(logits: Logits, prompt: Sequence[int], sequence: SampledSequence, params: SamplingParams) -> None:
    """Both log-probabilities are those of these logits."""
    raw_TV = logits(prompt, sequence.tokens).double().log_softmax(-1)
    at = (torch.arange(len(sequence.tokens)), torch.tensor(sequence.tokens))
    controls = RowControls.of([params] * len(sequence.tokens), torch.device("cpu"))
    drawn_TV = sampling_logprobs(raw_TV, controls, None)

    assert sequence.logprobs == pytest.approx(raw_TV[at].tolist(), abs=1e-5)
    if not params.is_greedy:
        assert sequence.sampler_logprobs == pytest.approx(drawn_TV[at].tolist(), abs=1e-4)


def test_order_and_shapes(sampler: Sampler) -> None:
    sequences = drawn(sampler, PROMPTS, num_samples=3, max_tokens=5)

    assert [(s.prompt_index, s.sample_index) for s in sequences] == [(i, j) for i in range(3) for j in range(3)]
    assert all(len(s.tokens) == len(s.logprobs) == len(s.sampler_logprobs) == 5 for s in sequences)
    assert all((s.stop_reason, s.stopped_by, s.top_logprobs) == ("length", None, None) for s in sequences)


def test_more_requests_than_places_keep_their_order(sampler: Sampler) -> None:
    inputs = PROMPTS * 6
    params = [replace(each, max_tokens=2 + i % 7) for i, each in enumerate(own_params(len(inputs)))]
    sequences = sampler.sample(inputs, params, num_samples=2).sequences

    assert [len(s.tokens) for s in sequences] == [p.max_tokens for p in params for _ in range(2)]
    assert [(s.prompt_index, s.sample_index) for s in sequences] == [(i, j) for i in range(len(inputs)) for j in (0, 1)]


def test_the_text_is_what_the_tokens_say(sampler: Sampler) -> None:
    for sequence in drawn(sampler, PROMPTS):
        assert sequence.text == sampler.template.decode(sequence.tokens)


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 5}, {"temperature": 0}], ids=str
)
def test_log_probs_are_those_of_the_model(sampler: Sampler, under_test: UnderTest, settings: Any) -> None:
    params = own_params(3, **settings)
    for sequence in sampler.sample(PROMPTS, params, num_samples=2).sequences:
        prompt = PROMPTS[sequence.prompt_index]["input_ids"]
        assert_drawn_by(under_test.logits, prompt, sequence, params[sequence.prompt_index])


def test_greedy_takes_the_most_probable_token(sampler: Sampler, under_test: UnderTest) -> None:
    for sequence in drawn(sampler, PROMPTS, temperature=0):
        best = under_test.logits(PROMPTS[sequence.prompt_index]["input_ids"], sequence.tokens).argmax(-1)

        assert sequence.tokens == best.tolist()
        assert sequence.sampler_logprobs == [0.0] * 12


def test_a_seed_repeats_and_samples_differ(sampler: Sampler) -> None:
    first, again = (drawn(sampler, num_samples=4) for _ in range(2))

    assert tokens(first) == tokens(again)
    assert len({tuple(each) for each in tokens(first)}) == 4
    assert tokens(drawn(sampler, num_samples=4, seed=5)) != tokens(first)


def test_without_a_seed_numbers_are_fresh(sampler: Sampler) -> None:
    assert tokens(drawn(sampler, num_samples=2, seed=None)) != tokens(drawn(sampler, num_samples=2, seed=None))


def test_the_batch_around_a_response_does_not_matter(sampler: Sampler) -> None:
    params = own_params(24)
    params = [replace(each, max_tokens=3 + i) for i, each in enumerate(params)]
    together = sampler.sample(PROMPTS * 8, params).sequences
    alone = [sampler.sample(x, p).sequences[0] for x, p in zip(PROMPTS * 8, params, strict=True)]

    assert tokens(together) == tokens(alone)
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_a_stop_string_ends_the_text_before_it(sampler: Sampler) -> None:
    free = drawn(sampler)[0]
    string = next(free.text[i : i + 2] for i in range(2, 10) if "\ufffd" not in free.text[i : i + 2])
    stopped = drawn(sampler, stop=["never seen", string])[0]

    assert (stopped.stop_reason, stopped.stopped_by) == ("stop", string)
    assert stopped.text == free.text[: free.text.index(string)]
    assert stopped.tokens == free.tokens[: len(stopped.tokens)]


def test_a_stop_token_ends_and_is_kept(sampler: Sampler) -> None:
    free = drawn(sampler)[0]
    token = free.tokens[4]
    stopped = drawn(sampler, stop_token_ids=[token])[0]

    assert (stopped.stop_reason, stopped.stopped_by) == ("stop", token)
    assert stopped.tokens == free.tokens[: free.tokens.index(token) + 1]
    assert stopped.text == sampler.template.decode(stopped.tokens[:-1])


def test_eos_ends_unless_it_is_ignored(sampler: Sampler) -> None:
    eos = sampler.tokenizer.eos_token_id
    some = {"allowed_token_ids": [eos, 5, 6], "num_samples": 16}
    ended = drawn(sampler, ignore_eos=False, **some)

    assert any(s.stop_reason == "stop" for s in ended)
    assert all(
        s.stopped_by == eos and s.tokens.index(eos) == len(s.tokens) - 1 for s in ended if s.stop_reason == "stop"
    )
    assert all(len(s.tokens) == 12 for s in drawn(sampler, **some))
    late = drawn(sampler, ignore_eos=False, min_tokens=4, **some)
    assert all(eos not in s.tokens[:4] for s in late)


def test_reported_log_probs_hold_the_sampled_token(sampler: Sampler) -> None:
    sequence = drawn(sampler, logprobs=2, temperature=3.0)[0]

    assert sequence.top_logprobs is not None
    for report, token, logprob in zip(sequence.top_logprobs, sequence.tokens, sequence.logprobs, strict=True):
        assert report[token] == pytest.approx(logprob)
        assert 2 <= len(report) <= 3
        assert logprob <= max(report.values()) + 1e-9


def test_who_wants_the_log_probs_of_more_tokens_may_come_and_go(sampler: Sampler) -> None:
    params = [replace(LONG, max_tokens=3), replace(LONG, max_tokens=300, logprobs=1)]
    alone = sampler.sample(PROMPTS[:2], params).sequences
    stream = sampler.stream(PROMPTS[:2], params)
    next(stream)
    more = drawn(sampler, logprobs=4)[0]
    (rest,) = stream

    assert more.top_logprobs is not None
    assert {len(report) for report in more.top_logprobs} <= {4, 5}
    assert rest.top_logprobs is not None
    assert {len(report) for report in rest.top_logprobs} <= {1, 2}
    assert tokens([rest]) == tokens([alone[1]])
    assert rest.logprobs == pytest.approx(alone[1].logprobs, abs=1e-5)


@pytest.mark.parametrize(
    ("inputs", "params", "arguments", "error", "message"),
    [
        (PROMPTS[0], {}, {"adapter_name": "absent"}, AdapterError, "unknown adapter 'absent'"),
        ({"input_ids": []}, {}, {}, DataError, "input 0 is an empty prompt"),
        ([PROMPTS[0], {"input_ids": [5] * 1100}], {}, {}, DataError, "input 1 has 1100 tokens"),
        ({"input_ids": [10**6]}, {}, {}, DataError, "token id 1000000"),
        (PROMPTS[0], {"stop": ["x", 3]}, {}, ConfigError, "SamplingParams.stop"),
        (PROMPTS[0], {"top_p": 0}, {}, ConfigError, "SamplingParams.top_p is 0"),
        (PROMPTS[0], {"stop_token_ids": [10**6]}, {}, ConfigError, "stop_token_ids has 1000000"),
        (PROMPTS[0], {}, {"num_samples": 0}, ConfigError, "num_samples is 0"),
        (PROMPTS[0], {}, {"timeout_s": 0}, ConfigError, "timeout_s is 0"),
        ("text", {}, {}, DataError, "inputs is 'text'"),
    ],
)
@pytest.mark.parametrize("how", ["sample", "stream"])
def test_what_is_wrong_is_named_and_harms_nothing(
    sampler: Sampler, how: str, inputs: Any, params: Any, arguments: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        list(getattr(sampler, how)(inputs, SamplingParams(**{"max_tokens": 4} | params), **arguments))

    assert len(drawn(sampler)[0].tokens) == 12


def test_inputs_are_not_changed(sampler: Sampler) -> None:
    inputs = [{"messages": [{"role": "user", "content": "abc"}]}, {"input_ids": [5, 6], "attention_mask": [0, 1]}]
    before = repr(inputs)
    drawn(sampler, inputs)

    assert repr(inputs) == before


def test_a_stream_gives_what_sample_gives(sampler: Sampler) -> None:
    params = [replace(each, max_tokens=n) for each, n in zip(own_params(3), (30, 3, 9), strict=True)]
    streamed = list(sampler.stream(PROMPTS, params, num_samples=2))
    sampled = sampler.sample(PROMPTS, params, num_samples=2).sequences

    assert sorted(streamed, key=lambda s: (s.prompt_index, s.sample_index)) == [
        replace(s, logprobs=t.logprobs, sampler_logprobs=t.sampler_logprobs)
        for s, t in zip(sampled, sorted(streamed, key=lambda s: (s.prompt_index, s.sample_index)), strict=True)
    ]
    for one, other in zip(sampled, sorted(streamed, key=lambda s: (s.prompt_index, s.sample_index)), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_a_stream_that_is_closed_leaves_the_sampler_usable(sampler: Sampler) -> None:
    stream: Any = sampler.stream(PROMPTS[:2], [replace(LONG, max_tokens=3), LONG])
    first = next(stream)
    stream.close()

    assert (first.prompt_index, len(first.tokens)) == (0, 3)
    assert len(drawn(sampler)[0].tokens) == 12


def test_a_call_ends_at_its_deadline(sampler: Sampler) -> None:
    with pytest.raises(SampleTimeoutError, match=r"\d of 3 sequences were done"):
        sampler.sample(PROMPTS, LONG, timeout_s=1e-6)
    with pytest.raises(SampleTimeoutError):
        list(sampler.stream(PROMPTS, LONG, timeout_s=1e-6))

    assert len(drawn(sampler)[0].tokens) == 12


def test_abort_ends_calls_in_flight(sampler: Sampler) -> None:
    stream = sampler.stream(PROMPTS[:2], [replace(LONG, max_tokens=3), LONG])
    next(iter(stream))
    errors: list[BaseException] = []

    def call() -> None:
        try:
            sampler.sample(PROMPTS, replace(LONG, max_tokens=800))
        except TwinkleError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while thread.is_alive() and not errors:
        sampler.abort()
        thread.join(0.01)

    assert [type(error) for error in errors] == [SampleAbortedError]
    with pytest.raises(SampleAbortedError, match="1 of 2 sequences were done"):
        next(iter(stream))
    assert len(drawn(sampler)[0].tokens) == 12


def test_concurrent_callers_get_what_they_get_alone(sampler: Sampler, adapted: dict[str, Logits]) -> None:
    """Base and adapters, short and long, all at once."""
    names = ["", "a", "b"] * 4
    work = [(PROMPTS[i % 3], replace(each, max_tokens=4 + 3 * i)) for i, each in enumerate(own_params(len(names)))]

    def call(i: int) -> SampledSequence:
        prompt, params = work[i]
        return sampler.sample(prompt, params, names[i]).sequences[0]

    alone = [call(i) for i in range(len(names))]
    with ThreadPoolExecutor(len(names)) as callers:
        together = list(callers.map(call, range(len(names))))

    assert tokens(together) == tokens(alone)
    for (prompt, params), name, sequence in zip(work, names, together, strict=True):
        assert_drawn_by(adapted[name], prompt["input_ids"], sequence, params)


def test_adapters_are_replaced_and_removed(sampler: Sampler, under_test: UnderTest, adapted: dict[str, Logits]) -> None:
    params = own_params(1)[0]
    base = tokens(drawn(sampler))
    for name in ("a", "b", ""):
        assert_drawn_by(
            adapted[name], PROMPTS[1]["input_ids"], sampler.sample(PROMPTS[1], params, name).sequences[0], params
        )
    third = under_test.adapters[2]
    sampler.add_adapter_to_model("a", third.config, state_dict=third.state_dict)
    first = sampler.sample(PROMPTS[1], replace(params, max_tokens=1), "a").sequences[0]

    assert_drawn_by(third.logits, PROMPTS[1]["input_ids"], first, params)
    assert set(sampler.adapter_names) == {"a", "b"}
    assert tokens(drawn(sampler)) == base
    sampler.remove_adapter("b")
    with pytest.raises(AdapterError, match="unknown adapter 'b'; known adapters: 'a'"):
        sampler.sample(PROMPTS[1], params, "b")
    with pytest.raises(AdapterError, match="unknown adapter 'b'"):
        sampler.remove_adapter("b")


def test_a_response_never_mixes_the_weights_of_two_adapters(
    sampler: Sampler, under_test: UnderTest, adapted: dict[str, Logits]
) -> None:
    """Replaced, and replaced again, while a long response is drawn with the first."""
    params = own_params(1)[0]
    stream = iter(sampler.stream(PROMPTS[:2], [replace(LONG, max_tokens=3), replace(LONG, max_tokens=300)], "a"))
    next(stream)
    for case in (under_test.adapters[1], under_test.adapters[2]):
        sampler.add_adapter_to_model("a", case.config, state_dict=case.state_dict)
        new = sampler.sample(PROMPTS[2], params, "a").sequences[0]
        assert_drawn_by(case.logits, PROMPTS[2]["input_ids"], new, params)
    sampler.remove_adapter("a")
    [old] = stream

    assert len(old.tokens) == 300
    assert_drawn_by(adapted["a"], PROMPTS[1]["input_ids"], old, LONG)


def test_an_adapter_that_does_not_fit_changes_nothing(
    sampler: Sampler, under_test: UnderTest, adapted: dict[str, Logits]
) -> None:
    case = under_test.adapters[2]
    for wrong in ({}, dict(case.state_dict) | {"extra": torch.zeros(1)}):
        for name in ("a", "new"):
            with pytest.raises(AdapterError, match=f"adapter '{name}'"):
                sampler.add_adapter_to_model(name, case.config, state_dict=wrong)
    params = own_params(1)[0]

    assert set(sampler.adapter_names) == {"a", "b"}
    assert_drawn_by(adapted["a"], [9], sampler.sample(PROMPTS[1], params, "a").sequences[0], params)


def test_weights_are_replaced_between_calls(sampler: Sampler, under_test: UnderTest) -> None:
    if under_test.weights is None:
        pytest.skip("the weights of this engine cannot be replaced")
    other, logits, own = under_test.weights
    params = own_params(1)[0]
    stream = iter(sampler.stream(PROMPTS[:2], [replace(LONG, max_tokens=3), replace(LONG, max_tokens=100)]))
    next(stream)
    try:
        sampler.update_weights(other)
        assert_drawn_by(logits, [9], sampler.sample(PROMPTS[1], params).sequences[0], params)
        with pytest.raises(WeightSyncError):
            sampler.update_weights({"absent": torch.zeros(1)})
        assert_drawn_by(logits, [9], sampler.sample(PROMPTS[1], params).sequences[0], params)
    finally:
        sampler.update_weights(own)

    assert_drawn_by(under_test.logits, [9], next(stream), LONG)
    assert_drawn_by(under_test.logits, [9], sampler.sample(PROMPTS[1], params).sequences[0], params)


def test_the_template_can_be_set(sampler: Sampler) -> None:
    before = sampler.template
    try:
        with pytest.raises(ConfigError, match="unknown template"):
            sampler.set_template("absent")
        sampler.set_template("plain")
        assert drawn(sampler, {"messages": [{"role": "user", "content": "ab"}]})
    finally:
        sampler.set_template(before)


def test_a_response_stops_where_the_template_ends_a_turn(sampler: Sampler) -> None:
    params, before = own_params(1)[0], sampler.template
    whole = sampler.sample(PROMPTS[1], params).sequences[0]
    end = whole.tokens[5]

    class EndsTurns(PlainTemplate):
        turn_end_ids = (end,)  # type: ignore[assignment]

    try:
        sampler.set_template(EndsTurns)
        [stopped] = sampler.sample(PROMPTS[1], replace(params, ignore_eos=False)).sequences
        [ignored] = sampler.sample(PROMPTS[1], params).sequences
    finally:
        sampler.set_template(before)

    assert stopped.tokens == whole.tokens[: whole.tokens.index(end) + 1]
    assert (stopped.stop_reason, stopped.stopped_by) == ("stop", end)
    assert ignored.tokens == whole.tokens


def test_random_numbers_of_the_process_are_left_alone(sampler: Sampler) -> None:
    before = torch.get_rng_state()
    drawn(sampler, PROMPTS)

    assert torch.equal(before, torch.get_rng_state())


def test_a_closed_sampler_ends_its_calls_and_refuses_others(under_test: UnderTest) -> None:
    if under_test.again is None:
        pytest.skip("starting this engine takes too long")
    with under_test.again() as sampler:
        stream = iter(sampler.stream(PROMPTS[0], LONG))
    with pytest.raises(SampleAbortedError, match="was closed when 0 of 1"):
        next(stream)
    with pytest.raises(SampleAbortedError, match="is closed"):
        sampler.sample(PROMPTS[0], LONG)
    sampler.close()


def test_log_probs_are_finite(sampler: Sampler) -> None:
    for sequence in drawn(sampler, PROMPTS, top_p=1e-9, temperature=1e-3):
        assert all(math.isfinite(value) for value in [*sequence.logprobs, *sequence.sampler_logprobs])
