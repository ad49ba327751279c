import math
from dataclasses import replace
from typing import Any

import pytest

from twinkle.data_format import SamplingParams
from twinkle.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("min_tokens", -1),
        ("min_tokens", 257),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "hot"),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_k", 0),
        ("top_k", -2),
        ("top_k", 1.0),
        ("seed", -1),
        ("seed", 2**64),
        ("seed", 0.5),
        ("logprobs", -1),
        ("ignore_eos", 1),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", [1]),
        ("stop", b"a"),
        ("stop", 7),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", ["a"]),
        ("stop_token_ids", 3),
        ("allowed_token_ids", []),
        ("allowed_token_ids", [1.0]),
    ],
)
def test_a_value_that_cannot_work_is_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        SamplingParams(**{field: value})

    assert f"SamplingParams.{field} is {value!r}" in str(caught.value)


def test_the_edges_are_accepted() -> None:
    params = SamplingParams(max_tokens=1, min_tokens=1, temperature=0, top_p=1, top_k=1, seed=2**64 - 1, logprobs=0)

    assert params.is_greedy


def test_one_stop_string_is_a_list_of_one() -> None:
    assert SamplingParams(stop="ab").stop_strings == ("ab",)
    assert SamplingParams(stop=["a", "b"]).stop_strings == ("a", "b")
    assert SamplingParams().stop_strings == ()


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="max_token"):
        SamplingParams(max_token=3)  # type: ignore[call-arg]


def test_parameters_can_be_replaced_and_compared() -> None:
    params = SamplingParams(stop="x", stop_token_ids=[3], seed=1)

    assert replace(params, seed=2) == SamplingParams(stop="x", stop_token_ids=[3], seed=2)
    assert len({params, replace(params)}) == 1
