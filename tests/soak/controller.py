"""A controller that ends itself at points between and within its steps: `python -m tests.soak.controller`.

It is the controller's own program; only functions that it calls are wrapped, from outside.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tests.soak.points import Point
from transfer_queue import process, segment_files
from transfer_queue.journal import compactor
from transfer_queue.journal import segment as segments
from transfer_queue.journal.journal import Journal
from transfer_queue.recorder import Recorder
from transfer_queue.room import Room
from transfer_queue.service import Service
from transfer_queue.state import QueueState
from transfer_queue.storage.segments import Segments
from transfer_queue.transport.unix import UnixLink
from transfer_queue.waiting import Line

POINTS = (
    "before_write", "in_write", "behind_write", "before_reply", "behind_reply", "at_seal", "put_waits", "meta_waits",
    "in_compaction", "in_replay", "before_answer", "at_recycling", "before_unlink", "behind_unlink", "at_undo",
)  # fmt: skip
"""What `at` wraps, by name."""


def before(owner: Any, name: str, point: str) -> None:
    """End before the call is made."""
    _wrap(owner, name, Point(point), first=True)


def behind(owner: Any, name: str, point: str) -> None:
    """End when the call is done."""
    _wrap(owner, name, Point(point), first=False)


def _wrap(owner: Any, name: str, point: Point, *, first: bool) -> None:
    call: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(call)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if first:
            point.passed()
        result = call(*args, **kwargs)
        if not first:
            point.passed()
        return result

    setattr(owner, name, wrapped)


def _wrap_commit(call: Callable[[Journal], None]) -> Callable[[Journal], None]:
    ahead, done = Point("before_write"), Point("behind_write")

    def commit(journal: Journal) -> None:
        something = bool(journal._burst.frames())
        if something:
            ahead.passed()
        call(journal)
        if something:
            done.passed()

    return commit


def _wrap_write(call: Callable[[int, list[Any]], None]) -> Callable[[int, list[Any]], None]:
    torn = Point("in_write")

    def write_all(file: int, frames: list[Any]) -> None:
        if torn.armed():
            whole = b"".join(bytes(frame) for frame in frames)
            os.write(file, whole[: len(whole) // 2])
            torn.end()
        call(file, frames)

    return write_all


def _wrap_compaction(call: Callable[[Service], None]) -> Callable[[Service], None]:
    """While a compaction runs beside it."""
    point = Point("in_compaction")

    def settle(service: Service) -> None:
        if service._compactor is not None and service._compactor.pid is not None:
            point.passed()
        call(service)

    return settle


class _OtherCompaction:
    """`subprocess`, but for the compaction's program: the one with points of its own."""

    PIPE = subprocess.PIPE

    @staticmethod
    def Popen(command: Sequence[str], **more: Any) -> subprocess.Popen[bytes]:
        other = ["tests.soak.compaction" if each == "transfer_queue.journal.compact" else each for each in command]
        return subprocess.Popen(other, **more)


def wrap() -> None:
    """Put the points in place; segments are small, so that they are sealed and compacted many times a minute."""
    Journal.open.__func__.__kwdefaults__["segment_bytes"] = 1 << 17  # type: ignore[attr-defined]
    Journal.commit = _wrap_commit(Journal.commit)  # type: ignore[method-assign]
    segments._write_all = _wrap_write(segments._write_all)
    Service.settle = _wrap_compaction(Service.settle)  # type: ignore[method-assign]
    compactor.subprocess = _OtherCompaction  # type: ignore[attr-defined]
    before(UnixLink, "send", "before_reply")
    behind(UnixLink, "send", "behind_reply")
    behind(Journal, "_begin", "at_seal")
    behind(Room, "wait", "put_waits")
    behind(Line, "add", "meta_waits")
    before(QueueState, "replay", "in_replay")
    before(process, "_answer", "before_answer")
    before(Segments, "give", "at_recycling")
    before(segment_files, "_remove", "before_unlink")
    behind(segment_files, "_remove", "behind_unlink")
    behind(Recorder, "undo", "at_undo")


if __name__ == "__main__":
    wrap()
    sys.exit(process.main())
