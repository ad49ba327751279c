"""Templates: how the messages of a trajectory become token ids, and token ids text and tool calls."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, cast

from twinkle.choices import one_of
from twinkle.data_format import InputFeature, Message, ParsedResponse, SampledSequence, Trajectory
from twinkle.errors import ConfigError, DataError
from twinkle.template.encoding import IGNORED_LABEL, Encoder, Tokens, special_tokens
from twinkle.template.messages import checked_messages, checked_tools, tool_names
from twinkle.template.rendering import Messages, Renderer, Tools
from twinkle.template.response import assistant_message, parse_response
from twinkle.template.tool_calls import STYLES, style_of
from twinkle.template.truncation import CUTS, TRUNCATIONS, shorter_conversations

__all__ = ["IGNORED_LABEL", "ChatTemplate", "PlainTemplate", "Template"]


class Template:
    """Renders with the tokenizer's chat template when it has one, otherwise as the plain contents one after another.

    ``tokenizer`` is one of transformers. ``encode`` never changes its input, and may be called by several threads. The
    token ids of a conversation begin with the token ids of the prompt that leads to each of its assistant messages, so
    that prompt + sampled response is again what the template would give.

    Args:
        chat_template_kwargs: further variables of the chat template, such as enable_thinking.
        system_prompt: goes in front of conversations that have no system message.
        max_length: most token ids that ``encode`` gives; None = no bound.
        truncation: what happens to a conversation above it. "raise": a DataError; "left", "right", "middle": tokens are
            left out there; "turns": the oldest turns are, each from a user's message on, while the system message and
            the last turn stay.
        tool_style: how the model writes tool calls: "hermes" (Qwen too), "llama", "none", or "auto": as the chat
            template teaches it.
    """

    chat_template: ClassVar[str | None] = None
    is_plain: ClassVar[bool] = False

    def __init__(
        self,
        tokenizer: Any,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        system_prompt: str | None = None,
        max_length: int | None = None,
        truncation: str = "raise",
        tool_style: str = "auto",
    ) -> None:
        self.tokenizer = tokenizer
        self._renderer = Renderer(tokenizer, self.chat_template, chat_template_kwargs or {}, plain=self.is_plain)
        if chat_template_kwargs and self._renderer.plain:
            raise ConfigError(
                f"chat_template_kwargs is {dict(chat_template_kwargs)!r}, but no chat template is used: leave it out"
            )
        _check_length(max_length, one_of("truncation", truncation, TRUNCATIONS))
        self._system_prompt, self._max_length, self._truncation = system_prompt, max_length, truncation
        one_of("tool_style", tool_style, ("auto", *STYLES))
        self.tool_style = style_of(self._renderer.source()) if tool_style == "auto" else tool_style
        self._encoder = Encoder(tokenizer, self._renderer)

    def encode(self, trajectory: Trajectory) -> InputFeature:
        """Token ids of the conversation; a conversation that does not end with an assistant message gets the prompt
        that makes the assistant speak.

        One that does is an example and has labels: the token id where an assistant writes, up to the token that ends
        its turn, and -100 everywhere else. An assistant message with ``token_ids`` is taken as those ids and nothing
        else: neither they nor what stood before them is tokenized in another way than when they were sampled.

        Raises DataError for messages or tools that are none or that the template cannot show, for a conversation that
        is too long, and for text that the tokenizer would write as an unknown token (one that is neither BOS nor EOS).
        """
        tools = checked_tools(trajectory)
        if tools is not None and "tools" not in self._renderer.source(tools):
            raise DataError(
                f"the trajectory has the tools {tool_names(tools)}, but this template shows none; use one that does, "
                "such as chatml or llama3"
            )
        messages = checked_messages(trajectory.get("messages"), self._system_prompt)
        tokens = self._shortened(self._encoder.encode(messages, tools), messages, tools)
        feature = InputFeature(input_ids=tokens.ids, attention_mask=[1] * len(tokens.ids))
        if messages[-1]["role"] == "assistant":
            feature["labels"] = tokens.labels
            if None not in tokens.logprobs:
                feature["logprobs"] = cast("list[float]", tokens.logprobs)
        return feature

    def extend(self, trajectory: Trajectory, sequence: SampledSequence, messages: Sequence[Message] = ()) -> Trajectory:
        """A new trajectory: the old one, the response that was sampled for it, and the messages that answer that.

        The response carries its ids and log-probs, so that ``encode`` of the new trajectory begins with exactly the ids
        that the model read and sampled.
        """
        answer = assistant_message(sequence, self.parse_response(sequence))
        return cast(Trajectory, {**trajectory, "messages": [*trajectory["messages"], answer, *messages]})

    def extend_ids(self, input_ids: Sequence[int], messages: Sequence[Message]) -> list[int]:
        """``input_ids``, which end with what an assistant wrote, and behind them the ids of the messages that come
        next, up to where the assistant speaks again.

        The end of the assistant's turn is added where it was not written: a response of max_tokens, or one that a stop
        string ended.
        """
        return [*input_ids, *self._encoder.next_turn(input_ids, checked_messages(messages))]

    def parse_response(
        self, response: SampledSequence | Sequence[int], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> ParsedResponse:
        """Text and tool calls of a response, in this template's ``tool_style``; never raises for what a model wrote.

        With ``tools``, a call of any other name is malformed. Give the sequence or its tokens: its text lacks the
        special tokens with which some models call tools.
        """
        names = None if tools is None else tool_names(tools)
        return parse_response(response, self.tokenizer, self.tool_style, names)

    @cached_property
    def turn_end_ids(self) -> tuple[int, ...]:
        """The special token with which this template ends an assistant's turn: where a sampler stops, though the
        model's EOS be another. Empty where turns end with text, or with nothing."""
        return self._encoder.turn_end_ids()

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def decode_batch(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence, as ``decode`` gives it."""
        return [str(text) for text in self.tokenizer.batch_decode(list(map(list, sequences)), skip_special_tokens=True)]

    def _shortened(self, tokens: Tokens, messages: Messages, tools: Tools) -> Tokens:
        limit, asked = self._max_length, len(tokens.ids)
        if limit is None or asked <= limit:
            return tokens
        if (cut := CUTS.get(self._truncation)) is not None:
            return Tokens(cut(tokens.ids, limit), cut(tokens.labels, limit), cut(tokens.logprobs, limit))
        if self._truncation == "turns":
            for fewer in shorter_conversations(messages):
                tokens = self._encoder.encode(fewer, tools)
                if len(tokens.ids) <= limit:
                    return tokens
            raise DataError(
                f"the conversation has {asked} tokens, more than max_length={limit}, and its last turn alone has "
                f"{len(tokens.ids)}; raise max_length, or choose another truncation"
            )
        raise DataError(
            f"the conversation has {asked} tokens, more than max_length={limit}; shorten it, raise max_length, or "
            f"choose a truncation: {', '.join(TRUNCATIONS[1:])}"
        )


class ChatTemplate(Template):
    """Always the tokenizer's chat template; a tokenizer without one is a ConfigError."""

    def __init__(self, tokenizer: Any, **settings: Any) -> None:
        if not tokenizer.chat_template:
            raise ConfigError("template 'chat' needs a tokenizer with a chat template; this one has none: use 'plain'")
        super().__init__(tokenizer, **settings)


class PlainTemplate(Template):
    """Always the contents one after another, after BOS if the tokenizer has one; roles are not seen by the model."""

    is_plain = True


def require_tokens(tokenizer: Any, name: str, tokens: Sequence[str]) -> None:
    """ConfigError unless each is one special token of the tokenizer."""
    missing = [token for token in tokens if token not in special_tokens(tokenizer)]
    if missing:
        raise ConfigError(
            f"template {name!r} needs the special tokens {', '.join(missing)}, which this tokenizer has not: choose "
            "the template that the model was trained with"
        )


def _check_length(max_length: object, truncation: str) -> None:
    if max_length is None:
        if truncation != "raise":
            raise ConfigError(f"truncation={truncation!r} needs max_length, the most tokens of a conversation")
    elif not isinstance(max_length, int) or isinstance(max_length, bool) or max_length < 1:
        raise ConfigError(f"max_length is {max_length!r}; it must be an integer >= 1, or None for no bound")
