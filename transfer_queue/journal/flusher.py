"""The thread that waits for the disk, so that the loop never does."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from transfer_queue.journal.segment import Segment

COPIED_AT_ONCE = 1 << 20

fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


@dataclass(slots=True)
class _Progress:
    """How far one file is: bytes written, bytes that survive a loss of power, whether a flush failed since."""

    written: int = 0
    safe: int = 0
    sealed: bool = False
    failed: bool = False


class Flusher:
    """Makes segments survive a loss of power, one flush for everything asked meanwhile; closes those that are sealed.

    A failure is kept for `failure`. The kernel forgets which pages it could not write, so that the next flush would
    succeed without them: the bytes concerned are therefore written again first.
    """

    def __init__(self, flush: Callable[[int], None] = fdatasync) -> None:
        self._flush = flush
        self._asked: queue.SimpleQueue[tuple[Segment, int, bool] | None] = queue.SimpleQueue()
        self._files: dict[Segment, _Progress] = {}
        self._failure: str | None = None
        self.behind = False
        self._thread = threading.Thread(target=self._run, name="journal-flush", daemon=True)
        self._thread.start()

    def ask(self, segment: Segment, *, sealed: bool = False) -> None:
        """Flush what the segment holds now, soon; a sealed one is closed afterwards and must not be used any more."""
        self._asked.put((segment, segment.mark.offset, sealed))

    def failure(self) -> str | None:
        """The flush that failed since the last call, in a sentence."""
        failure, self._failure = self._failure, None
        return failure

    def close(self) -> str | None:
        """Flush what was asked for, end the thread and close the files; what failed, if something did."""
        self._asked.put(None)
        self._thread.join()
        self.forget()
        return self.failure()

    def forget(self) -> None:
        """Close the files and flush nothing: all that a forked child may do."""
        while self._files:
            segment, _ = self._files.popitem()
            with contextlib.suppress(OSError):
                os.close(segment.file)

    def _run(self) -> None:
        going_on = True
        while going_on:
            asked = [self._asked.get()]
            while not self._asked.empty():
                asked.append(self._asked.get())
            for order in asked:
                if order is None:
                    going_on = False
                    continue
                segment, written, sealed = order
                progress = self._files.setdefault(segment, _Progress())
                progress.written = written
                progress.sealed |= sealed
            for segment, progress in list(self._files.items()):
                self._round(segment, progress)
            self.behind = any(progress.failed for progress in self._files.values())

    def _round(self, segment: Segment, progress: _Progress) -> None:
        try:
            if progress.failed:
                _write_again(segment.file, progress.safe, progress.written)
            if progress.written > progress.safe:
                self._flush(segment.file)
                if progress.safe == 0:
                    segment.folder.sync()
        except OSError as error:
            progress.failed = True
            self.behind = True
            self._failure = f"{segment.path} could not be flushed to the disk: {error.strerror or error}"
            return
        progress.safe, progress.failed = progress.written, False
        if progress.sealed:
            del self._files[segment]
            with contextlib.suppress(OSError):
                os.close(segment.file)


def _write_again(file: int, begin: int, end: int) -> None:
    while begin < end:
        chunk = os.pread(file, min(COPIED_AT_ONCE, end - begin), begin)
        if not chunk:
            raise OSError(errno.EIO, "the file is shorter than what was written")
        begin += os.pwrite(file, chunk, begin)
