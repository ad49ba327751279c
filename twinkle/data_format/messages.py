"""Inputs of a sampler: a conversation as text, or as token ids."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, Required, TypedDict


class Message(TypedDict):
    """One turn of a conversation: ``role`` is "system", "user", "assistant", "tool" or what the chat template knows.

    ``tool_calls`` of an assistant: what it calls, each {"function": {"name": ..., "arguments": {...}}} as in OpenAI's
    API. ``token_ids`` of an assistant: the ids that were sampled for this turn, its end included; a template then takes
    them as they are and never tokenizes ``content``. ``logprobs``: one for each of them, of the distribution that they
    were sampled from. Further keys go to the chat template.
    """

    role: str
    content: str
    tool_calls: NotRequired[Sequence[Mapping[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    token_ids: NotRequired[Sequence[int]]
    logprobs: NotRequired[Sequence[float]]


class Trajectory(TypedDict, total=False):
    """A conversation; keys beyond these belong to the caller and are never read or changed.

    Ending with anything but an assistant message it is a prompt; ending with an assistant message it is an example.
    ``tools`` are the functions that the assistant may call, each a JSON schema {"type": "function", "function":
    {"name": ..., "description": ..., "parameters": {...}}}; the inner object alone will do.
    """

    messages: Required[Sequence[Message]]
    tools: Sequence[Mapping[str, Any]]


class InputFeature(TypedDict):
    """One unbatched sequence of token ids.

    ``attention_mask`` (same length) is 0 where a token is padding. ``labels`` (same length) is -100 at tokens that the
    model reads and the token id at those that an assistant writes; only an example has labels. ``logprobs`` (same
    length) is there when every label has one: the sampler's at labels, 0.0 elsewhere.
    """

    input_ids: Sequence[int]
    attention_mask: NotRequired[Sequence[int]]
    labels: NotRequired[Sequence[int]]
    logprobs: NotRequired[Sequence[float]]
