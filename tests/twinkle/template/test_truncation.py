from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.twinkle.template.conftest import CHATML, bpe_tokenizer
from tests.twinkle.template.conversations import text, turns
from twinkle.errors import ConfigError, DataError
from twinkle.template import ChatMLTemplate
from twinkle.template.truncation import TRUNCATIONS

TOKENIZER = bpe_tokenizer(*CHATML, eos="<|im_end|>")
LONG = turns(
    ("system", "be"), ("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four"), ("user", "five")
)
WHOLE = list(ChatMLTemplate(TOKENIZER).encode(LONG)["input_ids"])


def shortened(truncation: str, max_length: int, conversation: Any = LONG) -> list[int]:
    template = ChatMLTemplate(TOKENIZER, max_length=max_length, truncation=truncation)
    return list(template.encode(conversation)["input_ids"])


def test_tokens_are_left_out_where_the_name_says() -> None:
    assert shortened("left", 10) == WHOLE[-10:]
    assert shortened("right", 10) == WHOLE[:10]
    assert shortened("middle", 9) == WHOLE[:5] + WHOLE[-4:]


def test_the_oldest_turns_go_and_the_system_message_stays() -> None:
    shown = text(TOKENIZER, shortened("turns", len(WHOLE) - 1))

    assert shown == (
        "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\nthree<|im_end|>\n<|im_start|>assistant\nfour<|im_end|>\n"
        "<|im_start|>user\nfive<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_last_turn_that_is_too_long_is_named_with_its_size() -> None:
    last = len(ChatMLTemplate(TOKENIZER).encode(turns(("system", "be"), ("user", "five")))["input_ids"])
    with pytest.raises(DataError, match=rf"{len(WHOLE)} tokens.*max_length={last - 1}.*last turn alone has {last}"):
        shortened("turns", last - 1)


def test_raising_names_the_sizes_and_the_choices() -> None:
    with pytest.raises(DataError, match=rf"{len(WHOLE)} tokens, more than max_length=5.*left, right, middle, turns"):
        shortened("raise", 5)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(TRUNCATIONS), st.integers(1, len(WHOLE) + 5))
def test_nothing_is_ever_longer_than_asked_and_what_fits_stays(truncation: str, max_length: int) -> None:
    try:
        ids = shortened(truncation, max_length)
    except DataError:
        assert truncation in ("raise", "turns")
    else:
        assert len(ids) <= max_length
        assert (ids == WHOLE) == (max_length >= len(WHOLE))


def test_labels_are_cut_with_their_tokens() -> None:
    example = turns(("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four"))
    for truncation in ("left", "right", "middle", "turns"):
        feature = ChatMLTemplate(TOKENIZER, max_length=30, truncation=truncation).encode(example)
        pairs = zip(feature["input_ids"], feature["labels"], strict=True)

        assert all(label in (token, -100) for token, label in pairs)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"truncation": "lft", "max_length": 5}, "did you mean left"),
        ({"truncation": "left"}, "needs max_length"),
        ({"max_length": 0}, "max_length is 0"),
        ({"max_length": True}, "max_length is True"),
        ({"tool_style": "hermis"}, "did you mean hermes"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ChatMLTemplate(TOKENIZER, **settings)
