"""Distributions against hand-worked numbers, an obviously right model, and counts."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from twinkle.data_format import SamplingParams
from twinkle.sampler.choosing import Choice, Forbidden, RowControls, choose, inverse_cdf, sampling_logprobs

CPU = torch.device("cpu")
PROBABILITIES = [0.4, 0.3, 0.2, 0.1]
LOGITS = torch.tensor([PROBABILITIES]).log()


def distribution(forbidden: Tensor | None = None, **params: Any) -> list[float]:
    controls = RowControls.of([SamplingParams(**params)], CPU)
    return [float(p) for p in sampling_logprobs(LOGITS.double(), controls, forbidden).exp()[0]]


def draw(logits_RV: Tensor, uniform: float, **params: Any) -> Choice:
    rows = len(logits_RV)
    controls = RowControls.of([SamplingParams(**params)] * rows, CPU)
    return choose(logits_RV, controls, torch.full((rows,), uniform, dtype=torch.float64), None)


def test_temperature_divides_logits() -> None:
    squared = [p**2 for p in PROBABILITIES]

    assert distribution(temperature=0.5) == pytest.approx([p / sum(squared) for p in squared])


def test_top_k_keeps_the_k_most_probable() -> None:
    assert distribution(top_k=2) == pytest.approx([4 / 7, 3 / 7, 0, 0])


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.39, [1, 0, 0, 0]),
        (0.41, [4 / 7, 3 / 7, 0, 0]),
        (0.69, [4 / 7, 3 / 7, 0, 0]),
        (0.71, [4 / 9, 3 / 9, 2 / 9, 0]),
        (0.95, [0.4, 0.3, 0.2, 0.1]),
    ],
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, expected: list[float]) -> None:
    assert distribution(top_p=top_p) == pytest.approx(expected)


def test_top_p_counts_what_top_k_and_temperature_left() -> None:
    # Of 4/7 and 3/7 the first alone reaches 0.5; of 0.4 it would not.
    assert distribution(top_k=2, top_p=0.5) == pytest.approx([1, 0, 0, 0])
    # Squared and normalised: 16/30, 9/30, 4/30, 1/30.
    assert distribution(temperature=0.5, top_p=0.53) == pytest.approx([1, 0, 0, 0])


def test_top_k_of_equals_keeps_the_lower_ids() -> None:
    controls = RowControls.of([SamplingParams(top_k=2)], CPU)
    kept = sampling_logprobs(torch.zeros(1, 5).log_softmax(-1).double(), controls, None).exp()[0]

    assert kept.tolist() == pytest.approx([0.5, 0.5, 0, 0, 0])


def test_top_k_off_is_really_off() -> None:
    wide = torch.zeros(1, 100)
    drawn = {int(draw(wide, (i + 0.5) / 100).tokens_R) for i in range(100)}

    assert drawn == set(range(100))


def test_forbidden_tokens_have_probability_zero() -> None:
    forbidden = torch.tensor([[True, False, False, False]])

    assert distribution(forbidden) == pytest.approx([0, 3 / 6, 2 / 6, 1 / 6])
    assert distribution(forbidden, top_k=1) == pytest.approx([0, 1, 0, 0])


def test_a_tiny_temperature_is_the_most_probable_token_and_no_nan() -> None:
    assert distribution(temperature=1e-300) == [1, 0, 0, 0]


def test_rows_have_their_own_parameters() -> None:
    params = [SamplingParams(), SamplingParams(top_k=1), SamplingParams(temperature=0.5), SamplingParams(top_p=0.39)]
    controls = RowControls.of(params, CPU)
    together = sampling_logprobs(LOGITS.double().expand(4, 4), controls, None).exp()

    assert together[0].tolist() == pytest.approx(PROBABILITIES)
    assert together[1].tolist() == together[3].tolist() == [1, 0, 0, 0]
    assert together[2, 0] == pytest.approx(0.16 / 0.30)


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 0), (0.39, 0), (0.41, 1), (0.69, 1), (0.71, 2), (0.9999, 3)])
def test_a_uniform_number_finds_its_token(uniform: float, token: int) -> None:
    assert int(draw(LOGITS, uniform).tokens_R) == token


def test_logprobs_are_raw_and_sampler_logprobs_are_those_sampled_from() -> None:
    choice = draw(LOGITS, 0.9, temperature=0.5, top_k=2)

    assert int(choice.tokens_R) == 1
    assert float(choice.logprobs_R) == pytest.approx(math.log(0.3))
    assert float(choice.sampler_logprobs_R) == pytest.approx(math.log(0.09 / 0.25))


def test_greedy_takes_the_first_of_the_most_probable_and_is_sure_of_it() -> None:
    choice = draw(torch.tensor([[0.0, 2.0, 2.0]]), 0.999, temperature=0)

    assert int(choice.tokens_R) == 1
    assert float(choice.sampler_logprobs_R) == 0.0
    assert float(choice.logprobs_R) == pytest.approx(-math.log(2 + math.exp(-2)))


def test_greedy_and_random_rows_mix() -> None:
    controls = RowControls.of([SamplingParams(temperature=0), SamplingParams()], CPU)
    choice = choose(LOGITS.expand(2, 4), controls, torch.tensor([0.99, 0.99], dtype=torch.float64), None)

    assert choice.tokens_R.tolist() == [0, 3]
    assert choice.sampler_logprobs_R.tolist() == pytest.approx([0.0, math.log(0.1)])


weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-300, 1e3)), min_size=1, max_size=40).filter(any)
unit = st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 1 - 2**-53, 2**-1074]))


@given(weights, unit)
@settings(max_examples=300)
def test_a_token_of_probability_zero_is_never_drawn(given_weights: list[float], uniform: float) -> None:
    probabilities = torch.tensor([given_weights], dtype=torch.float64)
    token = int(inverse_cdf(probabilities, torch.tensor([uniform], dtype=torch.float64)))

    assert given_weights[token] > 0


@given(weights, unit)
def test_the_drawn_token_is_where_the_cumulative_sum_passes_the_number(
    given_weights: list[float], uniform: float
) -> None:
    probabilities = torch.tensor([given_weights], dtype=torch.float64)
    token = int(inverse_cdf(probabilities, torch.tensor([uniform], dtype=torch.float64)))
    cumulative = probabilities[0].cumsum(0)
    below = float(cumulative[token - 1]) if token else 0.0

    assert below <= uniform * float(cumulative[-1]) * (1 + 1e-15)
    assert float(cumulative[token]) >= uniform * float(cumulative[-1]) * (1 - 1e-15)


def test_evenly_spread_numbers_give_the_distribution() -> None:
    count = 10_000
    numbers = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    tokens = inverse_cdf(torch.tensor([PROBABILITIES], dtype=torch.float64).expand(count, 4), numbers)

    assert torch.bincount(tokens).tolist() == [4000, 3000, 2000, 1000]


def test_endings_are_forbidden_until_min_tokens() -> None:
    params = [SamplingParams(min_tokens=2), SamplingParams(allowed_token_ids=[1, 2]), SamplingParams()]
    forbidden = Forbidden(params, [[0], [0], [0, 3]], 4, CPU)
    never = [False, False, False, False]

    def at(*counts: int) -> list[list[bool]]:
        mask = forbidden.at(np.array(counts))
        assert mask is not None
        return mask.tolist()  # type: ignore[no-any-return]

    early = [[True, False, False, False], [True, False, False, True], never]
    assert at(0, 0, 0) == at(1, 1, 1) == early
    assert at(2, 2, 2) == [never, [True, False, False, True], never]
    assert at(2, 0, 1) == at(2, 2, 2)


def test_nothing_forbidden_costs_nothing() -> None:
    assert Forbidden([SamplingParams()], [[0]], 4, CPU).at(np.zeros(1, np.int64)) is None
