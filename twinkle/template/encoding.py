"""From pieces of text and sampled ids to the token ids of a conversation, with labels."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twinkle.errors import DataError
from twinkle.template.rendering import Messages, Piece, Renderer, Tools

IGNORED_LABEL = -100
# Llama 3 ends a message with the first when a tool is to answer; templates close every turn with the second.
SAME_END = {"<|eom_id|>": "<|eot_id|>"}


@dataclass(slots=True)
class Tokens:
    """Token ids in the making; all lists are equally long. ``logprobs`` has None where a label has none."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)

    def read(self, ids: Sequence[int]) -> None:
        """Ids that the model reads."""
        self.ids += ids
        self.labels += [IGNORED_LABEL] * len(ids)
        self.logprobs += [0.0] * len(ids)

    def write(self, ids: Sequence[int], logprobs: Sequence[float] | None = None) -> None:
        """Ids that an assistant writes."""
        self.ids += ids
        self.labels += ids
        self.logprobs += [None] * len(ids) if logprobs is None else logprobs


class Encoder:
    """The tokens of conversations that a renderer makes text of."""

    def __init__(self, tokenizer: Any, renderer: Renderer) -> None:
        self._tokenizer, self._renderer = tokenizer, renderer
        self._anchor = _anchor_of(tokenizer)
        special = special_tokens(tokenizer)
        self._special, self._special_ids = _pattern_of(special), set(special.values())
        self._same_end = {
            special[one]: special[other] for one, other in SAME_END.items() if {one, other} <= set(special)
        }

    def encode(self, messages: Messages, tools: Tools) -> Tokens:
        """The whole conversation; from the first message with ``token_ids`` on, only what is new is ever tokenized."""
        _refuse_answers_in_a_row(messages)
        tokens = Tokens()
        sampled = next((index for index, message in enumerate(messages) if "token_ids" in message), None)
        self._add(tokens, self._renderer.pieces(messages[:sampled], tools) if sampled != 0 else [])
        if sampled == 0:
            raise DataError(
                "the first message has token_ids, so that no prompt leads to it; keep the prompt's messages"
            )
        rest = [] if sampled is None else messages[sampled:]
        while rest:
            answer, rest = rest[0], rest[1:]
            if "token_ids" in answer:
                tokens.write(answer["token_ids"], answer.get("logprobs"))
            else:
                self._add(tokens, self._renderer.answer(answer))
            size = next((index for index, message in enumerate(rest) if message["role"] == "assistant"), len(rest))
            if size:
                tokens.read(self.next_turn(tokens.ids, rest[:size]))
            rest = rest[size:]
        return tokens

    def next_turn(self, ids: Sequence[int], messages: Messages) -> list[int]:
        """What follows ``ids``, which end with an answer, when these messages come next: what the ids lack of the end
        of the answer's turn, the messages, and what makes the assistant speak."""
        end, rest = self._renderer.after_answer(messages)
        end_ids, all_ids = self._tokenize(end), self._tokenize(end + rest)
        written = self._written(list(ids), end_ids)
        if all_ids[:written] == end_ids[:written]:
            return all_ids[written:]
        return end_ids[written:] + self._tokenize(rest)

    def _written(self, ids: list[int], end_ids: list[int]) -> int:
        """How many of the ids that end a turn are there already: those that ``ids`` end with; and with the special one
        among them all before it, for a model may leave out a blank that its template puts in front of the end."""
        last = self._same_end.get(ids[-1], ids[-1]) if ids else None
        if last in self._special_ids and last in end_ids:
            return end_ids.index(last) + 1
        sizes = range(min(len(end_ids), len(ids)), 0, -1)
        return next((size for size in sizes if ids[-size:] == end_ids[:size]), 0)

    def turn_end_ids(self) -> tuple[int, ...]:
        """The special token with which an answer's turn ends, if it ends with one."""
        try:
            end, _ = self._renderer.after_answer([{"role": "user", "content": "?"}])
        except DataError:
            return ()
        match = self._special.search(end) if self._special else None
        return (special_tokens(self._tokenizer)[match[0]],) if match else ()

    def _add(self, tokens: Tokens, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            if not piece.is_answer:
                tokens.read(self._tokenize(piece.text, first=not tokens.ids))
                continue
            answer, blanks = self._without_blanks_behind_the_end(piece.text)
            tokens.write(self._tokenize(answer, first=not tokens.ids))
            tokens.read(self._tokenize(blanks))

    def _without_blanks_behind_the_end(self, text: str) -> tuple[str, str]:
        """An answer up to the special token that ends it, and blanks behind that: no model samples those."""
        ends = [match.end() for match in self._special.finditer(text)] if self._special else []
        end = ends[-1] if ends and not text[ends[-1] :].strip() else len(text)
        return text[:end], text[end:]

    def _tokenize(self, text: str, *, first: bool = False) -> list[int]:
        if not text:
            return []
        anchor = "" if first else self._anchor
        ids = list(self._tokenizer(anchor + text, add_special_tokens=False)["input_ids"])[1 if anchor else 0 :]
        unknown = self._tokenizer.unk_token_id
        if unknown in ids and unknown not in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id):
            raise DataError(
                f"the tokenizer has no token for {self._unknown_piece(text, unknown)!r} in {text[-80:]!r}: the model "
                "would read an unknown token; add it to model.tiny.alphabet, or choose another model"
            )
        return ids

    def _unknown_piece(self, text: str, unknown: int) -> str:
        """The first part of the text that became the token `unknown`, or all of it where the tokenizer keeps no
        places."""
        if not self._tokenizer.is_fast:
            return text
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if unknown not in encoded["input_ids"]:
            return text
        start, end = encoded["offset_mapping"][encoded["input_ids"].index(unknown)]
        return text[start:end]


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """The special tokens of a tokenizer, those that are added to it as such too."""
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    named = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
    return {**added, **named}


def _pattern_of(words: Mapping[str, int]) -> re.Pattern[str] | None:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if words else None


def _anchor_of(tokenizer: Any) -> str:
    """A token that keeps the tokenizer from putting a blank before a piece that is no beginning, as those that come
    from sentencepiece do; "" where none is needed."""
    alone = tokenizer("a", add_special_tokens=False)["input_ids"]
    for token in (tokenizer.bos_token, tokenizer.eos_token):
        if not token:
            continue
        behind = tokenizer(f"{token}a", add_special_tokens=False)["input_ids"]
        if behind[:1] == [tokenizer.convert_tokens_to_ids(token)] and behind[1:] != alone:
            return str(token)
    return ""


def _refuse_answers_in_a_row(messages: Messages) -> None:
    roles = [message["role"] for message in messages]
    for index in range(1, len(roles)):
        sampled = "token_ids" in messages[index - 1] or "token_ids" in messages[index]
        if sampled and roles[index - 1] == roles[index] == "assistant":
            raise DataError(
                f"messages {index - 1} and {index} are of the assistant; sampled ones take turns with others"
            )
