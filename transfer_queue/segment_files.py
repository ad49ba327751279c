"""Segments that are files: an owner holds its own locked while it lives, however it dies."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Sequence, Set
from pathlib import Path

from transfer_queue.errors import FieldError
from transfer_queue.segment_places import Then
from transfer_queue.storage.place import is_actor
from transfer_queue.storage.run_folder import unlocked
from transfer_queue.storage.segments import Segment

UNTOLD_S = 10.0
"""A file that nobody holds nor told of after this has no owner any more: making, holding and telling is one breath."""
SEGMENT_FILE = re.compile(r".+-\d+")


class SegmentFiles:
    """The files in the folder of this run, where large values are shared by the processes of this machine."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def has(self, path: str) -> bool:
        return not is_actor(path)

    def check(self, path: str, size: int) -> None:
        """`FieldError` unless this is a file of that size in the folder of this run."""
        where = Path(path)
        ours = where.parent == self._folder and SEGMENT_FILE.fullmatch(where.name) is not None
        if self._folder is None or not ours or where.is_symlink():
            raise FieldError(f"{path!r} is no segment of this queue: they lie in {self._folder}")
        try:
            found = where.stat().st_size
        except OSError as error:
            raise FieldError(f"segment {path!r} cannot be read: {error.strerror}") from error
        if not 0 < size <= found:
            raise FieldError(f"segment {path!r} has {found} bytes, not {size}")

    def sweep(self, told: Set[str]) -> None:
        """Remove files whose owner died between making them and telling of them."""
        if self._folder is None:
            return
        before = time.time() - UNTOLD_S
        made = [
            each for each in os.scandir(self._folder) if SEGMENT_FILE.fullmatch(each.name) and each.path not in told
        ]
        for each in made:
            if each.stat().st_mtime < before and unlocked(each.path):
                _remove(each.path)

    def watch(self, segment: Segment, lost: Then) -> None:
        """Files are looked at when somebody misses them."""

    def abandoned(self, segment: Segment) -> bool:
        """Whether nobody holds the file's lock."""
        return unlocked(segment.path)

    def missing(self, segments: Sequence[Segment], then: Then) -> None:
        """Those whose file is gone or was cut."""
        then([each for each in segments if not _whole(each.path, each.size)])

    def remove(self, segment: Segment) -> None:
        _remove(segment.path)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _whole(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size >= size
    except OSError:
        return False
