"""The folder of a controller's socket: a run's folder whose path is short enough for every platform."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from transfer_queue.storage.run_folder import PREFIX, RunFolder

LONGEST = 100
"""Bytes that a unix socket's path may have on macOS (104), with a little room."""


class SocketDirectory:
    """A 0700 folder that this process holds; `remove` is idempotent."""

    def __init__(self) -> None:
        self._folder = RunFolder.make(_parent())
        self.path = self._folder.path

    @property
    def endpoint(self) -> str:
        return f"ipc://{self.path}/queue"

    def remove(self) -> None:
        """Remove the folder and let the lock go."""
        self._folder.remove()


def _parent() -> Path:
    folder = Path(tempfile.gettempdir())
    length = len(os.fsencode(folder)) + len(f"/{PREFIX}{os.getuid()}-xxxxxxxx/queue")
    return folder if length < LONGEST else Path("/tmp")
