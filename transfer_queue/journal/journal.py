"""`Journal`: the writer's side. One thread appends and commits; flushing and compaction happen elsewhere."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from transfer_queue.errors import JournalError
from transfer_queue.journal.burst import Burst
from transfer_queue.journal.flusher import Flusher, fdatasync
from transfer_queue.journal.folder import COMPACTING, Folder, Lock
from transfer_queue.journal.format import HEADER_BYTES, Frame, digest
from transfer_queue.journal.recovery import Recovered, Standing, recover
from transfer_queue.journal.segment import Segment

ORPHAN_S = 10.0
"""How long opening waits for a compaction whose parent was killed to notice that and go."""
RETRY_S = 1.0
"""How soon a flush that failed is tried again."""


class Journal:
    """An append-only file of opaque records that outlives its process.

    `append` buffers, `commit` writes everything appended since in one call: once it returns, the records survive a
    SIGKILL of this process; once the flush that follows within `fsync_ms` is through, a loss of power too. Only one
    process at a time has a folder open, only one of its threads may use this object, and a forked child may not.
    """

    def __init__(
        self, folder: Folder, lock: Lock, standing: Standing, identity: bytes, fsync_s: float, segment_bytes: int,
        clock: Callable[[], float], flush: Callable[[int], None],
    ) -> None:  # fmt: skip
        self.folder = folder.path
        self.segment_bytes = segment_bytes
        self._folder, self._lock, self._identity = folder, lock, identity
        self._fsync_s, self._clock = fsync_s, clock
        self._snapshot, self._snapshot_bytes = standing.snapshot, standing.snapshot_bytes
        self._sealed_bytes = dict(standing.segment_bytes)
        self._segment = self._begin(standing)
        self._flusher = Flusher(flush)
        self._burst = Burst(self._segment.mark)
        self._due: float | None = None
        self._over = ""
        _open.add(self)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        fsync_ms: float = 50.0,
        segment_bytes: int = 16 << 20,
        identity: bytes = b"",
        clock: Callable[[], float] = time.monotonic,
        flush: Callable[[int], None] = fdatasync,
    ) -> tuple[Journal, Recovered]:
        """Open or begin the journal of that folder, and what it holds already.

        `JournalError` if another process has it open, if it was written under another `identity` or in another format,
        or if the disk cannot take it. Damage is no error: see `Recovered.warnings`.
        """
        if not fsync_ms >= 0 or segment_bytes <= 0:
            raise JournalError(f"fsync_ms={fsync_ms} must be 0 or more and segment_bytes={segment_bytes} above 0")
        place = Folder.make(Path(folder))
        with contextlib.ExitStack() as undo, _sentence(f"the journal {place.path} cannot be opened"):
            lock = undo.enter_context(Lock(place, "lock", "writing"))
            with Lock(place, COMPACTING, "compacting", ORPHAN_S):
                recovered, standing = recover(place, digest(identity))
                journal = cls(place, lock, standing, digest(identity), fsync_ms / 1000, segment_bytes, clock, flush)
            undo.pop_all()
        return journal, recovered

    @property
    def bytes_since_snapshot(self) -> int:
        """Bytes in segments that no snapshot stands for yet."""
        return sum(self._sealed_bytes.values()) + self._segment.mark.offset - HEADER_BYTES

    @property
    def snapshot_bytes(self) -> int:
        """Bytes of the newest snapshot; 0 before the first."""
        return self._snapshot_bytes

    def append(self, *parts: Frame) -> None:
        """Buffer one record: its parts, joined. A part of 32 KiB or more must not change before `commit`."""
        if self._over:
            raise JournalError(self._over)
        self._burst.add(parts)

    def commit(self) -> None:
        """Write every record appended since the last commit, in order.

        `JournalError` if the disk is full or failed, or if an earlier flush did: then no record of this burst counts,
        none will be replayed unless this process dies within the call, and the journal can be used again.
        """
        if self._over:
            raise JournalError(self._over)
        if (failure := self._flusher.failure()) is not None:
            self._burst.restart(self._segment.mark)
            raise JournalError(
                f"{failure}: none of this burst's records counts, earlier ones may be lost with the power"
            )
        frames = self._burst.frames()
        if not frames:
            return
        mark = self._burst.mark
        try:
            self._segment.write(frames, mark)
        except OSError as error:
            raise JournalError(
                f"{self._segment.path}: {mark.offset - self._segment.mark.offset:,} bytes could not be written "
                f"({error.strerror}): make room on that disk; none of this burst's records counts"
            ) from error
        finally:
            self._burst.restart(self._segment.mark)
        if self._due is None:
            self._due = self._clock() + self._fsync_s
        if mark.offset >= self.segment_bytes:
            with contextlib.suppress(JournalError):  # this burst is written; the next one will tell, if it cannot be
                self._seal()

    def discard(self) -> None:
        """Forget every record appended since the last commit."""
        self._burst.restart(self._segment.mark)

    def due(self) -> float | None:
        """When `sync` wants to be called, on the journal's clock; None while there is nothing to flush."""
        if self._due is None and self._flusher.behind:
            self._due = self._clock() + RETRY_S
        return self._due

    def sync(self) -> None:
        """Have everything committed flushed by the flushing thread, if that is due; returns at once."""
        if self._due is not None and self._clock() >= self._due:
            self._due = None
            self._flusher.ask(self._segment)

    def seal(self) -> int:
        """Commit, close the segment and begin the next; the number of the newest segment that is complete.

        A segment without a record stays open: then that is the one before it.
        """
        self.commit()
        return self._seal()

    def _seal(self) -> int:
        if self._segment.mark.offset == HEADER_BYTES:
            return self._segment.number - 1
        sealed = self._segment
        with _sentence(f"the segment after {sealed.path} cannot be begun"):
            self._segment = self._begin(Standing(sealed.number + 1, sealed.mark))
        self._sealed_bytes[sealed.number] = sealed.mark.offset
        self._burst.restart(self._segment.mark)
        self._due = None
        self._flusher.ask(sealed, sealed=True)
        return sealed.number

    def compacted(self, number: int, size: int) -> None:
        """Take note that a snapshot of `size` bytes now stands for the segments up to `number`."""
        self._snapshot, self._snapshot_bytes = number, size
        self._sealed_bytes = {each: held for each, held in self._sealed_bytes.items() if each > number}

    def close(self) -> None:
        """Commit, wait for the flush, let the folder go; may be called twice. Lets go even if it raises."""
        if self._over:
            return
        try:
            self.commit()
        finally:
            self._over = f"the journal {self.folder} is closed"
            _open.discard(self)
            self._flusher.ask(self._segment, sealed=True)
            failure = self._flusher.close()
            self._lock.release()
        if failure is not None:
            raise JournalError(failure)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _begin(self, standing: Standing) -> Segment:
        return Segment(self._folder, standing.number, self._identity, standing.follows)

    def _forget(self) -> None:
        """Let go of everything in a forked child, which must neither write nor keep the parent's lock alive."""
        self._over = (
            f"the journal {self.folder} was opened by process {os.getppid()}, and a forked child may not write it"
        )
        self._lock.release()
        self._flusher.forget()
        with contextlib.suppress(OSError):
            os.close(self._segment.file)


@contextlib.contextmanager
def _sentence(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalError(f"{what}: {error.strerror or error} ({error.filename})") from error


_open: weakref.WeakSet[Journal] = weakref.WeakSet()


def _forget_all() -> None:
    for journal in list(_open):
        journal._forget()
    _open.clear()


os.register_at_fork(after_in_child=_forget_all)
