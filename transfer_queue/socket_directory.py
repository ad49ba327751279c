"""The folder of a controller's socket: private, short enough for every platform, and swept when nobody holds it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from transfer_queue.errors import ConfigurationError

PREFIX = "tq-"
LOCK = "lock"
SOCKET = "queue"
LONGEST = 100
"""Bytes that a unix socket's path may have on macOS (104), with a little room."""
SWEEP_AFTER_S = 60.0


class SocketDirectory:
    """A 0700 folder with a lock. Whoever made or adopted it shares the lock, and while one of them lives it stays."""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            sweep(_parent())
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_parent()))
        self.path = path
        self._lock = os.open(path / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    @classmethod
    def adopt(cls, path: str | os.PathLike[str]) -> SocketDirectory:
        """The folder at this path, made if there is none: a controller that starts again is found where it was.

        `ConfigurationError` if it is another user's, open to others, or too deep for a socket.
        """
        folder = Path(path).absolute()
        if len(os.fsencode(folder / SOCKET)) > LONGEST:
            raise ConfigurationError(f"{folder} is too long for a socket: {folder / SOCKET} may have {LONGEST} bytes")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise ConfigurationError(
                f"{folder} must belong to user {os.getuid()} and be closed to others (chmod 700); it belongs to "
                f"{status.st_uid} and has mode {status.st_mode & 0o777:o}"
            )
        adopted = cls(folder)
        if not os.fstat(adopted._lock).st_nlink:
            adopted.release()
            raise ConfigurationError(f"{folder} was being swept, for nobody held it; start once more")
        return adopted

    @property
    def socket(self) -> str:
        """Path of the socket."""
        return str(self.path / SOCKET)

    @property
    def endpoint(self) -> str:
        """The same as clients are told it."""
        return f"unix://{self.socket}"

    def remove(self) -> None:
        """Remove the folder and let the lock go; may be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let the lock go and leave the folder to whoever comes next; may be called twice."""
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
