"""What every source of prompts offers."""

from dataclasses import dataclass
from typing import Any, Protocol, cast

from twinkle.data_format import Message, Trajectory

Prompt = str | list[dict[str, Any]] | dict[str, Any]
"""Text, chat messages, or a trajectory of messages and tools: plain data, as it travels through the queue."""


@dataclass(frozen=True)
class PromptRow:
    """One prompt and its answer.

    Attributes:
        prompt: text; chat messages; or {"messages": [...], "tools": [...]} where the assistant may call tools.
        answer: what the reward compares with.
        expected: what a person is shown as its answer, where that is one of many; empty: the answer itself.
        place: where it comes from, for errors: "<file>:<line>", or nothing for a prompt that was made up.
    """

    prompt: Prompt
    answer: str
    place: str = ""
    expected: str = ""


class PromptSource(Protocol):
    """An endless row of prompts whose only state is a cursor, and a fixed set that is never in it."""

    def draw(self, cursor: int, count: int) -> list[PromptRow]:
        """Prompts number cursor, cursor + 1, ..., `count` of them: a pure function of the source's seed and the
        cursor."""
        ...

    def held_out(self) -> list[PromptRow]:
        """The `data.held_out_prompts` different prompts that are never drawn, the same at every call."""
        ...

    def known_prompts(self) -> list[PromptRow]:
        """What can be looked at before a run: every different prompt of a table, the held-out ones of an endless
        source."""
        ...


def trajectory_of(prompt: Prompt) -> Trajectory:
    """A prompt as the messages that a template renders: text is one message of the user."""
    if isinstance(prompt, dict):
        return cast(Trajectory, prompt)
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return {"messages": cast(list[Message], messages)}


def prompt_text(prompt: Prompt) -> str:
    """A prompt as a person reads it."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in trajectory_of(prompt)["messages"])
