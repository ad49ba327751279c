import copy
from typing import Any

import pytest

from twinkle.data_format import Trajectory
from twinkle.errors import ConfigError, DataError
from twinkle.model.tiny import ALPHABET, byte_tokenizer, character_tokenizer
from twinkle.template import ChatTemplate, PlainTemplate, Template, make_template

MARKED = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'][0] }}]{{ message['content'] }};{% endfor %}"
    "{% if add_generation_prompt %}[a]{% endif %}"
)
FORGETFUL = "{% for message in messages %}{{ loop.length }}{{ message['content'] }}{% endfor %}"


@pytest.fixture
def tokenizer() -> Any:
    tokenizer = character_tokenizer(ALPHABET + "[];", 512)
    tokenizer.chat_template = MARKED
    return tokenizer


def conversation(*turns: tuple[str, str]) -> Trajectory:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def text_of(tokenizer: Any, ids: Any) -> str:
    return str(tokenizer.decode(list(ids)))


def test_a_prompt_ends_where_the_assistant_begins(tokenizer: Any) -> None:
    feature = Template(tokenizer).encode(conversation(("system", "be"), ("user", "hi")))

    assert text_of(tokenizer, feature["input_ids"]) == "<s>[s]be;[u]hi;[a]"
    assert feature["attention_mask"] == [1] * len(feature["input_ids"])
    assert "labels" not in feature


def test_labels_cover_what_the_assistant_says_and_nothing_else(tokenizer: Any) -> None:
    template = Template(tokenizer)
    feature = template.encode(conversation(("user", "hi"), ("assistant", "yo"), ("user", "so"), ("assistant", "ok")))
    ids, labels = list(feature["input_ids"]), list(feature["labels"])

    assert text_of(tokenizer, ids) == "<s>[u]hi;[a]yo;[u]so;[a]ok;"
    assert text_of(tokenizer, [label for label in labels if label != -100]) == "yo;ok;"
    assert all(label in (token, -100) for token, label in zip(ids, labels, strict=True))


def test_an_example_begins_with_its_prompt(tokenizer: Any) -> None:
    template = Template(tokenizer)
    prompt = template.encode(conversation(("user", "hi")))["input_ids"]
    example = template.encode(conversation(("user", "hi"), ("assistant", "yo")))["input_ids"]

    assert list(example)[: len(prompt)] == list(prompt)


def test_the_input_is_not_changed(tokenizer: Any) -> None:
    trajectory: Any = conversation(("user", "hi"), ("assistant", "yo")) | {"answer": ["kept"]}
    before = copy.deepcopy(trajectory)
    Template(tokenizer).encode(trajectory)

    assert trajectory == before


def test_without_a_chat_template_contents_follow_bos(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    feature = Template(tokenizer).encode(conversation(("user", "12"), ("assistant", "21")))

    assert text_of(tokenizer, feature["input_ids"]) == "<s>1221"
    assert text_of(tokenizer, [label for label in feature["labels"] if label != -100]) == "21"


def test_plain_ignores_the_chat_template(tokenizer: Any) -> None:
    ids = PlainTemplate(tokenizer).encode(conversation(("user", "12")))["input_ids"]

    assert text_of(tokenizer, ids) == "<s>12"


def test_text_has_no_special_tokens(tokenizer: Any) -> None:
    template = Template(tokenizer)
    ids = template.encode(conversation(("user", "hi")))["input_ids"]

    assert template.decode(ids) == "[u]hi;[a]"
    assert template.decode_batch([ids, ids[:4]]) == ["[u]hi;[a]", "[u]"]


def test_a_template_that_rewrites_the_past_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = FORGETFUL
    with pytest.raises(DataError, match="rewrites earlier messages"):
        Template(tokenizer).encode(conversation(("user", "hi"), ("assistant", "yo")))


def test_arguments_reach_the_chat_template(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ mood }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    template = Template(tokenizer, chat_template_kwargs={"mood": "glad"})

    assert template.decode(template.encode(conversation(("user", "hi")))["input_ids"]) == "gladhi"


@pytest.mark.parametrize(
    "trajectory",
    [
        {},
        {"messages": []},
        {"messages": "hi"},
        {"messages": ["hi"]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": 1, "content": "hi"}]},
    ],
)
def test_a_broken_trajectory_is_a_data_error(tokenizer: Any, trajectory: Any) -> None:
    with pytest.raises(DataError, match=r"messages|message 0"):
        Template(tokenizer).encode(trajectory)


def test_templates_come_by_name_class_or_instance(tokenizer: Any) -> None:
    made = make_template("plain", tokenizer)

    assert type(make_template("auto", tokenizer)) is Template
    assert type(make_template("chat", tokenizer)) is ChatTemplate
    assert type(make_template(PlainTemplate, tokenizer)) is PlainTemplate
    assert make_template(made, tokenizer) is made


def test_unknown_templates_and_arguments_name_the_nearest(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"unknown template 'plane'.*did you mean plain"):
        make_template("plane", tokenizer)
    with pytest.raises(ConfigError, match=r"no argument 'chat_template_kwarg'.*did you mean chat_template_kwargs"):
        make_template("auto", tokenizer, chat_template_kwarg={})
    with pytest.raises(ConfigError, match="template is 3"):
        make_template(3, tokenizer)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="exists already"):
        make_template(Template(tokenizer), tokenizer, chat_template_kwargs={})


def test_chat_needs_a_chat_template(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="needs a tokenizer with a chat template"):
        make_template("chat", tokenizer)
    with pytest.raises(ConfigError, match="no chat template is used"):
        make_template("auto", tokenizer, chat_template_kwargs={"a": 1})


@pytest.mark.parametrize(("text", "piece"), [("01x2y", "'x'"), ("ü", "'ü'"), ("0 1", "' '")])
def test_text_that_the_tokenizer_does_not_know_is_refused_with_its_first_character(text: str, piece: str) -> None:
    template = make_template("auto", character_tokenizer("01234567", 64))

    with pytest.raises(DataError, match=rf"no token for {piece} in .*{text}.*model\.tiny\.alphabet"):
        template.encode(conversation(("user", text)))


def test_a_word_that_is_a_token_is_known_and_half_of_it_is_not() -> None:
    template = make_template("auto", character_tokenizer(" ", 64, words="one two"))

    assert len(template.encode(conversation(("user", "one two")))["input_ids"]) == 4
    with pytest.raises(DataError, match="no token for 't'"):
        template.encode(conversation(("user", "one tw")))


def test_an_end_token_that_stands_for_the_unknown_too_is_no_unknown_text() -> None:
    tokenizer = byte_tokenizer(64)

    ids = make_template("plain", tokenizer).encode(conversation(("user", f"a{tokenizer.eos_token}ü")))["input_ids"]

    assert tokenizer.unk_token_id == tokenizer.eos_token_id
    assert tokenizer.eos_token_id in ids
