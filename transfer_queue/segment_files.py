"""The files behind the segments: whose owner died, which may be removed, which are gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from transfer_queue import operations as op
from transfer_queue.errors import FieldError
from transfer_queue.recorder import Recorder

UNTOLD_S = 10.0
"""A file that nobody holds nor told of after this has no owner any more: making, holding and telling is one breath."""
SEGMENT_FILE = re.compile(r".+-\d+")


class SegmentFiles:
    """The effects that go with `Segments`. An owner holds its files locked while it lives, however it dies."""

    def __init__(self, recorder: Recorder, folder: Path | None) -> None:
        self._recorder, self._folder = recorder, folder
        self._segments = recorder.state.catalog.segments

    def check(self, path: str, size: int) -> None:
        """`FieldError` unless this is a file of that size in the folder of this run."""
        where = Path(path)
        if self._folder is None or where.parent != self._folder or where.is_symlink():
            raise FieldError(f"{path!r} is no segment of this queue: they lie in {self._folder}")
        try:
            found = where.stat().st_size
        except OSError as error:
            raise FieldError(f"segment {path!r} cannot be read: {error.strerror}") from error
        if found < size:
            raise FieldError(f"segment {path!r} has {found} bytes, not {size}")

    def sweep(self) -> None:
        """Notice owners that died, and remove the segments that nobody writes into and whose last row is gone."""
        dead = [each.number for each in self._segments.known.values() if not each.orphan and _unlocked(each.path)]
        if dead:
            self._recorder.do(None, op.AbandonSegments(dead))
        for segment in self._segments.removable():
            _remove(segment.path)
            self._recorder.do(None, op.RemoveSegment(segment.number))
        for path in self._untold():
            _remove(path)

    def _untold(self) -> list[str]:
        """Files whose owner died between making them and telling of them."""
        if self._folder is None:
            return []
        told = {each.path for each in self._segments.known.values()}
        made = [
            each for each in os.scandir(self._folder) if SEGMENT_FILE.fullmatch(each.name) and each.path not in told
        ]
        before = time.time() - UNTOLD_S
        return [each.path for each in made if each.stat().st_mtime < before and _unlocked(each.path)]

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """Those of these segments whose file is gone or was cut."""
        known = self._segments.known
        return [number for number in numbers if number in known and not _whole(known[number].path, known[number].size)]


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _whole(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size >= size
    except OSError:
        return False


def _unlocked(path: str) -> bool:
    """Whether nobody holds the file's lock; a file that is gone has no owner either."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(file)
