"""Conversations and tools that several tests use."""

from typing import Any

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
PARIS = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}


def turns(*pairs: tuple[str, str], **keys: Any) -> Any:
    """A trajectory of (role, content) pairs."""
    return {"messages": [{"role": role, "content": content} for role, content in pairs], **keys}


def text(tokenizer: Any, ids: Any) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))


def labelled(tokenizer: Any, feature: Any) -> str:
    """What an assistant writes, by the labels."""
    return text(tokenizer, [label for label in feature["labels"] if label != -100])
