"""From the ids of a response back to what it says and calls."""

import re
from collections.abc import Sequence
from typing import Any, cast

from twinkle.data_format import Message, ParsedResponse, SampledSequence
from twinkle.template.encoding import special_tokens
from twinkle.template.tool_calls import PYTHON_TAG, parse_tool_calls


def parse_response(
    response: SampledSequence | Sequence[int], tokenizer: Any, style: str, tools: Sequence[str] | None
) -> ParsedResponse:
    """Text and tool calls; special tokens are no part of the text, nor is a stop string that ended the response."""
    special = special_tokens(tokenizer)
    sampled = response if isinstance(response, SampledSequence) else None
    tokens = list(sampled.tokens if sampled is not None else cast("Sequence[int]", response))
    ends = set(special.values()) - {special.get(PYTHON_TAG)}
    while tokens and tokens[-1] in ends:
        tokens.pop()
    text = str(tokenizer.decode(tokens, skip_special_tokens=False))
    if sampled is not None and isinstance(sampled.stopped_by, str) and sampled.stopped_by in text:
        text = text.rpartition(sampled.stopped_by)[0]
    parsed = parse_tool_calls(text, style, tools=tools)
    content = re.sub("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)", "", parsed.content)
    return ParsedResponse(content, parsed.calls)


def assistant_message(sequence: SampledSequence, parsed: ParsedResponse) -> Message:
    """The message of a sampled response, with the ids and log-probs that were sampled. Where a call is malformed, the
    content is all of the text and there are no calls."""
    message: dict[str, Any] = {"role": "assistant", "content": sequence.text if parsed.malformed else parsed.content}
    if parsed.calls and not parsed.malformed:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in parsed.tool_calls
        ]
    message |= {"token_ids": list(sequence.tokens), "logprobs": list(sequence.sampler_logprobs)}
    return cast(Message, message)
