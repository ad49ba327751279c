"""The formats that are known by name, letter by letter."""

from typing import Any

import pytest

from tests.twinkle.template.conftest import bpe_tokenizer
from tests.twinkle.template.conversations import PARIS, WEATHER, labelled, text, turns
from twinkle.errors import ConfigError, DataError
from twinkle.template import ChatMLTemplate, Llama3Template, make_template


def test_chatml(chatml: Any) -> None:
    template = make_template("chatml", chatml)
    prompt = template.encode(turns(("system", "be"), ("user", "hello")))
    example = template.encode(turns(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")))

    assert text(chatml, prompt["input_ids"]) == (
        "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert text(chatml, example["input_ids"]) == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n"
    )
    assert labelled(chatml, example) == "b<|im_end|>d<|im_end|>"


def test_llama3(llama3: Any) -> None:
    template = make_template("llama3", llama3)
    prompt = template.encode(turns(("system", "be"), ("user", "hello")))
    example = template.encode(turns(("user", "a"), ("assistant", "b")))

    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert text(llama3, prompt["input_ids"]) == (
        "<|begin_of_text|>" + head.format("system") + "be<|eot_id|>" + head.format("user") + "hello<|eot_id|>"
        + head.format("assistant")
    )  # fmt: skip
    assert labelled(llama3, example) == "b<|eot_id|>"


def test_tools_and_their_results_in_chatml(chatml: Any) -> None:
    template = ChatMLTemplate(chatml)
    conversation = turns(("user", "weather?"), tools=[WEATHER])
    conversation["messages"] += [
        {"role": "assistant", "content": "I look.", "tool_calls": [PARIS, PARIS]},
        {"role": "tool", "content": "fine"},
        {"role": "tool", "content": "hot"},
        {"role": "assistant", "content": "Fine."},
    ]
    feature = template.encode(conversation)
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'

    shown = text(chatml, feature["input_ids"])
    assert shown.startswith("<|im_start|>system\n# Tools\n")
    assert '<tools>\n{"type": "function", "function": {"name": "weather", ' in shown
    assert (
        "<|im_start|>user\n<tool_response>\nfine\n</tool_response>\n<tool_response>\nhot\n</tool_response><|im_end|>\n"
        in shown
    )
    assert labelled(chatml, feature) == f"I look.\n{call}\n{call}<|im_end|>Fine.<|im_end|>"


def test_tools_and_their_results_in_llama3(llama3: Any) -> None:
    conversation = turns(("system", "be"), ("user", "weather?"), tools=[WEATHER["function"]])
    conversation["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [PARIS, PARIS]},
        {"role": "tool", "content": "fine"},
    ]
    shown = text(llama3, Llama3Template(llama3).encode(conversation)["input_ids"])
    call = '{"name": "weather", "parameters": {"city": "Paris"}}'

    assert (
        f"<|end_header_id|>\n\n{call}; {call}<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\nfine<|eot_id|>"
        in shown
    )
    assert '{"type": "function", "function": {"name": "weather", ' in shown


@pytest.mark.parametrize(
    ("name", "missing"), [("chatml", r"<\|im_start\|>, <\|im_end\|>"), ("llama3", "start_header_id")]
)
def test_a_format_needs_its_tokens(name: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=rf"template '{name}' needs the special tokens {missing}|{missing}"):
        make_template(name, bpe_tokenizer(eos="</s>"))


def test_a_turn_ends_with_a_token_that_need_not_be_eos() -> None:
    base = bpe_tokenizer("<|im_start|>", "<|im_end|>", eos="<|endoftext|>")

    assert base.convert_ids_to_tokens(make_template("chatml", base).turn_end_ids) == ["<|im_end|>"]
    assert make_template("plain", base).turn_end_ids == ()
    base.chat_template = "{{ raise_exception('one turn only') if messages | length > 1 }}"
    assert make_template("auto", base).turn_end_ids == ()


def test_no_tool_calls_are_none(chatml: Any) -> None:
    chatml.chat_template = "{% for m in messages %}{{ 'calls' if 'tool_calls' in m else 'none' }}{% endfor %}"
    conversation = turns(("user", "a"))
    conversation["messages"][0]["tool_calls"] = []

    assert text(chatml, make_template("auto", chatml).encode(conversation)["input_ids"]) == "none"


def test_qwen_is_chatml(chatml: Any) -> None:
    assert type(make_template("qwen", chatml, system_prompt="be")) is ChatMLTemplate


def test_arguments_of_a_named_template_are_those_of_template(chatml: Any) -> None:
    with pytest.raises(ConfigError, match=r"no argument 'sytem_prompt'.*did you mean system_prompt"):
        make_template("chatml", chatml, sytem_prompt="be")


def test_a_template_that_shows_no_tools_refuses_them(chatml: Any) -> None:
    for name in ("plain", "auto"):
        with pytest.raises(DataError, match=r"tools \['weather'\], but this template shows none"):
            make_template(name, chatml).encode(turns(("user", "hello"), tools=[WEATHER]))
