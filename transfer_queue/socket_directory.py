"""The folder of a controller's socket: private, short enough for every platform, and swept when its owner is gone."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "tq-"
LOCK = "lock"
LONGEST = 100
"""Bytes that a unix socket's path may have on macOS (104), with a little room."""
SWEEP_AFTER_S = 60.0


class SocketDirectory:
    """A 0700 folder with a lock that its owner holds; `remove` is idempotent."""

    def __init__(self) -> None:
        sweep(_parent())
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_parent()))
        self._lock = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    @property
    def endpoint(self) -> str:
        return f"ipc://{self.path}/queue"

    def remove(self) -> None:
        """Remove the folder and let the lock go."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sweep(parent: Path, older_than_s: float = SWEEP_AFTER_S) -> list[Path]:
    """Remove the folders of this user's controllers that were killed before they could; those removed."""
    removed = []
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            status = folder.stat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < older_than_s:
                continue
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
    return removed


def _parent() -> Path:
    folder = Path(tempfile.gettempdir())
    return folder if len(os.fsencode(folder)) + len(PREFIX) + len("xxxxxxxx/queue") < LONGEST else Path("/tmp")
