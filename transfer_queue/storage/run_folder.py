"""Folders that live as long as a run: private, kept by a lock, and swept by a later run when their keepers are gone.

The controller's socket lies in one, the arenas of a run's clients in another, in shared memory where there is enough.

A folder is `tq-<uid>-<8 hex digits>`, mode 0700, and holds a file `lock`. Who wants the folder kept holds that lock
shared; who takes it exclusively knows that nobody does, and may remove the folder. A maker that is overtaken by such a
sweep between making the folder and locking it notices, and makes another.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

from transfer_queue.errors import ConfigurationError, ControllerLostError

PREFIX = "tq-"
LOCK = "lock"
READING = ".reading"
"""How the name of a file ends that is held by who keeps values of this folder mapped."""
STAYS = "stays"
STAY_S = 600.0
"""How long a folder waits for a run that died and will come back."""
SHARED_MEMORY = Path("/dev/shm")


class RunFolder:
    """A folder that is kept while somebody holds it. A forked child does not hold what its parent does."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        _held.add(self)

    @classmethod
    def make(cls, parent: Path) -> RunFolder:
        """A new folder in `parent`, held by this process; what dead runs left there is removed first."""
        sweep(parent)
        while True:
            path = _unused(parent)
            path.mkdir(mode=0o700)
            lock = _locked(path, os.O_CREAT, fcntl.LOCK_SH)
            if lock is not None:
                return cls(path, lock)

    @classmethod
    def make_again(cls, path: Path) -> RunFolder:
        """The folder of that name, made if it is not there: what a run that died and comes back had before.

        `stay` lets others leave it alone meanwhile.
        """
        sweep(path.parent)
        while True:
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
            if not _ours(path):
                raise ConfigurationError(f"{path} is in the way: a folder of this run should be there")
            lock = _locked(path, os.O_CREAT, fcntl.LOCK_SH)
            if lock is not None:
                return cls(path, lock)

    def stay(self) -> None:
        """Let no sweep remove the folder for `STAY_S` more, even if nobody holds it then."""
        (self.path / STAYS).touch(0o600)

    @classmethod
    def hold(cls, path: Path) -> RunFolder:
        """Keep a folder that another process made, too, until `leave` or this process's end."""
        lock = _locked(path, 0, fcntl.LOCK_SH)
        if lock is None:
            raise ControllerLostError(f"{path} is gone: the run that kept it has ended")
        return cls(path, lock)

    def leave(self) -> None:
        """No longer keep the folder; idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Remove the folder, whoever else holds it, and leave; idempotent."""
        if self._lock >= 0:
            _remove(self.path)
            self.leave()


def sweep(parent: Path) -> list[Path]:
    """Remove this user's run folders that nobody holds, and nothing else; those removed."""
    pattern = re.compile(rf"{PREFIX}{os.getuid()}-[0-9a-f]{{8}}")
    try:
        folders = [path for path in sorted(parent.iterdir()) if pattern.fullmatch(path.name) and _ours(path)]
    except OSError:
        return []
    return [folder for folder in folders if _sweep_one(folder)]


@dataclass(frozen=True)
class ArenaPlace:
    """Where arenas may lie, and what a user should hear about it."""

    path: Path
    warning: str | None = None


def choose(needed_bytes: int, configured: Path | None = None, *, memory: Path = SHARED_MEMORY) -> ArenaPlace:
    """The parent for a run folder with room for `needed_bytes`: `configured`, or shared memory, or files.

    Files, under the temporary folder, come with a warning; `ConfigurationError` only for a `configured` that will not
    do. What dead runs left in these places is removed before room is measured.
    """
    if configured is not None:
        sweep(configured)
        _refuse_unusable(configured, needed_bytes)
        return ArenaPlace(configured.absolute())
    sweep(memory)
    if _usable(memory) and room(memory) >= needed_bytes:
        return ArenaPlace(memory)
    files = _folder_for_files(needed_bytes, memory)
    short = room(files) < needed_bytes
    if not memory.exists() and sys.platform != "linux" and not short:
        return ArenaPlace(files)  # such a system has no shared memory to set
    return ArenaPlace(files, _warning(needed_bytes, memory, files, short))


