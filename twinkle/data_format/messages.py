"""Inputs of a sampler: a conversation as text, or as token ids."""

from collections.abc import Sequence
from typing import NotRequired, Required, TypedDict


class Message(TypedDict):
    """One turn of a conversation: ``role`` is "system", "user", "assistant" or what the chat template knows."""

    role: str
    content: str


class Trajectory(TypedDict, total=False):
    """A conversation; keys beyond ``messages`` belong to the caller and are never read or changed.

    Ending with anything but an assistant message it is a prompt; ending with an assistant message it is an example.
    """

    messages: Required[Sequence[Message]]


class InputFeature(TypedDict):
    """One unbatched sequence of token ids.

    ``attention_mask`` (same length) is 0 where a token is padding. ``labels`` (same length) is -100 at prompt tokens
    and the token id at tokens of an assistant message; it is present only when there is an assistant message.
    """

    input_ids: Sequence[int]
    attention_mask: NotRequired[Sequence[int]]
    labels: NotRequired[Sequence[int]]
