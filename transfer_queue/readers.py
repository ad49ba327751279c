"""Readers that no connection vouches for: those of a controller that died, and those that keep mapped values.

Values that are freed while somebody reads them are written over only afterwards. A read ends with its connection; but
a restarted controller has no connection yet, and a mapped value outlives the connection that it was asked for through.
Whoever keeps mapped values therefore holds a file `*.reading` locked in the folder of the arenas.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from transfer_queue.storage.run_folder import READING, unlocked
from transfer_queue.storage.segments import Segments
from transfer_queue.transport.link import Link

COPYING_S = 3.0
"""How long a copy that was under way when a controller died may take; mapped values have no such limit."""


class Readers:
    """Keeps reads open for them in `Segments`, until they are over."""

    def __init__(self, folder: Path | None, segments: Segments, now: float) -> None:
        self._folder, self._segments = folder, segments
        self._followed: set[str] = set()
        self._until: float | None = None
        if segments.known:
            self._until = now + COPYING_S
            segments.begin_read(self, secrets.randbits(31), "copies from before the restart", now)
            self._follow(now)

    def gone(self, link: Link, now: float) -> None:
        """End the reads of a connection that is over; what its process keeps mapped is read on."""
        if self._segments.reads_of(link):
            self._follow(now)
            self._segments.end_reads_of(link)

    def look(self, now: float) -> None:
        """End the reads of those that have let go or died."""
        if self._until is not None and now >= self._until:
            self._until = None
            self._segments.end_reads_of(self)
        for path in [path for path in self._followed if unlocked(path)]:
            self._followed.discard(path)
            self._segments.end_reads_of(path)
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _follow(self, now: float) -> None:
        if self._folder is None:
            return
        for each in os.scandir(self._folder):
            if each.name.endswith(READING) and each.path not in self._followed and not unlocked(each.path):
                self._followed.add(each.path)
                self._segments.begin_read(each.path, secrets.randbits(31), f"who locks {each.path}", now)