def room(folder: Path) -> int:
    """Bytes that this user may still write in the folder's file system."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def in_words(size: int) -> str:
    """A size as people say it: '1.5 GiB'."""
    for unit, width in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= width:
            return f"{size / width:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} bytes"


def _warning(needed: int, memory: Path, files: Path, short: bool) -> str:
    mebibytes = -(-needed // 2**20)
    found = f"has {in_words(room(memory))} free" if _usable(memory) else "is missing or not writable"
    but = f", where only {in_words(room(files))} are free," if short else ""
    return (
        f"the queue may hold {in_words(needed)} of values, but {memory} {found}: they lie in files under {files}{but} "
        f"instead, which is slower. To keep them in memory give {memory} at least {in_words(needed)}: Docker "
        f"`--shm-size={mebibytes}m`, Kubernetes a volume `emptyDir: {{medium: Memory, sizeLimit: {mebibytes}Mi}}` "
        f"mounted at {memory}; or set queue.shm_dir to a folder with that much room"
    )


def _refuse_unusable(folder: Path, needed: int) -> None:
    if not _usable(folder):
        what = "not a folder that this user may write in" if folder.exists() else "not there"
        raise ConfigurationError(f"queue.shm_dir={str(folder)!r} is {what}: make it, or leave it out")
    if room(folder) < needed:
        raise ConfigurationError(
            f"queue.shm_dir={str(folder)!r} has {in_words(room(folder))} free, but the queue may hold "
            f"{in_words(needed)} of values: give it more room, or let the queue hold less"
        )


def _folder_for_files(needed: int, memory: Path) -> Path:
    """The first of the temporary folders with room, or the one with most."""
    folders = [Path(tempfile.gettempdir()), Path("/var/tmp")]
    usable = [folder for folder in folders if folder != memory and _usable(folder)] or folders[:1]
    for folder in usable:
        sweep(folder)
        if room(folder) >= needed:
            return folder
    return max(usable, key=room)


def _usable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def unlocked(path: str) -> bool:
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


def _unused(parent: Path) -> Path:
    return parent / f"{PREFIX}{os.getuid()}-{secrets.token_hex(4)}"


def _ours(path: Path) -> bool:
    """A folder itself, not a link to one, and of this user."""
    return path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.getuid()


def _locked(folder: Path, create: int, how: int) -> int | None:
    """A descriptor that holds the folder's lock; None where the folder went before the lock was ours."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | create, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, how)
        if os.path.samestat(os.stat(folder / LOCK), os.fstat(lock)):
            return lock
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _sweep_one(folder: Path) -> bool:
    if _stays(folder):
        return False
    try:
        lock = _locked(folder, 0, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is None:  # killed before it was locked, or about to be locked: then its maker notices
            folder.rmdir()
            return True
    except OSError:  # it is held, or it is not a run's folder: something lies in it, but no lock
        return False
    _remove(folder)
    os.close(lock)
    return not folder.exists()


def _stays(folder: Path) -> bool:
    try:
        return time.time() - (folder / STAYS).stat().st_mtime < STAY_S
    except OSError:
        return False


def _remove(folder: Path) -> None:
    """Remove it under another name, so that nobody puts more into it; if that is cut short, a sweep goes on with it."""
    doomed = _unused(folder.parent)
    with contextlib.suppress(OSError):
        folder.rename(doomed)
        for path in doomed.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.rmtree(doomed)


_held: weakref.WeakSet[RunFolder] = weakref.WeakSet()


def _leave_all() -> None:
    for folder in list(_held):
        folder.leave()


os.register_at_fork(after_in_child=_leave_all)  # closing a descriptor leaves the parent's lock as it is
