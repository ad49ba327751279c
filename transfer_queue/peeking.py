"""What `client.peek` shows: rows with their states, and short previews of their values.

The controller sends the first bytes of a value and never looks into them; the client puts them into words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from transfer_queue import wire
from transfer_queue.errors import ConfigurationError
from transfer_queue.ledger import Ledger
from transfer_queue.ledger.peek import RowState, peek

MOST_ROWS = 1000
HEAD_BYTES = 512
"""Of one value: enough for 80 characters of any script."""
MESSAGE_BYTES = 1 << 20
"""Of all values of one answer; those beyond show their type and size only."""
TEXT = 80
"""Characters of a preview."""
NUMBERS = 8
"""Numbers of a preview."""

Glimpses = Callable[[str, Sequence[int], int], Sequence[wire.Glimpse | None]]
"""Of a field and rows: what each value begins with, at most so many bytes of it; None where there is none."""


class Row(msgspec.Struct, frozen=True):
    """One row as `client.peek` gives it: `values` holds a preview for each field that was asked for and is there."""

    index: int
    step: int
    group: str | int
    fields: tuple[str, ...]
    tasks: dict[str, str]
    values: dict[str, str]


class Peeked(msgspec.Struct, frozen=True):
    """The first rows, of `total` that there are."""

    rows: list[Row]
    total: int


def look(ledger: Ledger, glimpses: Glimpses, asked: wire.Peek) -> wire.Peeked:
    """The answer to a request; it costs the rows that it shows, and changes nothing."""
    if not 1 <= asked.limit <= MOST_ROWS:
        raise ConfigurationError(f"limit={asked.limit} is out of range: 1 to {MOST_ROWS} rows")
    rows = peek(ledger, asked.step, asked.limit)
    values: dict[int, dict[str, wire.Glimpse]] = {row.index: {} for row in rows}
    left = MESSAGE_BYTES
    for field in dict.fromkeys(name for row in rows for name in row.fields):
        if asked.fields is None or field in asked.fields:
            there = [row.index for row in rows if field in row.fields]
            for index, glimpse in zip(there, glimpses(field, there, HEAD_BYTES), strict=True):
                if glimpse is not None:
                    shown = glimpse if left > 0 else msgspec.structs.replace(glimpse, head=b"")
                    values[index][field] = shown
                    left -= len(shown.head)
    total = sum(partition.produced for partition in ledger.steps.in_order(asked.step))
    return wire.Peeked([wire.PeekedRow(row, values[row.index]) for row in rows], total)


def readable(peeked: wire.Peeked) -> Peeked:
    """The answer with its values in words."""
    return Peeked([_row(row.state, row.values) for row in peeked.rows], peeked.total)


def _row(state: RowState, values: dict[str, wire.Glimpse]) -> Row:
    words = {field: preview(value) for field, value in values.items()}
    return Row(state.index, state.step, state.group, state.fields, state.tasks, words)


def preview(value: wire.Glimpse) -> str:
    """A value in at most 80 characters, none of which moves a cursor or colours a terminal."""
    if value.dtype != wire.OBJECT:
        return _cut(_numbers(value))
    try:
        if len(value.head) == value.size:
            found = msgspec.msgpack.decode(value.head)
            return _cut(found if isinstance(found, str) else repr(found))
        text = _beginning_of_text(value.head)
        return _cut(text) if text is not None else f"{value.size:,} bytes"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return f"{value.size:,} bytes that cannot be read"


def _numbers(value: wire.Glimpse) -> str:
    kind = f"{value.dtype}[{','.join(map(str, value.shape))}]"
    item = wire.ITEM_SIZES[value.dtype]
    count = min(NUMBERS, value.size // item, len(value.head) // item)
    try:
        numbers = np.frombuffer(value.head[: count * item], dtype=np.dtype(value.dtype)).tolist()
    except TypeError:
        return kind  # a type that NumPy lacks, such as bfloat16
    shown = [f"{number:.6g}" if isinstance(number, float) else str(number) for number in numbers]
    if not shown or not value.shape:
        return shown[0] if shown else kind
    return f"{kind} {' '.join(shown)}{' …' if value.size > count * item else ''}"


def _beginning_of_text(head: bytes) -> str | None:
    """The text that these first bytes of a msgpack string begin; None for another kind of value."""
    prefix = {0xD9: 2, 0xDA: 3, 0xDB: 5}.get(head[0] if head else 0)
    return head[prefix:].decode(errors="ignore") if prefix is not None else None


def escaped(text: str) -> str:
    """The text without a character that moves a cursor, colours a terminal or turns a line round."""
    return "".join(map(_shown, text))


def _cut(text: str) -> str:
    shown = escaped(text[: TEXT + 1])
    return shown if len(shown) <= TEXT else shown[: TEXT - 1] + "…"


def _shown(character: str) -> str:
    if character in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[character]
    if (
        unicodedata.category(character)[0] == "C"
    ):  # control, format (which can turn a line round), surrogate, unassigned
        return character.encode("unicode_escape", "surrogatepass").decode()
    return character
