"""Prompts out of a finite table of rows: shuffled anew in every epoch, some prompts held out."""

from collections.abc import Mapping, Sequence
from typing import Any

from twinkle.data.base import Prompt, PromptRow, trajectory_of
from twinkle.data.choice import keyed_order
from twinkle.errors import DataError


class TablePrompts:
    """`rows` split by `seed` into those held out and those drawn, the latter epoch after epoch, each epoch in its own
    order.

    Different prompts are split: rows with the same prompt are on one side. Of a prompt that is held out only the first
    row is kept; one that is drawn comes in every epoch as often as it has rows.

    Args:
        origin: the file, for errors.

    Raises:
        DataError: fewer different prompts than `held_out_prompts` + 1.
    """

    def __init__(self, rows: Sequence[PromptRow], *, seed: int, held_out_prompts: int, origin: str):
        first: dict[tuple[tuple[str, str], ...], PromptRow] = {}
        for row in rows:
            first.setdefault(_key(row.prompt), row)
        if len(first) <= held_out_prompts:
            raise DataError(
                f"{origin} has {len(first)} different prompts, and data.held_out_prompts={held_out_prompts} leaves "
                "none to train on: set it lower or give a larger file."
            )
        keys = list(first)
        held_out = [keys[index] for index in keyed_order(len(keys), seed, "split")[:held_out_prompts]]
        set_aside = set(held_out)
        self.seed = seed
        self._held_out = [first[key] for key in held_out]
        self._drawn = [row for row in rows if _key(row.prompt) not in set_aside]
        self._known = list(first.values())
        self._epoch, self._order = -1, list[int]()

    def draw(self, cursor: int, count: int) -> list[PromptRow]:
        """See `PromptSource.draw`."""
        return [self._at(index) for index in range(cursor, cursor + count)]

    def held_out(self) -> list[PromptRow]:
        """See `PromptSource.held_out`."""
        return list(self._held_out)

    def known_prompts(self) -> list[PromptRow]:
        """Every different prompt, held out or not, at its first place."""
        return list(self._known)

    def _at(self, index: int) -> PromptRow:
        epoch, place = divmod(index, len(self._drawn))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, keyed_order(len(self._drawn), self.seed, "epoch", epoch)
        return self._drawn[self._order[place]]


def prompt_row(record: Mapping[str, Any], *, prompt_column: str, answer_column: str, place: str) -> PromptRow:
    """The prompt and answer of a record; a prompt of messages keeps their roles and contents, a number as answer
    becomes text.

    Raises:
        DataError: a column is missing (the columns that are there are named) or holds something else; `place` says
            where.
    """
    for setting, column in (("prompt_column", prompt_column), ("answer_column", answer_column)):
        if column not in record:
            there = ", ".join(map(repr, record)) or "none"
            raise DataError(f"{place}: there is no column {column!r} (columns: {there}); set data.{setting}.")
    return PromptRow(
        _prompt(record[prompt_column], place, prompt_column),
        _answer(record[answer_column], place, answer_column),
        place,
    )


def _key(prompt: Prompt) -> tuple[tuple[str, str], ...]:
    """What makes prompts the same: text is the message of a user."""
    return tuple((message["role"], message["content"]) for message in trajectory_of(prompt)["messages"])


def _prompt(value: Any, place: str, column: str) -> Prompt:
    if isinstance(value, str):
        return value
    messages = list(value) if isinstance(value, Sequence) else []
    if not messages or not all(_is_message(message) for message in messages):
        raise DataError(
            f"{place}: column {column!r} holds {_short(value)}; a prompt is text, or a list of "
            "messages, each with the texts role and content."
        )
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(key), str) for key in ("role", "content"))


def _answer(value: Any, place: str, column: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{place}: column {column!r} holds {_short(value)}; an answer is text or a number.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
