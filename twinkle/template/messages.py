"""Conversations as a chat template needs them: checked, and copied so that nothing of the caller's is changed."""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twinkle.data_format import ToolCall, Trajectory
from twinkle.errors import DataError

SAMPLED = ("token_ids", "logprobs")


def checked_messages(messages: object, system_prompt: str | None = None) -> list[dict[str, Any]]:
    """Copies of the messages of a trajectory, the arguments of tool calls as objects; the system prompt goes in front
    where there is no system message. Raises DataError that names the message."""
    if not isinstance(messages, (list, tuple)) or not messages:
        raise DataError(f"a trajectory's 'messages' is {messages!r:.200}; it must be a list of at least one message")
    checked = [_message(index, message) for index, message in enumerate(messages)]
    if system_prompt is not None and all(message["role"] != "system" for message in checked):
        return [{"role": "system", "content": system_prompt}, *checked]
    return checked


def checked_tools(trajectory: Trajectory) -> list[dict[str, Any]] | None:
    """Copies of the tools of a trajectory in the long form; None where there are none."""
    tools = trajectory.get("tools")
    if tools is None or (isinstance(tools, (list, tuple)) and not tools):
        return None
    if not isinstance(tools, (list, tuple)):
        raise DataError(f"a trajectory's 'tools' is {tools!r:.200}; it must be a list of JSON schemas of functions")
    checked = [_tool(index, tool) for index, tool in enumerate(tools)]
    names = tool_names(checked)
    if len(set(names)) < len(names):
        raise DataError(f"two of a trajectory's tools have one name: {names}")
    return checked


def tool_names(tools: Iterable[Mapping[str, Any]]) -> list[str]:
    """The functions' names, whichever form the tools have."""
    return [str(tool.get("function", tool)["name"]) for tool in tools]


def _message(index: int, message: object) -> dict[str, Any]:
    fields = dict(message) if isinstance(message, Mapping) else {}
    calls = fields.pop("tool_calls", None) or []  # some templates ask whether the key is there
    if calls and fields.get("content") is None:
        fields["content"] = ""
    for key in ("role", "content"):
        if not isinstance(value := fields.get(key), str):
            raise DataError(
                f"message {index} has the {key} {value!r:.200}; role and content must be strings: {message!r:.200}"
            )
    kept = {key: fields.pop(key) for key in SAMPLED if fields.get(key) is not None}
    if calls:
        if not isinstance(calls, (list, tuple)):
            raise DataError(f"message {index} has the tool_calls {calls!r:.200}; they must be a list")
        fields["tool_calls"] = [_call(index, call) for call in calls]
    return {**copy.deepcopy(fields), **_sampled(index, fields["role"], kept)}


def _sampled(index: int, role: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    if not kept:
        return {}
    ids, logprobs = _listed(kept.get("token_ids")), _listed(kept.get("logprobs", []))
    if role != "assistant" or not ids or not all(type(token) is int and token >= 0 for token in ids):
        raise DataError(
            f"message {index} of role {role!r} has the token_ids {kept.get('token_ids')!r:.200}; they are the sampled "
            "token ids of an assistant message"
        )
    if logprobs and len(logprobs) != len(ids):
        raise DataError(f"message {index} has {len(ids)} token_ids but {len(logprobs)} logprobs; they must be as many")
    return {"token_ids": ids, **({"logprobs": [float(value) for value in logprobs]} if logprobs else {})}


def _listed(values: Any) -> list[Any]:
    listed = values.tolist() if hasattr(values, "tolist") else values
    return list(listed) if isinstance(listed, Sequence) and not isinstance(listed, str) else []


def _call(index: int, call: object) -> dict[str, Any]:
    if isinstance(call, ToolCall):
        call = {"name": call.name, "arguments": dict(call.arguments)}
    outer = dict(call) if isinstance(call, Mapping) else {}
    inner = outer.get("function", outer)
    name, arguments = (inner.get("name"), inner.get("arguments")) if isinstance(inner, Mapping) else (None, None)
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = None
    if not isinstance(name, str) or not name or not isinstance(arguments, Mapping):
        raise DataError(
            f"message {index} has the tool call {call!r:.200}; it needs a name and arguments, a JSON object: "
            '{"function": {"name": "f", "arguments": {"x": 1}}}'
        )
    kept = {"id": outer["id"]} if isinstance(outer.get("id"), str) else {}
    return {**kept, "type": "function", "function": {"name": name, "arguments": copy.deepcopy(dict(arguments))}}


def _tool(index: int, tool: object) -> dict[str, Any]:
    outer = dict(tool) if isinstance(tool, Mapping) else {}
    function = outer.get("function", outer)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise DataError(
            f"tool {index} is {tool!r:.200}; it must be a JSON schema of a function: "
            '{"type": "function", "function": {"name": "f", "description": "...", "parameters": {...}}}'
        )
    described = {key: value for key, value in function.items() if key != "type" or "function" in outer}
    return {"type": "function", "function": copy.deepcopy(described)}
