"""Toy tasks: endless random digits."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle.data import DataConfig, PromptSource, make_source
from twinkle.errors import ConfigError

REVERSE = DataConfig()
EVEN = DataConfig(name="even_digits", length=6, digits="0123456789")


def prompts(source: PromptSource, count: int, cursor: int = 0) -> list[str]:
    return [str(row.prompt) for row in source.draw(cursor, count)]


def test_the_answer_of_reverse_is_the_reverse() -> None:
    for row in make_source(REVERSE, 0).draw(0, 50):
        assert len(row.prompt) == 4
        assert set(row.prompt) <= set("01234567")
        assert row.answer == row.prompt[::-1]


def test_the_answer_of_even_digits_is_as_many_even_digits_as_wanted() -> None:
    for row in make_source(EVEN, 0).draw(0, 50):
        assert len(row.prompt) == len(row.answer) == 6
        assert set(row.answer) <= set("02468")


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(0, 40), st.integers(0, 5))
def test_a_draw_is_a_function_of_seed_and_cursor(cursor: int, count: int, cut: int, seed: int) -> None:
    source = make_source(REVERSE, seed)
    cut = min(cut, count)

    whole = source.draw(cursor, count)

    assert make_source(REVERSE, seed).draw(cursor, cut) + source.draw(cursor + cut, count - cut) == whole
    assert len(whole) == count


def test_seeds_differ() -> None:
    assert prompts(make_source(REVERSE, 0), 20) != prompts(make_source(REVERSE, 1), 20)


@pytest.mark.parametrize("seed", range(3))
def test_held_out_prompts_are_different_fixed_and_never_drawn(seed: int) -> None:
    config = DataConfig(digits="01", length=5, held_out_prompts=16)
    source = make_source(config, seed)
    held_out = [row.prompt for row in source.held_out()]

    drawn = prompts(source, 2000)

    assert len(set(held_out)) == 16
    assert set(drawn).isdisjoint(held_out)
    assert len(set(drawn)) == 2**5 - 16
    assert [row.prompt for row in source.held_out()] == held_out
    assert source.held_out() == source.held_out() == source.known_prompts()


def test_prompts_are_drawn_evenly() -> None:
    counts = Counter(prompts(make_source(DataConfig(digits="01", length=3, held_out_prompts=4), 0), 4000))

    assert len(counts) == 4
    assert all(abs(count - 1000) < 5 * 1000**0.5 for count in counts.values())


def test_settings_that_leave_too_little_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.held_out_prompts=64, but 8 digits make only 64 prompts of length 2"):
        make_source(DataConfig(length=2), 0)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (DataConfig(name="revers_digits"), "; did you mean reverse_digits?"),
        (DataConfig(reward=""), "data.reward is empty"),
        (DataConfig(length=0), "data.length=0"),
        (DataConfig(digits="77"), "data.digits='77'"),
        (DataConfig(digits="ab"), "data.digits='ab'"),
        (DataConfig(held_out_prompts=0), "data.held_out_prompts=0"),
        (DataConfig(name="jsonl"), "data.path is empty"),
    ],
)
def test_a_setting_that_cannot_work_is_named(config: DataConfig, part: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_source(config, 0)

    assert part in str(error.value)
