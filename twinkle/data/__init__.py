"""Prompts with answers: toy tasks, JSON lines, and anything that `datasets` reads."""

from twinkle.data.base import PromptRow, PromptSource
from twinkle.data.build import make_source
from twinkle.data.config import DataConfig

__all__ = ["DataConfig", "PromptRow", "PromptSource", "make_source"]
