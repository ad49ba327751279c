"""The folder of a journal: names, modes, the lock that keeps a second writer out, and what is put aside or removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from transfer_queue.errors import JournalError

TEMPORARY = ".tmp"
DAMAGED = ".damaged"
COMPACTING = "compacting"
"""Name of the lock of whoever rewrites the folder behind the writer's back."""
COPIED_AT_ONCE = 1 << 20


class Folder:
    """Where the files of one journal lie. Only this user may look into it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, path: Path) -> Folder:
        """The folder, made with mode 0700 if it is not there; one that others may read or write is refused."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
            status = path.stat()
        except OSError as error:
            raise JournalError(f"the journal's folder {path} cannot be made: {error.strerror}") from error
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise JournalError(
                f"the journal's folder {path} is open to others (mode {status.st_mode & 0o777:o}, user "
                f"{status.st_uid}): name a folder inside it, which will be made private, or chmod 700 it"
            )
        return cls(path)

    def segment(self, number: int) -> Path:
        return self.path / f"segment-{number:010}.log"

    def snapshot(self, number: int) -> Path:
        return self.path / f"snapshot-{number:010}.snap"

    def segments(self) -> list[int]:
        """Numbers of the segments that are there, in order."""
        return self._numbers("segment-", ".log")

    def snapshots(self) -> list[int]:
        """Numbers of the snapshots that are there, in order."""
        return self._numbers("snapshot-", ".snap")

    def _numbers(self, before: str, after: str) -> list[int]:
        names = (name.removeprefix(before).removesuffix(after) for name in os.listdir(self.path))
        return sorted(int(name) for name in names if len(name) == 10 and name.isdecimal())

    def create(self, path: Path) -> int:
        """A new file for reading and writing, mode 0600."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def sync(self) -> None:
        """Make names that were added, changed or removed survive a loss of power."""
        folder = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def put_aside(self, path: Path) -> Path:
        """Rename a file to `*.damaged`: nothing reads it any more, nothing removes it either."""
        aside = self._free_name(path)
        os.rename(path, aside)
        return aside

    def copy_aside(self, path: Path, offset: int) -> Path:
        """Keep what lies behind `offset` of a file as `*.damaged`, before it is cut off."""
        aside = self._free_name(path)
        with open(path, "rb", buffering=0) as source, open(self.create(aside), "wb", buffering=0) as target:
            source.seek(offset)
            while chunk := source.read(COPIED_AT_ONCE):
                target.write(chunk)
            os.fsync(target.fileno())
        return aside

    def _free_name(self, path: Path) -> Path:
        aside = path.with_name(path.name + DAMAGED)
        count = 1
        while aside.exists():
            count += 1
            aside = path.with_name(f"{path.name}{DAMAGED}.{count}")
        return aside

    def discard_before(self, snapshot: int) -> None:
        """Remove what a verified snapshot stands for, the older snapshot last."""
        for number in reversed(self.segments()):
            if number <= snapshot:
                self.segment(number).unlink()
        for number in self.snapshots():
            if number < snapshot:
                self.snapshot(number).unlink()

    def discard_temporary(self) -> None:
        """Remove what a killed compaction was writing."""
        for name in os.listdir(self.path):
            if name.endswith(TEMPORARY):
                (self.path / name).unlink()


class Lock:
    """An exclusive lock on a file of the folder; it ends with its holder, however that dies."""

    def __init__(self, folder: Folder, name: str, doing: str, wait_s: float = 0.0) -> None:
        path = folder.path / name
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait_s
        while not self._taken():
            if time.monotonic() >= deadline:
                holder = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
                self.release()
                raise JournalError(f"process {holder} is already {doing} the journal {folder.path}: end it first")
            time.sleep(0.01)  # flock knows no deadline, and this waits only for an orphan that is about to notice
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let go; in a forked child this leaves the parent's lock alone."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
