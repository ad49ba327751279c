"""Calls of tools in the text of a response, in the style of Hermes and Qwen and in that of Llama 3.

Nothing that a model writes raises: what was to be a call and is none becomes a MalformedToolCall.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from twinkle.choices import nearest
from twinkle.data_format import MalformedToolCall, ParsedResponse, ToolCall

Call = ToolCall | MalformedToolCall
PYTHON_TAG = "<|python_tag|>"
OPEN, CLOSE = "<tool_call>", "</tool_call>"
LONGEST_REASON = 200
_BLANKS = re.compile(r"\s*")
_BARE_CALL = re.compile(
    r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"[^"]*"\s*,\s*"(?:parameters|arguments)"'
)
_DOTTED_CALL = re.compile(r"([A-Za-z_]\w*)\.call\(")
_KEY = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*")


class _Broken(Exception):
    """Why some text is no call; never leaves this module."""


def parse_tool_calls(text: str, style: str, *, tools: Iterable[str] | None = None) -> ParsedResponse:
    """The calls in ``text`` and what stands around them. ``style`` is one of STYLES; with ``tools``, the names that
    may be called, any other name is malformed."""
    parsed = STYLES[style](text)
    if tools is None:
        return parsed
    known = list(tools)
    return ParsedResponse(parsed.content, tuple(_known(call, known) for call in parsed.calls))


def _hermes(text: str) -> ParsedResponse:
    """``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, any number of them, anywhere in the text."""
    around: list[str] = []
    calls: list[Call] = []
    place = 0
    while (begin := text.find(OPEN, place)) >= 0:
        around.append(text[place:begin])
        call, place = _hermes_call(text, begin)
        calls.append(call)
    around.append(text[place:])
    content = "\n".join(part.strip() for part in around if part.strip()) if calls else text
    return ParsedResponse(content, tuple(calls))


def _hermes_call(text: str, begin: int) -> tuple[Call, int]:
    """The call that begins here and the place behind it; the JSON says where it ends, for a string in it may hold the
    closing tag."""
    try:
        value, end = _json(text, _skip(text, begin + len(OPEN)))
        close = _skip(text, end)
        if not text.startswith(CLOSE, close):
            raise _Broken(f"there is no {CLOSE} behind the JSON object")
        return _call_of(value, ("arguments",)), close + len(CLOSE)
    except _Broken as broken:
        closed = text.find(CLOSE, begin)
        opened = text.find(OPEN, begin + len(OPEN))
        ends = [end for end in (closed + len(CLOSE) if closed >= 0 else -1, opened) if end >= 0]
        end = min(ends, default=len(text))
        return MalformedToolCall(text[begin:end], str(broken)), end


def _llama(text: str) -> ParsedResponse:
    """A response that is JSON calls ``{"name": ..., "parameters": {...}}`` separated by semicolons, or whatever stands
    behind ``<|python_tag|>``: such calls, ``tool.call(key="value")``, or code for the interpreter."""
    before, tag, behind = text.partition(PYTHON_TAG)
    if tag:
        return ParsedResponse(before.strip(), tuple(_behind_tag(behind)))
    if not _BARE_CALL.match(text, _skip(text, 0)):
        return ParsedResponse(text)
    return ParsedResponse("", tuple(_json_calls(text)))


def _behind_tag(text: str) -> list[Call]:
    start = _skip(text, 0)
    if not text[start:]:
        return [MalformedToolCall(text, f"nothing stands behind {PYTHON_TAG}")]
    if text[start] == "{":
        return _json_calls(text)
    match = _DOTTED_CALL.match(text, start)
    if match is None:
        return [ToolCall("code_interpreter", {"code": text.strip()})]
    try:
        return [ToolCall(match[1], _keyword_arguments(text, match.end()))]
    except _Broken as broken:
        return [MalformedToolCall(text, str(broken))]


def _json_calls(text: str) -> list[Call]:
    calls: list[Call] = []
    place = _skip(text, 0)
    while place < len(text):
        try:
            value, end = _json(text, place)
            calls.append(_call_of(value, ("parameters", "arguments")))
        except _Broken as broken:
            return [*calls, MalformedToolCall(text[place:], str(broken))]
        place = _skip(text, end)
        if place < len(text) and text[place] != ";":
            return [*calls, MalformedToolCall(text[place:], "text stands behind the JSON object of a call")]
        place = _skip(text, place + 1)
    return calls


def _keyword_arguments(text: str, place: int) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    while (match := _KEY.match(text, place)) is not None:
        value, end = _json(text, match.end())
        arguments[match[1]] = value
        place = _skip(text, end)
        if not text.startswith(",", place):
            break
        place += 1
    if text[_skip(text, place) :].strip() != ")":
        raise _Broken('the arguments are not of the form key="value", ... up to a closing bracket')
    return arguments


def _json(text: str, place: int) -> tuple[Any, int]:
    """The JSON value that begins here and the place behind it."""
    try:
        value, end = _DECODER.raw_decode(text, place)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise _Broken("the JSON is nested too deeply") from error
    except ValueError as error:
        raise _Broken(f"no JSON: {error}"[:LONGEST_REASON]) from error
    return value, end


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _call_of(value: Any, keys: tuple[str, ...]) -> ToolCall:
    if not isinstance(value, dict):
        raise _Broken(f"a call is a JSON object, not a {type(value).__name__}")
    name = value.get("name")
    if not isinstance(name, str) or not name:
        raise _Broken("the call has no name")
    arguments = next((value[key] for key in keys if key in value), None)
    if not isinstance(arguments, dict):
        raise _Broken(f"the call of {name} has no JSON object of {keys[0]}")
    return ToolCall(name, arguments)


def _known(call: Call, tools: list[str]) -> Call:
    if isinstance(call, MalformedToolCall) or call.name in tools:
        return call
    reason = f"there is no tool {call.name!r}; there are {', '.join(tools) or 'none'}" + nearest(call.name, tools)
    return MalformedToolCall(json.dumps({"name": call.name, "arguments": dict(call.arguments)}), reason)


def _skip(text: str, place: int) -> int:
    """The next place that is no blank."""
    match = _BLANKS.match(text, place)
    return match.end() if match else place


STYLES: dict[str, Callable[[str], ParsedResponse]] = {"hermes": _hermes, "llama": _llama, "none": ParsedResponse}


def style_of(chat_template: str) -> str:
    """The style that a chat template teaches, by the words that it writes."""
    if OPEN in chat_template:
        return "hermes"
    if PYTHON_TAG in chat_template or "<|start_header_id|>" in chat_template:
        return "llama"
    return "none"
