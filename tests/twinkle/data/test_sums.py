"""The file of sums that ships with the package."""

import json

import pytest

from twinkle.data import DataConfig, make_source
from twinkle.data.sums import NUMBER_WORDS, SUMS_FILE, in_words, nearness, sums_in_words
from twinkle.rl.reward import resolve


@pytest.mark.parametrize(
    ("number", "words"), [(0, "zero"), (13, "thirteen"), (20, "twenty"), (34, "thirty four"), (99, "ninety nine")]
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert in_words(number) == words


def test_the_file_is_what_its_maker_makes_and_its_sums_are_right() -> None:
    text = SUMS_FILE.read_text()
    numbers = {in_words(number): number for number in range(100)}

    assert text == "\n".join(sums_in_words()) + "\n"
    for line in text.splitlines():
        row = json.loads(line)
        left, right = row["prompt"].split(" plus ")
        assert numbers[left] + numbers[right] == numbers[row["answer"]]


def test_the_file_goes_by_name() -> None:
    source = make_source(DataConfig(name="jsonl", path="sums_in_words", reward="exact_match"), 0)

    row = source.draw(0, 1)[0]

    assert " plus " in row.prompt
    assert set(row.answer.split()) <= set(NUMBER_WORDS.split())


@pytest.mark.parametrize(
    ("response", "expected"),
    [("seven", 1.0), (" seven ", 1.0), ("nine", 0.45), ("forty", 0.0), ("seventy", 0.0), ("sevn", 0.0), ("", 0.0)],
)
def test_nearness_rewards_numbers_near_the_answer(response: str, expected: float) -> None:
    assert nearness("three plus four", response, "seven") == pytest.approx(expected)


def test_nearness_is_found_by_its_import_path() -> None:
    assert resolve("twinkle.data.sums:nearness").score(["p"], ["seven"], ["seven"]) == [1.0]


@pytest.mark.parametrize("answer", ["7", "one hundred", ""])
def test_nearness_says_which_reward_fits_an_answer_that_is_no_number_in_words(answer: str) -> None:
    with pytest.raises(ValueError, match=rf"answer '{answer}' is no number .* data\.reward=exact_match"):
        nearness("three plus four", "seven", answer)
