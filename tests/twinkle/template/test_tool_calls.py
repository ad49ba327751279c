"""What a model writes is data: well-formed calls, malformed ones with a reason, and text."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.twinkle.template.conftest import CHATML, LLAMA3, bpe_tokenizer
from tests.twinkle.template.conversations import turns
from twinkle.data_format import MalformedToolCall, ToolCall
from twinkle.template import ChatMLTemplate, Llama3Template, parse_tool_calls
from twinkle.template.tool_calls import STYLES

CALL = '{"name": "f", "arguments": {"x": 1}}'


def calls(text: str, style: str) -> list[tuple[str, Any]]:
    return [
        (call.name, dict(call.arguments)) if isinstance(call, ToolCall) else ("malformed", call.reason)
        for call in parse_tool_calls(text, style).calls
    ]


@pytest.mark.parametrize(
    ("text", "content", "expected"),
    [
        ("no call", "no call", []),
        (f"<tool_call>\n{CALL}\n</tool_call>", "", [("f", {"x": 1})]),
        (f"<tool_call>{CALL}</tool_call>", "", [("f", {"x": 1})]),
        (
            f"I think. <tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call> So.",
            "I think.\nSo.",
            [("f", {"x": 1})] * 2,
        ),
        (
            '<tool_call>{"name": "f", "arguments": {"x": "</tool_call><tool_call>"}}</tool_call>',
            "",
            [("f", {"x": "</tool_call><tool_call>"})],
        ),
        (' {"name": "f", "arguments": {}} ', ' {"name": "f", "arguments": {}} ', []),
    ],
)
def test_hermes(text: str, content: str, expected: Any) -> None:
    assert calls(text, "hermes") == expected
    assert parse_tool_calls(text, "hermes").content == content


@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        ("", "no JSON"),
        ("oh", "no JSON"),
        ('{"name": "f", "arguments": {"x": ', "no JSON"),
        ("{'name': 'f'}", "no JSON"),
        ("[1]", "a JSON object, not a list"),
        ('{"arguments": {}}', "has no name"),
        ('{"name": "", "arguments": {}}', "has no name"),
        ('{"name": 3, "arguments": {}}', "has no name"),
        ('{"name": "f"}', "no JSON object of arguments"),
        ('{"name": "f", "arguments": "x"}', "no JSON object of arguments"),
        ('{"name": "f", "parameters": {}}', "no JSON object of arguments"),
        ('{"name": "f", "arguments": {"x": NaN}}', "NaN is no JSON value"),
        ('{"name": "f", "arguments": {"x": "\\ud800"}}', "no JSON: 'utf-8' codec"),
        ('{"name": "f", "arguments": {"x": ' + "9" * 5000 + "}}", "no JSON: Exceeds the limit"),
        ("[" * 100_000, "nested too deeply"),
        (f"{CALL} {CALL}", "no </tool_call> behind the JSON object"),
    ],
)
def test_what_hermes_cannot_read_has_a_reason(inside: str, reason: str) -> None:
    text = f"before <tool_call>{inside}</tool_call> after <tool_call>{CALL}</tool_call>"
    parsed = parse_tool_calls(text, "hermes")

    broken, good = parsed.calls
    assert isinstance(broken, MalformedToolCall)
    assert reason in broken.reason
    assert len(broken.reason) <= 200
    assert broken.text == f"<tool_call>{inside}</tool_call>"
    assert good == ToolCall("f", {"x": 1})
    assert parsed.content == "before\nafter"


def test_a_call_that_max_tokens_cut_is_malformed() -> None:
    (broken,) = parse_tool_calls(f"<tool_call>{CALL}", "hermes").malformed

    assert broken.reason == "there is no </tool_call> behind the JSON object"


LLAMA = '{"name": "f", "parameters": {"x": 1}}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LLAMA, [("f", {"x": 1})]),
        (f" {LLAMA}\n", [("f", {"x": 1})]),
        (f"{LLAMA}; {LLAMA};", [("f", {"x": 1})] * 2),
        (CALL, [("f", {"x": 1})]),
        ('{"type": "function", "name": "f", "parameters": {}}', [("f", {})]),
        (f"<|python_tag|>{LLAMA}", [("f", {"x": 1})]),
        ('<|python_tag|>search.call(query="a, b)", n=2)', [("search", {"query": "a, b)", "n": 2})]),
        ("<|python_tag|>search.call()", [("search", {})]),
        ("<|python_tag|>print(1)\nprint(2)", [("code_interpreter", {"code": "print(1)\nprint(2)"})]),
        ('{"answer": 42}', []),
        ("Here is it: " + LLAMA, []),
        ('{"name": "Alice"}', []),
        (LLAMA + " and so", [("f", {"x": 1}), ("malformed", "text stands behind the JSON object of a call")]),
    ],
)
def test_llama(text: str, expected: Any) -> None:
    assert calls(text, "llama") == expected
    assert parse_tool_calls(text, "llama").content == ("" if expected else text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"name": "f", "parameters": {"x": ', "no JSON"),
        ('{"name": "f", "parameters": 1}', "no JSON object of parameters"),
        ("<|python_tag|>", "nothing stands behind"),
        ("<|python_tag|>{oh}", "no JSON"),
        ("<|python_tag|>search.call(query=oh)", "no JSON"),
        ("<|python_tag|>search.call(1)", "not of the form"),
        ('<|python_tag|>search.call(query="a"', "not of the form"),
        ('<|python_tag|>search.call(query="a") and', "not of the form"),
    ],
)
def test_what_llama_cannot_read_has_a_reason(text: str, reason: str) -> None:
    (broken,) = parse_tool_calls(text, "llama").malformed

    assert reason in broken.reason


def test_a_call_of_an_unknown_tool_names_the_nearest() -> None:
    parsed = parse_tool_calls(f"<tool_call>{CALL}</tool_call>", "hermes", tools=["ff", "other"])

    assert [call.reason for call in parsed.malformed] == ["there is no tool 'f'; there are ff, other; did you mean ff?"]
    assert parse_tool_calls(f"<tool_call>{CALL}</tool_call>", "hermes", tools=["f"]).tool_calls


def test_without_a_style_there_are_no_calls() -> None:
    assert parse_tool_calls(f"<tool_call>{CALL}</tool_call>", "none").calls == ()


FRAGMENTS = st.lists(
    st.sampled_from(
        [
            "<tool_call>",
            "</tool_call>",
            "<|python_tag|>",
            CALL,
            LLAMA,
            "{",
            "}",
            '"name"',
            ":",
            ";",
            ".call(",
            "x=",
            '"',
            "\\",
        ]
    )
    | st.text(max_size=3),
    max_size=12,
)


@settings(deadline=None, max_examples=200)
@given(FRAGMENTS.map("".join), st.sampled_from(sorted(STYLES)))
def test_no_text_raises_and_calls_can_be_written_down(text: str, style: str) -> None:
    for call in parse_tool_calls(text, style).calls:
        if isinstance(call, ToolCall):
            json.dumps(call.arguments).encode()
        else:
            assert call.reason


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=3)
NAMES = st.from_regex(r"[a-z][a-z_.-]{0,7}", fullmatch=True)
TEMPLATES = {
    "chatml": ChatMLTemplate(bpe_tokenizer(*CHATML, eos="<|im_end|>")),
    "llama3": Llama3Template(bpe_tokenizer(*LLAMA3, eos="<|eot_id|>")),
}
WRITTEN = st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=3)


@settings(deadline=None, max_examples=60)
@given(WRITTEN, st.sampled_from(sorted(TEMPLATES)))
def test_what_a_template_writes_is_read_again(written: Any, name: str) -> None:
    template = TEMPLATES[name]
    conversation = turns(("user", "q"))
    answer = [{"function": {"name": called, "arguments": arguments}} for called, arguments in written]
    conversation["messages"].append({"role": "assistant", "content": "", "tool_calls": answer})
    labels = [label for label in template.encode(conversation)["labels"] if label != -100]

    parsed = template.parse_response(labels)
    assert [(call.name, dict(call.arguments)) for call in parsed.tool_calls] == written
    assert parsed.malformed == []


@pytest.mark.parametrize(
    "text", ["\ue0b0\ue0b1\ue0b0", "\ue0b0\ue0b1", "\ue0b1\ue0b0\ue0b0", "\ue0b1\ue0b1\ue0b0\ue0b1"]
)
def test_text_that_looks_like_our_own_marks_is_text(text: str) -> None:
    template = TEMPLATES["chatml"]
    conversation = turns(("user", text), ("assistant", text), ("user", text), ("assistant", text))
    encoded = template.encode(conversation)
    labels = [label for label in encoded["labels"] if label != -100]

    assert template.decode(labels).count(text) == 2
    assert template.decode(encoded["input_ids"]).count(text) == 4
