"""A prompt on its way through the loop: text, or the messages of a chat."""

from collections.abc import Sequence

from twinkle.data_format import Message, Trajectory

Prompt = str | Sequence[Message]


def trajectory_of(prompt: Prompt) -> Trajectory:
    """A prompt as the messages that a template renders: text is one message of the user."""
    return {"messages": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)}


def prompt_text(prompt: Prompt) -> str:
    """A prompt as a person reads it."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
