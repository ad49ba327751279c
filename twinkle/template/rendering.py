"""From messages to text, in pieces that are what the model reads or what an assistant writes."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from twinkle.errors import DataError

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None
# Characters for private use that mark what a template calls generated: FILL stands between two ends, in a mark of the
# beginning once more than in all the text, in one of the end a second time more.
EDGE, FILL = "\ue0b0", "\ue0b1"
_TAG = re.compile(r"\{%([-+]?)\s*(generation|endgeneration)\s*([-+]?)%\}")
ANSWER = "ANSWER-OF-THE-ASSISTANT"
NEVER_RENDERED = ("token_ids", "logprobs")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a conversation's text, and whether an assistant writes it."""

    text: str
    is_answer: bool


class Renderer:
    """A chat template over messages; without a template, BOS and the contents one after another.

    ``chat_template`` is its Jinja source, None for the tokenizer's own.
    """

    def __init__(
        self, tokenizer: Any, chat_template: str | None, arguments: Mapping[str, Any], *, plain: bool = False
    ) -> None:
        self._tokenizer, self._own, self._arguments = tokenizer, chat_template, dict(arguments)
        self.plain = plain or not (chat_template or tokenizer.chat_template)

    def source(self, tools: Tools = None) -> str:
        """The Jinja source that renders a conversation with these tools; "" for plain text."""
        return "" if self.plain else str(self._tokenizer.get_chat_template(self._own, tools))

    def pieces(self, messages: Messages, tools: Tools = None) -> list[Piece]:
        """The text of a conversation from its beginning on; one that does not end with an assistant message ends with
        what makes the assistant speak.

        Pieces end where a prompt of the same conversation ends, so that a prompt's tokens are the first of an
        example's. Where the template says what is generated, that is what counts; otherwise a piece is what an
        assistant message adds. A template that changes earlier messages when a conversation grows leaves a prompt in
        one piece, and is a DataError for an example, whose labels nobody can tell.
        """
        is_example = messages[-1]["role"] == "assistant"
        if self._says_what_is_generated(tools):
            return self._marked(messages, tools, prompt=not is_example)
        steps = self._steps(messages, tools)
        for (shorter, _), (longer, _) in pairwise(steps):
            if longer.startswith(shorter):
                continue
            if is_example:
                raise DataError(
                    "the chat template rewrites earlier messages when a conversation grows, so that it has no labels "
                    f"(it gives {shorter[-80:]!r} first and {longer[-80:]!r} later); keep the sampled token_ids in the "
                    "messages, or use a template with {% generation %}, such as chatml"
                )
            return [Piece(steps[-1][0], is_answer=False)]
        texts = ["", *(text for text, _ in steps)]
        return [
            Piece(longer[len(shorter) :], is_answer)
            for (shorter, longer), (_, is_answer) in zip(pairwise(texts), steps, strict=True)
        ]

    def after_answer(self, messages: Messages) -> tuple[str, str]:
        """What follows the content of an assistant message when these messages come next: the end of its turn, and the
        rest up to where the assistant speaks again. What was said before does not matter."""
        before: Messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": ANSWER}]
        alone = self._behind_answer(self._render(before, None, prompt=False))
        followed = self._behind_answer(self._render([*before, *messages], None, prompt=True))
        end = _common_beginning(alone, followed)
        return end, followed[len(end) :]

    def answer(self, message: Mapping[str, Any]) -> list[Piece]:
        """What an assistant message adds behind the words that make the assistant speak."""
        asked: Messages = [{"role": "user", "content": "?"}]
        return self.pieces([*asked, message])[1:]

    def _steps(self, messages: Messages, tools: Tools) -> list[tuple[str, bool]]:
        """Growing renderings, with whether what each adds is an assistant's answer."""
        steps: list[tuple[str, bool]] = []
        for end, message in enumerate(messages, start=1):
            if message["role"] == "assistant":
                steps.append((self._render(messages[: end - 1], tools, prompt=True), False))
                steps.append((self._render(messages[:end], tools, prompt=False), True))
        if messages[-1]["role"] != "assistant":
            steps.append((self._render(messages, tools, prompt=True), False))
        return steps

    def _says_what_is_generated(self, tools: Tools) -> bool:
        return _TAG.search(self.source(tools)) is not None

    def _marked(self, messages: Messages, tools: Tools, *, prompt: bool) -> list[Piece]:
        """By the template's own ``{% generation %}``; marks in the text keep threads out of each other's way, which
        the tracker of transformers does not."""
        source = self.source(tools)
        said = json.dumps([messages, tools, self._arguments, source], ensure_ascii=False, default=str)
        begin, end = (EDGE + FILL * (said.count(FILL) + more) + EDGE for more in (1, 2))
        marked = _TAG.sub(lambda tag: _printed(begin if tag[2] == "generation" else end, tag), source)
        text = self._render(messages, tools, prompt=prompt, source=marked)
        pieces: list[Piece] = []
        for part in text.split(begin):
            answer, found, rest = part.partition(end)
            pieces += [Piece(answer, True), Piece(rest, False)] if found else [Piece(part, False)]
        return [piece for piece in pieces if piece.text]

    def _render(self, messages: Messages, tools: Tools, *, prompt: bool, source: str | None = None) -> str:
        if self.plain:
            return (self._tokenizer.bos_token or "") + "".join(message["content"] for message in messages)
        if not messages:
            return ""
        from jinja2 import TemplateError

        shown = [{key: value for key, value in message.items() if key not in NEVER_RENDERED} for message in messages]
        try:
            rendered = self._tokenizer.apply_chat_template(
                shown,
                tools=tools,
                chat_template=source or self._own,
                tokenize=False,
                add_generation_prompt=prompt,
                **self._arguments,
            )
        except (TemplateError, TypeError, ValueError) as error:
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(f"the chat template refuses a conversation of the roles {roles}: {error}") from error
        return str(rendered)

    def _behind_answer(self, text: str) -> str:
        _, found, behind = text.rpartition(ANSWER)
        if not found:
            raise DataError(
                "the chat template does not show the content of an assistant message, so none can follow it"
            )
        return behind


def _common_beginning(one: str, other: str) -> str:
    size = next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return min(one, other, key=len) if size is None else one[:size]


def _printed(mark: str, tag: re.Match[str]) -> str:
    """A block that prints the mark and treats the blanks around it as the tag did."""
    return f"{{%{tag[1]} if true %}}{mark}{{% endif {tag[3]}%}}"
