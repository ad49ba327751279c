"""What was sampled stays as it was sampled, turn after turn, from the sampler to the trainer."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.twinkle.template.conftest import CHATML, LLAMA3, bpe_tokenizer
from tests.twinkle.template.conversations import PARIS, WEATHER, text, turns
from tests.twinkle.template.test_labels import FORGETFUL, tokenizer_with
from twinkle.data_format import SampledSequence, SamplingParams
from twinkle.errors import DataError
from twinkle.model.tiny import make_tiny_qwen2
from twinkle.template import ChatMLTemplate, Llama3Template, PlainTemplate, Template

QWEN = bpe_tokenizer(*CHATML, eos="<|im_end|>")
END = QWEN.convert_tokens_to_ids("<|im_end|>")
IDS = st.lists(st.integers(0, 250), min_size=1, max_size=8)
QUESTION = turns(("user", "what?"), tools=[WEATHER])


def sequence(ids: list[int], tokenizer: Any = QWEN, *, stopped_by: str | int | None = None) -> SampledSequence:
    logprobs = [-0.5 * place for place in range(1, len(ids) + 1)]
    said = tokenizer.decode(ids, skip_special_tokens=True)
    return SampledSequence(ids, said, "stop", logprobs, logprobs, 0, 0, stopped_by=stopped_by)


def in_pieces(said: str) -> list[int]:
    """Ids of a text that no tokenizer would give: one for each byte."""
    return [piece for character in said for piece in QWEN(character, add_special_tokens=False)["input_ids"]]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(IDS, st.booleans(), st.text("ab \n", max_size=4)), min_size=1, max_size=4))
def test_every_turn_begins_with_the_ids_of_the_one_before(rounds: list[tuple[list[int], bool, str]]) -> None:
    """Whatever ids were sampled, whether the turn was ended or cut."""
    template = ChatMLTemplate(QWEN)
    trajectory = QUESTION
    for ids, ended, reply in rounds:
        prompt = list(template.encode(trajectory)["input_ids"])
        drawn = [*ids, END] if ended else ids
        sampled = template.extend(trajectory, sequence(drawn))
        example = template.encode(sampled)
        assert list(example["input_ids"]) == prompt + drawn
        assert list(example["labels"][len(prompt) :]) == drawn
        assert list(example["logprobs"][len(prompt) :]) == [-0.5 * place for place in range(1, len(drawn) + 1)]
        trajectory = template.extend(trajectory, sequence(drawn), [{"role": "user", "content": reply}])
        grown = list(template.encode(trajectory)["input_ids"])
        assert grown == template.extend_ids(prompt + drawn, [{"role": "user", "content": reply}])
        assert text(QWEN, grown[len(prompt) + len(ids) :]) == (
            f"<|im_end|>\n<|im_start|>user\n{reply}<|im_end|>\n<|im_start|>assistant\n"
        )


def test_sampled_ids_are_not_those_of_their_text() -> None:
    """The test above is about something: the same text would be tokenized in another way."""
    assert in_pieces("hello") != QWEN("hello", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("role", ["user", "tool"])
def test_ids_are_those_of_the_template_where_the_sampled_ones_are(role: str) -> None:
    template = ChatMLTemplate(QWEN)
    said = QWEN("hello world<|im_end|>", add_special_tokens=False)["input_ids"]
    carried = template.extend(QUESTION, sequence(said), [{"role": role, "content": "fine"}])
    written = {**QUESTION, "messages": [*QUESTION["messages"], {"role": "assistant", "content": "hello world"}]}
    written["messages"].append({"role": role, "content": "fine"})

    assert template.encode(carried)["input_ids"] == template.encode(written)["input_ids"]


def test_a_forgetful_template_forgets_nothing_that_was_sampled() -> None:
    tokenizer = tokenizer_with(FORGETFUL)
    template = Template(tokenizer)
    trajectory = template.extend(turns(("user", "a")), sequence([*in_pieces("hm b"), END], tokenizer))
    trajectory["messages"] = [*trajectory["messages"], {"role": "user", "content": "c"}]
    trajectory = template.extend(trajectory, sequence([*in_pieces("hm d"), END], tokenizer))

    assert text(tokenizer, template.encode(trajectory)["input_ids"]) == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nhm b<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nhm d<|im_end|>"
    )


def test_an_end_of_text_that_is_no_end_of_turn_stays() -> None:
    tokenizer = bpe_tokenizer(*CHATML, "<|endoftext|>", eos="<|endoftext|>")
    ids = tokenizer("hello<|endoftext|>", add_special_tokens=False)["input_ids"]

    assert text(tokenizer, ChatMLTemplate(tokenizer).extend_ids(ids, [{"role": "user", "content": "a"}])) == (
        "hello<|endoftext|><|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_end_is_not_written_twice_though_the_template_puts_a_blank_before_it() -> None:
    tokenizer = tokenizer_with(
        "{% for m in messages %}{{ '[INST]' + m.content if m.role == 'user' else ' ' + m.content + ' ' + eos_token }}"
        "{% endfor %}"
    )
    ids = tokenizer("hello<|im_end|>", add_special_tokens=False)["input_ids"]

    assert text(tokenizer, Template(tokenizer).extend_ids(ids, [{"role": "user", "content": "a"}])) == (
        "hello<|im_end|>[INST]a"
    )


def test_the_end_of_a_message_to_a_tool_is_the_end_of_a_turn() -> None:
    tokenizer = bpe_tokenizer(*LLAMA3, eos="<|eot_id|>")
    ids = tokenizer("hello<|eom_id|>", add_special_tokens=False)["input_ids"]
    grown = text(tokenizer, Llama3Template(tokenizer).extend_ids(ids, [{"role": "tool", "content": "a"}]))

    assert grown.startswith("hello<|eom_id|><|start_header_id|>ipython<|end_header_id|>\n\na<|eot_id|>")


def test_plain_text_goes_on_without_anything_between() -> None:
    template = PlainTemplate(QWEN)

    assert text(QWEN, template.extend_ids(in_pieces("12"), [{"role": "user", "content": "34"}])) == "1234"


def test_written_answers_may_stand_before_and_behind_sampled_ones() -> None:
    template = ChatMLTemplate(QWEN)
    trajectory = template.extend(
        turns(("user", "a"), ("assistant", "b"), ("user", "c")), sequence([*in_pieces("d"), END])
    )
    trajectory["messages"] = [*trajectory["messages"], {"role": "user", "content": "e"}]
    trajectory["messages"].append({"role": "assistant", "content": "f"})
    feature = template.encode(trajectory)

    assert text(QWEN, [label for label in feature["labels"] if label != -100]) == "b<|im_end|>d<|im_end|>f<|im_end|>"
    assert "logprobs" not in feature  # nobody has sampled b and f


def test_a_call_is_carried_with_its_ids() -> None:
    template = ChatMLTemplate(QWEN)
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    before = copy.deepcopy(QUESTION)
    trajectory = template.extend(QUESTION, sequence([*in_pieces(f"I look. {call}"), END]))

    message = trajectory["messages"][-1]
    assert message["content"] == "I look."
    assert message["tool_calls"] == [PARIS]
    assert trajectory["tools"] == [WEATHER]
    assert before == QUESTION


def test_a_malformed_call_is_text() -> None:
    said = "<tool_call>{oh}</tool_call>"
    message = ChatMLTemplate(QWEN).extend(QUESTION, sequence([*in_pieces(said), END]))["messages"][-1]

    assert message["content"] == said
    assert "tool_calls" not in message


def test_a_response_is_parsed_without_its_ends() -> None:
    template = ChatMLTemplate(QWEN)

    assert template.parse_response([*in_pieces("hello"), END]).content == "hello"
    assert template.parse_response(sequence(in_pieces("hello STOP"), stopped_by=" STOP")).content == "hello"
    assert template.parse_response([]).content == ""


def test_the_python_tag_is_seen_though_it_is_a_special_token() -> None:
    tokenizer = bpe_tokenizer(*LLAMA3, eos="<|eot_id|>")
    template = Llama3Template(tokenizer)
    said = '<|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}<|eom_id|>'
    parsed = template.parse_response(tokenizer(said, add_special_tokens=False)["input_ids"])

    assert [(call.name, call.arguments) for call in parsed.tool_calls] == [("weather", {"city": "Paris"})]
    assert template.parse_response([tokenizer.convert_tokens_to_ids("<|python_tag|>")]).malformed


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([{"role": "assistant", "content": "", "token_ids": [1]}], "the first message has token_ids"),
        ([{"role": "user", "content": "", "token_ids": [1]}], "token_ids of an assistant|sampled token ids"),
        ([{"role": "assistant", "content": "", "token_ids": []}], "sampled token ids"),
        ([{"role": "assistant", "content": "", "token_ids": [1.5]}], "sampled token ids"),
        (
            [{"role": "assistant", "content": "", "token_ids": [1], "logprobs": [0.0, 0.0]}],
            "1 token_ids but 2 logprobs",
        ),
        (
            [{"role": "user", "content": ""}, *[{"role": "assistant", "content": "", "token_ids": [1]}] * 2],
            "messages 1 and 2 are of the assistant",
        ),
    ],
)
def test_sampled_ids_in_wrong_places_are_data_errors(messages: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        ChatMLTemplate(QWEN).encode({"messages": messages})


def test_a_sampler_takes_a_prompt_in_which_the_assistant_has_spoken(tmp_path: Path) -> None:
    from twinkle.sampler import TorchSampler

    sampler = TorchSampler(make_tiny_qwen2(tmp_path / "qwen2"))
    feature = sampler.template.encode(turns(("user", "a"), ("assistant", "b"), ("user", "c")))

    assert sampler.sample(feature, SamplingParams(max_tokens=1)).sequences


def test_the_trainer_reads_what_the_sampler_sampled(tmp_path: Path) -> None:
    """Two turns on a real model: the sampler's log-probs are those of an uncached pass over the carried ids."""
    from tests.twinkle.sampler.conftest import load, logprobs_uncached
    from twinkle.sampler import TorchSampler

    folder = make_tiny_qwen2(tmp_path / "qwen2")
    sampler = TorchSampler(folder)
    params = SamplingParams(max_tokens=6, temperature=1.0, seed=1)
    trajectory = turns(("user", "one "))
    for reply in (" two ", " three "):
        drawn = sampler.sample(trajectory, params).sequences[0]
        trajectory = sampler.template.extend(trajectory, drawn, [{"role": "user", "content": reply}])
    trajectory["messages"] = trajectory["messages"][:-1]
    feature = sampler.template.encode(trajectory)

    ids = list(feature["input_ids"])
    expected = logprobs_uncached(load(folder), ids[:1], ids[1:])
    pairs = zip(feature["labels"][1:], feature["logprobs"][1:], expected, strict=True)
    compared = [(carried, fresh) for label, carried, fresh in pairs if label != -100]
    assert len(compared) >= 7
    assert max(abs(carried - fresh) for carried, fresh in compared) < 1e-5
