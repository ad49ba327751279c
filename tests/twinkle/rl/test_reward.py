"""The registry of rewards, and what becomes of a reward that fails."""

import pytest

from twinkle.errors import ConfigError, RewardError
from twinkle.rl.reward import Reward, even_fraction, exact_match, fraction_correct, resolve


@pytest.mark.parametrize(
    ("response", "answer", "exact", "fraction"),
    [
        ("1234", "1234", 1.0, 1.0),
        (" 1234\n", "1234", 1.0, 0.0),
        ("1243", "1234", 0.0, 0.5),
        ("12", "1234", 0.0, 0.5),
        ("12341234", "1234", 0.0, 0.5),
        ("", "1234", 0.0, 0.0),
        ("", "", 1.0, 1.0),
    ],
)
def test_matching_rewards(response: str, answer: str, exact: float, fraction: float) -> None:
    assert exact_match("", response, answer) == exact
    assert fraction_correct("", response, answer) == fraction


@pytest.mark.parametrize(
    ("response", "expected"), [("024680", 1.0), ("024681", 5 / 6), ("02", 2 / 6), ("", 0.0), ("2222222222", 1.0)]
)
def test_even_fraction(response: str, expected: float) -> None:
    assert even_fraction("", response, "000000") == pytest.approx(expected)


def test_a_batch_is_scored_in_order() -> None:
    scores = resolve("exact_match").score(["a", "b"], ["1", "2"], ["1", "3"])

    assert scores == [1.0, 0.0]


def test_a_prompt_of_messages_reaches_the_reward_as_text() -> None:
    seen: list[str] = []

    def note(prompt: str, response: str, answer: str) -> float:
        seen.append(prompt)
        return 0

    messages = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+1"}]

    assert Reward("note", note).score([messages], ["2"], ["2"]) == [0.0]
    assert seen == ["Add.\n1+1"]


def test_an_import_path_is_a_reward() -> None:
    reward = resolve("twinkle.rl.reward:exact_match")

    assert reward == Reward("twinkle.rl.reward:exact_match", exact_match)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("exact_mach", "; did you mean exact_match?"),
        ("no_such_module_xyz:f", "cannot be imported"),
        ("twinkle.rl.reward:no_such", "has no function 'no_such'"),
        ("twinkle.rl.reward:BUILT_IN", "is a dict"),
        (":f", "cannot be imported"),
        ("", "is unknown"),
    ],
)
def test_a_name_that_leads_nowhere_is_a_setting_that_cannot_work(name: str, part: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(name)

    assert part in str(error.value)


def two(prompt: str, response: str) -> float:
    return 0.0


def test_a_function_of_other_parameters_is_refused_before_it_is_called() -> None:
    with pytest.raises(
        ConfigError, match=r":two' takes \(.*\) .* and is called with \(prompt, response, answer\): too many"
    ):
        resolve(f"{__name__}:two")
    assert resolve("builtins:max").name == "builtins:max"  # it has no signature


def raising(prompt: str, response: str, answer: str) -> float:
    return 1 / len(response)


def test_a_reward_that_raises_names_itself_and_its_sample_and_keeps_the_cause() -> None:
    reward = resolve(f"{__name__}:raising")

    with pytest.raises(RewardError) as error:
        reward.score(["1+1", "2+2" * 100], ["2", ""], ["2", "4"])

    text = str(error.value)
    assert "tests.twinkle.rl.test_reward:raising raised ZeroDivisionError: division by zero" in text
    assert "prompt '2+22+2" in text
    assert "response ''" in text
    assert len(text) < 400
    assert isinstance(error.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "1", 1j])
def test_a_reward_that_is_no_finite_number_is_an_error(value: object) -> None:
    with pytest.raises(RewardError, match="no finite number"):
        Reward("odd", lambda prompt, response, answer: value).score(["p"], ["r"], ["a"])


def test_numbers_of_any_kind_are_rewards() -> None:
    import numpy as np
    import torch

    for value in (True, 1, 1.0, np.float32(1), np.int64(1), torch.tensor(1.0)):
        assert Reward("one", lambda prompt, response, answer, value=value: value).score(["p"], ["r"], ["a"]) == [1.0]
