"""The data planes as a client sees them: how values leave a producer, and how they reach a consumer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from transfer_queue import wire
from transfer_queue.exchange import Steps

INLINE_BYTES = 32 << 10
"""The values of a put up to this size travel inside the message and lie in the controller: one round trip."""
INLINE_COLUMN = 8 << 10
"""In larger puts, columns up to this size still do: samplers read them, and they are not worth a place of their own."""

ROOT_ROW_BYTES, ROOT_BYTES = 16 << 10, 16 << 20
"""Where there is a journal, new rows of up to so many bytes each, and so many together, travel inside the message too:
the journal then holds the prompts, and what was made of them can be made again if its storage dies."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How the values of a put go on: an extent per column (none: all inline), and the frames inside the message.

    `discard` takes back what was put away; to be called where the put was refused.
    """

    extents: list[wire.Extent]
    frames: Sequence[Any]
    discard: Callable[[], None] = lambda: None


class Plane(Protocol):
    """Where large values lie. `far`: this client reaches the controller only, which reads segments for it."""

    far: bool

    def store(self, frames: Sequence[Any], timeout_s: float) -> Steps[Stored]:
        """Put away the values of each column; waits for room at most `timeout_s`."""

    def load(self, values: wire.Values, rows: int, frames: Sequence[Any], zero_copy: bool) -> Steps[list[Any]]:
        """The values of each column as one buffer, rows one after the other."""

    def close(self) -> None:
        """Write no more; what was put stays until its rows are gone."""


class MemoryPlane:
    """All values travel inside the messages; what is put lies in the controller."""

    def __init__(self, *, far: bool = False) -> None:
        self.far = far

    def store(self, frames: Sequence[Any], timeout_s: float) -> Steps[Stored]:
        """The frames as they are."""
        yield from ()
        return Stored([], wire.joined(frames))

    def load(self, values: wire.Values, rows: int, frames: Sequence[Any], zero_copy: bool) -> Steps[list[Any]]:
        """The frames as they came."""
        yield from ()
        return list(wire.separate(rows, values.columns, frames))

    def close(self) -> None:
        """Nothing to do."""


def are_roots_inside(rows: int, frames: Sequence[Any]) -> bool:
    """Whether the values of these new rows are small enough for the journal."""
    return sum(map(len, frames)) <= min(rows * ROOT_ROW_BYTES, ROOT_BYTES)


def inline(sizes: Sequence[int]) -> list[bool]:
    """Which columns of a put travel inside the message."""
    if sum(sizes) <= INLINE_BYTES:
        return [True] * len(sizes)
    return [size <= INLINE_COLUMN for size in sizes]
