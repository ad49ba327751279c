"""The file that the writer appends to."""

from __future__ import annotations

import contextlib
import os

from transfer_queue.journal.folder import Folder
from transfer_queue.journal.format import SEGMENT, Frame, Header, Mark

FRAMES_AT_ONCE = 512
"""Below every platform's limit for one `writev`."""


class Segment:
    """An open segment: it grows by whole bursts or not at all. Its file position is always its end."""

    def __init__(self, folder: Folder, number: int, identity: bytes, follows: Mark) -> None:
        """Create it; OSError if the disk cannot take even its header, and then it is not there."""
        header = Header(SEGMENT, number, identity, follows)
        self.number = number
        self.folder = folder
        self.path = folder.segment(number)
        self.mark = Mark(0, 0)
        self.file = folder.create(self.path)
        self._overhang = False
        try:
            self.write([header.encode()], header.end())
        except BaseException:
            os.close(self.file)
            self.path.unlink()
            raise

    def write(self, frames: list[Frame], mark: Mark) -> None:
        """Append all of it, ending at `mark`. OSError: the file is as before, at the latest when it is next written."""
        if self._overhang:
            self._cut()
        try:
            _write_all(self.file, frames)
        except BaseException:
            self._overhang = True
            with contextlib.suppress(OSError):
                self._cut()
            raise
        self.mark = mark

    def _cut(self) -> None:
        os.ftruncate(self.file, self.mark.offset)
        os.lseek(self.file, self.mark.offset, os.SEEK_SET)
        self._overhang = False


def _write_all(file: int, frames: list[Frame]) -> None:
    if len(frames) == 1:
        written = os.write(file, frames[0])
        if written == len(frames[0]):
            return
        frames = [memoryview(frames[0])[written:]]
    rest: list[Frame] = list(reversed(frames))
    while rest:
        written = os.writev(file, rest[: -FRAMES_AT_ONCE - 1 : -1])
        while rest and written >= len(rest[-1]):
            written -= len(rest.pop())
        if written:
            rest[-1] = memoryview(rest[-1])[written:]
