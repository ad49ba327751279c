"""What a response calls, well-formed or not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function and its arguments, as JSON values."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MalformedToolCall:
    """Text that was to be a call and is none; ``reason`` is a sentence, fit to be shown to the model."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """A response taken apart: the text around the calls, and the calls in their order."""

    content: str
    calls: tuple[ToolCall | MalformedToolCall, ...] = ()

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The well-formed calls."""
        return [call for call in self.calls if isinstance(call, ToolCall)]

    @property
    def malformed(self) -> list[MalformedToolCall]:
        """The others."""
        return [call for call in self.calls if isinstance(call, MalformedToolCall)]
