"""From a record of a file to a prompt and its answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twinkle.data.base import Prompt, PromptRow, trajectory_of
from twinkle.data_format import Trajectory
from twinkle.errors import DataError
from twinkle.template.messages import checked_messages, checked_tools


@dataclass(frozen=True)
class Columns:
    """Where prompt, answer and tools stand; the settings ``data.prompt_column`` and so on."""

    prompt: str = "prompt"
    answer: str = "answer"
    tools: str | None = None


def prompt_row(record: Mapping[str, Any], columns: Columns, place: str) -> PromptRow:
    """The prompt and answer of a record. Messages keep what they say, tool calls too, less keys without a value, which
    table formats fill in; a number as answer becomes text.

    Raises:
        DataError: a column is missing (the columns that are there are named) or holds something else; `place` says
            where.
    """
    needed = {"prompt_column": columns.prompt, "answer_column": columns.answer, "tools_column": columns.tools}
    for setting, column in needed.items():
        if column is not None and column not in record:
            there = ", ".join(map(repr, record)) or "none"
            raise DataError(f"{place}: there is no column {column!r} (columns: {there}); set data.{setting}.")
    prompt = _prompt(record[columns.prompt], f"{place}: column {columns.prompt!r}")
    tools = None if columns.tools is None else _tools(record[columns.tools], f"{place}: column {columns.tools!r}")
    if tools:
        prompt = {**trajectory_of(prompt), "tools": tools}
    return PromptRow(prompt, _answer(record[columns.answer], place, columns.answer), place)


def _prompt(value: Any, where: str) -> Prompt:
    if isinstance(value, str):
        return value
    if not value or not isinstance(value, Sequence) or not all(isinstance(message, Mapping) for message in value):
        raise DataError(
            f"{where} holds {_short(value)}; a prompt is text, or a list of messages, each with the texts role and "
            "content."
        )
    try:
        messages = checked_messages([_without_nulls(message) for message in value])
    except DataError as error:
        raise DataError(f"{where}: {error}.") from error
    if messages[-1]["role"] == "assistant":
        raise DataError(
            f"{where} ends with what an assistant said, so that nothing is left to sample: leave that message out, and "
            "give it as the answer if it is one."
        )
    return messages


def _tools(value: Any, where: str) -> list[dict[str, Any]] | None:
    try:
        value = json.loads(value) if isinstance(value, str) and value else value
        return checked_tools(Trajectory(messages=[], tools=_without_nulls(value or [])))
    except (DataError, ValueError) as error:
        raise DataError(f"{where}: {error}.") from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list | tuple) else value


def _answer(value: Any, place: str, column: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{place}: column {column!r} holds {_short(value)}; an answer is text or a number.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
