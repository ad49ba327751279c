"""A prompt on its way through the loop: text, or the messages of a chat."""

from typing import cast

from twinkle.data_format import Message, Trajectory

Prompt = str | list[dict[str, str]]


def trajectory_of(prompt: Prompt) -> Trajectory:
    """A prompt as the messages that a template renders: text is one message of the user."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return {"messages": cast(list[Message], messages)}


def prompt_text(prompt: Prompt) -> str:
    """A prompt as a person reads it."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
