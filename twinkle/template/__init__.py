"""Conversations to token ids and back."""

from twinkle.template.base import ChatTemplate, PlainTemplate, Template
from twinkle.template.named import ChatMLTemplate, Llama3Template
from twinkle.template.registry import make_template
from twinkle.template.tool_calls import parse_tool_calls

__all__ = [
    "ChatMLTemplate",
    "ChatTemplate",
    "Llama3Template",
    "PlainTemplate",
    "Template",
    "make_template",
    "parse_tool_calls",
]
