"""Prompts are looked at before a run."""

import pytest

from twinkle.data import DataConfig, PromptRow, make_source
from twinkle.data.check import answers_out_of_reach, check_prompts
from twinkle.errors import DataError
from twinkle.model.tiny import character_tokenizer
from twinkle.template import Template, make_template


@pytest.fixture(scope="module")
def template() -> Template:
    return make_template("auto", character_tokenizer("01234567", 64))


def test_prompts_that_fit_exactly_pass(template: Template) -> None:
    rows = make_source(DataConfig(length=4), 0).known_prompts()

    check_prompts(rows, template, 1 + 4 + 5, 5)
    check_prompts(rows, template, None, 10**9)


def test_the_first_prompt_that_is_too_long_is_named_with_its_sizes(template: Template) -> None:
    rows = [PromptRow("0123", "a", "f:1"), PromptRow("01234", "a", "f:2"), PromptRow("012345", "a", "f:3")]

    with pytest.raises(DataError) as error:
        check_prompts(rows, template, 9, 4)

    parts = ["f:2: the prompt '01234' has 6 tokens", "sampler.max_tokens=4", "the model's 9 positions"]
    assert all(part in str(error.value) for part in parts)


def test_an_endless_source_has_no_places_and_names_the_prompt(template: Template) -> None:
    with pytest.raises(DataError, match=r"^the prompt '[0-7]{4}' has 5 tokens"):
        check_prompts(make_source(DataConfig(length=4), 0).known_prompts(), template, 9, 5)


def test_a_prompt_without_a_token_is_named() -> None:
    tokenizer = character_tokenizer("01", 64)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    rows = [PromptRow([{"role": "user", "content": ""}], "a", "f:1")]

    with pytest.raises(DataError, match="f:1: the prompt '' has no token"):
        check_prompts(rows, make_template("auto", tokenizer), 9, 5)


def test_a_long_prompt_is_cut_in_the_message(template: Template) -> None:
    with pytest.raises(DataError, match=r"the prompt '0{60}…' has 101 tokens"):
        check_prompts([PromptRow("0" * 100, "a")], template, 64, 5)


def test_text_that_the_model_cannot_read_is_named_with_its_place(template: Template) -> None:
    rows = [PromptRow("0123", "a", "f:1"), PromptRow("01+2", "a", "f:2")]

    with pytest.raises(DataError, match=r"^f:2: the prompt '01\+2': the tokenizer has no token for '\+'"):
        check_prompts(rows, template, 64, 4)


def test_answers_that_no_response_can_reach_are_warned_of(template: Template) -> None:
    rows = make_source(DataConfig(length=20, held_out_prompts=4), 0).known_prompts()

    assert answers_out_of_reach(rows, template, 4).endswith("the shortest has 20, and sampler.max_tokens=4")
    assert answers_out_of_reach(rows, template, 20) == ""
    assert answers_out_of_reach([*rows, PromptRow("01", "10")], template, 4) == ""
