"""Templates: how the messages of a trajectory become token ids, and token ids text."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from twinkle.data_format import InputFeature, Message, Trajectory
from twinkle.errors import ConfigError, DataError

IGNORED_LABEL = -100


class Template:
    """Renders with the tokenizer's chat template when it has one, otherwise as the plain contents one after another.

    ``tokenizer`` is one of transformers. ``encode`` never changes its input. The token ids of a conversation begin with
    the token ids of the prompt that leads to each of its assistant messages, so that prompt + sampled response is again
    what the template would give.
    """

    def __init__(self, tokenizer: Any, *, chat_template_kwargs: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self._chat_template_kwargs = dict(chat_template_kwargs or {})
        if self._chat_template_kwargs and not self._uses_chat_template:
            raise ConfigError(
                f"chat_template_kwargs is {self._chat_template_kwargs!r}, but no chat template is used: leave it out"
            )

    @property
    def _uses_chat_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    def encode(self, trajectory: Trajectory) -> InputFeature:
        """Token ids of the conversation; a conversation that does not end with an assistant message gets the prompt
        that makes the assistant speak.

        With assistant messages there are labels: the token id within them, -100 everywhere else. Text that has no token
        of its own is a DataError where the tokenizer would write an unknown token for it (one that is neither BOS nor
        EOS, as it is in GPT-2's).
        """
        messages = _checked_messages(trajectory)
        input_ids: list[int] = []
        labels: list[int] = []
        rendered = ""
        for text, is_answer in self._segments(messages):
            new_ids = self._tokenize(text[len(rendered) :])
            input_ids += new_ids
            labels += new_ids if is_answer else [IGNORED_LABEL] * len(new_ids)
            rendered = text
        feature = InputFeature(input_ids=input_ids, attention_mask=[1] * len(input_ids))
        if any(message["role"] == "assistant" for message in messages):
            feature["labels"] = labels
        return feature

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def decode_batch(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence, as ``decode`` gives it."""
        return [str(text) for text in self.tokenizer.batch_decode(list(map(list, sequences)), skip_special_tokens=True)]

    def _segments(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        """Growing renderings, each a prefix of the next, with whether what it adds is an assistant's answer."""
        segments: list[tuple[str, bool]] = []
        for end, message in enumerate(messages, start=1):
            if message["role"] == "assistant":
                segments.append((self._render(messages[: end - 1], prompt=True), False))
                segments.append((self._render(messages[:end], prompt=False), True))
        if messages[-1]["role"] != "assistant":
            segments.append((self._render(messages, prompt=True), False))
        for (shorter, _), (longer, _) in pairwise(segments):
            if not longer.startswith(shorter):
                raise DataError(
                    "the chat template rewrites earlier messages when a conversation grows, so that it has no labels; "
                    f"it gives {shorter[-80:]!r} first and {longer[-80:]!r} later"
                )
        return segments

    def _render(self, messages: Sequence[Message], *, prompt: bool) -> str:
        if not self._uses_chat_template:
            return self._start() + "".join(message["content"] for message in messages)
        if not messages:
            return ""
        rendered = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=prompt,
            **self._chat_template_kwargs,
        )
        return str(rendered)

    def _start(self) -> str:
        return self.tokenizer.bos_token or ""

    def _tokenize(self, text: str) -> list[int]:
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        unknown = self.tokenizer.unk_token_id
        if unknown in ids and unknown not in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            raise DataError(
                f"the tokenizer has no token for {self._unknown_piece(text, unknown)!r} in {text[-80:]!r}: the model "
                "would read an unknown token; add it to model.tiny.alphabet, or choose another model"
            )
        return ids

    def _unknown_piece(self, text: str, unknown: int) -> str:
        """The first part of the text that became the token `unknown`, or all of it where the tokenizer keeps no
        places."""
        if not self.tokenizer.is_fast:
            return text
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        start, end = encoded["offset_mapping"][encoded["input_ids"].index(unknown)]
        return text[start:end]


class ChatTemplate(Template):
    """Always the tokenizer's chat template; a tokenizer without one is a ConfigError."""

    def __init__(self, tokenizer: Any, *, chat_template_kwargs: Mapping[str, Any] | None = None) -> None:
        if not tokenizer.chat_template:
            raise ConfigError("template 'chat' needs a tokenizer with a chat template; this one has none: use 'plain'")
        super().__init__(tokenizer, chat_template_kwargs=chat_template_kwargs)


class PlainTemplate(Template):
    """Always the contents one after another, after BOS if the tokenizer has one; roles are not seen by the model."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)

    @property
    def _uses_chat_template(self) -> bool:
        return False


def _checked_messages(trajectory: Trajectory) -> Sequence[Message]:
    messages = trajectory.get("messages")
    if not _is_full_list(messages):
        raise DataError(f"a trajectory's 'messages' is {messages!r}; it must be a list of at least one message")
    for index, message in enumerate(messages):
        for key in ("role", "content"):
            if not isinstance(value := _entry(message, key), str):
                raise DataError(
                    f"message {index} has the {key} {value!r}; role and content must be strings: {message!r}"
                )
    return messages


def _is_full_list(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0


def _entry(message: object, key: str) -> object:
    return message.get(key) if isinstance(message, Mapping) else None
