"""Conversations to token ids and back."""

from twinkle.template.base import ChatTemplate, PlainTemplate, Template
from twinkle.template.registry import make_template

__all__ = ["ChatTemplate", "PlainTemplate", "Template", "make_template"]
