"""Compaction in a process of its own: `python -m transfer_queue.journal.compact FOLDER UPTO MODULE:FUNCTION`.

The function, `fold(snapshot: memoryview | None, records: Iterator[bytes]) -> Iterable[bytes]`, makes the chunks of a
new snapshot out of the newest one and every record behind it, up to the sealed segment UPTO; it must read all of them.
The new snapshot is flushed, read back and shown by one rename; only then is what it stands for removed. So this process
may be killed at any moment. It answers with one line of JSON on stdout and exits 0, or 1 with `{"error": sentence}`.
With `--parent PID` it ends when its stdin closes or that process is its parent no more.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from transfer_queue.errors import JournalError
from transfer_queue.journal import snapshot as snapshots
from transfer_queue.journal.folder import COMPACTING, Folder, Lock
from transfer_queue.journal.format import START, Frame, Mark
from transfer_queue.journal.reading import replay, segment_header

Fold = Callable[[memoryview | None, Iterator[bytes]], Iterable[Frame]]

NICENESS = 19
"""Whoever is served waits for nobody who tidies up."""
LOOK_AT_PARENT_S = 0.2


def compact(folder: Folder, upto: int, fold: Fold, still_wanted: Callable[[], bool] = lambda: True) -> dict[str, Any]:
    """Make the snapshot of number `upto`, or find it there, and remove what it stands for; figures for the answer.

    `still_wanted` is asked once the lock is held: an orphan that got it late must not touch the next writer's folder.
    """
    began = time.monotonic()
    with Lock(folder, COMPACTING, "compacting"):
        if not still_wanted():
            raise JournalError(f"whoever wanted {folder.path} compacted is gone")
        base, _ = snapshots.newest(folder, upto, None)
        records = 0
        if base is not None and base.number == upto:
            size = base.size
        else:
            identity, end = _sealed(folder, upto)
            begin, first = (base.mark, base.number + 1) if base else (START, 1)
            counted = _Counted(replay(folder, identity, begin, range(first, upto + 1), end))
            payload = snapshots.view(folder, base) if base else None
            size = snapshots.write(folder, upto, identity, end, _all_read(fold(payload, counted), counted))
            records = counted.count
        folder.discard_before(upto)
        folder.sync()
    return {"snapshot": upto, "bytes": size, "records": records, "seconds": round(time.monotonic() - began, 3)}


class _Counted:
    """Records on their way into the fold."""

    def __init__(self, records: Iterator[bytes]) -> None:
        self._records = records
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        record = next(self._records)
        self.count += 1
        return record


def _all_read(chunks: Iterable[Frame], counted: _Counted) -> Iterator[Frame]:
    """The chunks; then proof that the fold left no record unread, for those would be removed."""
    yield from chunks
    if next(counted, None) is not None:
        raise JournalError(f"the fold stopped after {counted.count - 1} records and left others unread")


def _sealed(folder: Folder, number: int) -> tuple[bytes, Mark]:
    """Identity and end of a segment, as the one after it says."""
    if number + 1 not in folder.segments():
        raise JournalError(f"segment {number} of {folder.path} is not sealed: there is no segment {number + 1}")
    following = segment_header(folder, number + 1, None)
    if following is None:
        raise JournalError(f"{folder.segment(number + 1)} has a damaged header")
    return following.identity, following.mark


def find_fold(name: str) -> Fold:
    """The function that `module:function` names."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise JournalError(f"{name!r} names no function: write module:function")
    try:
        fold: Fold = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise JournalError(f"the fold {name} cannot be imported: {error}") from error
    return fold


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m transfer_queue.journal.compact", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("upto", type=int)
    parser.add_argument("fold", metavar="module:function")
    parser.add_argument("--parent", type=int)
    orders = parser.parse_args(arguments)
    if orders.parent is not None:
        threading.Thread(target=end_with, args=(orders.parent,), daemon=True).start()
    os.nice(NICENESS)
    stdout = os.dup(1)
    os.dup2(2, 1)  # what the fold prints must not mix with the answer
    try:
        folder, fold = Folder(orders.folder), find_fold(orders.fold)
        answer, code = compact(folder, orders.upto, fold, lambda: orders.parent in (None, os.getppid())), 0
    except JournalError as error:
        answer, code = {"error": str(error)}, 1
    except Exception as error:  # noqa: BLE001 - it becomes the answer
        traceback.print_exc()
        answer, code = {"error": f"compaction with {orders.fold} failed: {type(error).__name__}: {error}"}, 1
    os.write(stdout, json.dumps(answer).encode() + b"\n")
    return code


def end_with(parent: int) -> None:
    """Leave at once when the parent is gone, however it died; half a snapshot is swept by whoever opens the journal."""
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], LOOK_AT_PARENT_S)
        if readable and not os.read(0, 4096):
            break
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
