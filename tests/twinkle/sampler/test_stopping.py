from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle.data_format import SamplingParams
from twinkle.sampler.stopping import Endings, StopMatch, StopStringSearch


def letters(tokens: Sequence[int]) -> str:
    """Token 0 is no text; others are letters."""
    return "".join(" abc"[token] for token in tokens if token)


def as_bytes(tokens: Sequence[int]) -> str:
    return bytes(tokens).decode("utf-8", errors="replace")


def search(text: Sequence[int], *strings: str, min_tokens: int = 0) -> tuple[int, StopMatch] | None:
    """Number of tokens taken, and the match."""
    follow = StopStringSearch(strings, letters, min_tokens)
    for taken, token in enumerate(text, start=1):
        if match := follow.push(token):
            return taken, match
    return None


def test_text_ends_right_before_the_stop_string() -> None:
    assert search([1, 2, 3, 1, 2], "bc") == (3, StopMatch("bc", "a"))


def test_one_character_of_a_stop_string_does_not_stop() -> None:
    assert search([1, 1, 2, 2], "abc", "ba") is None


def test_tokens_without_text_do_not_hide_a_match() -> None:
    assert search([1, 2, 0, 0, 0, 3], "bc") == (6, StopMatch("bc", "a"))


def test_of_matches_in_one_token_the_earliest_counts() -> None:
    def doubled(tokens: Sequence[int]) -> str:
        return "".join(["", "ab", "cd"][token] for token in tokens)

    follow = StopStringSearch(["d", "bc", "bcd"], doubled, 0)

    assert follow.push(1) is None
    assert follow.push(2) == StopMatch("bc", "a")


def test_a_match_complete_before_min_tokens_does_not_count() -> None:
    assert search([1, 2, 1, 2], "ab", min_tokens=3) == (4, StopMatch("ab", "ab"))
    assert search([1, 2, 1, 2], "ab", min_tokens=2) == (2, StopMatch("ab", ""))


def test_characters_made_of_several_tokens_are_read_whole() -> None:
    follow = StopStringSearch(["€!"], as_bytes, 0)
    matches = [follow.push(token) for token in "x€é€!".encode()]

    assert matches[:-1] == [None] * (len(matches) - 1)
    assert matches[-1] == StopMatch("€!", "x€é")


@given(
    st.lists(st.integers(0, 3), max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3)
)
def test_the_search_finds_what_a_search_of_the_whole_text_finds(tokens: list[int], strings: list[str]) -> None:
    expected = None
    for taken in range(1, len(tokens) + 1):
        text = letters(tokens[:taken])
        found = [(text.index(string), order) for order, string in enumerate(strings) if string in text]
        if found:
            at, order = min(found)
            expected = (taken, StopMatch(strings[order], text[:at]))
            break

    assert search(tokens, *strings) == expected


def test_eos_and_stop_ids_end_a_response() -> None:
    endings = Endings.of(SamplingParams(stop_token_ids=[5], stop="x"), frozenset({2, 7}), {})

    assert endings == Endings((2, 5, 7), ("x",), {})


def test_ignore_eos_leaves_the_stop_ids() -> None:
    assert Endings.of(SamplingParams(stop_token_ids=[5], ignore_eos=True), frozenset({2}), {}).ids == (5,)


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_a_special_token_as_stop_string_is_found_by_its_id(ignore_eos: bool) -> None:
    params = SamplingParams(stop=["</s>", "x"], ignore_eos=ignore_eos)

    assert Endings.of(params, frozenset({2}), {"</s>": 2, "<s>": 1}) == Endings((2,), ("x",), {2: "</s>"})
