"""When the disk is asked, on whose thread, and what happens when it fails."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.transfer_queue.journal.conftest import everything
from transfer_queue.errors import JournalError
from transfer_queue.journal import Journal, Recovered

Begin = Callable[..., tuple[Journal, Recovered]]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Disk:
    """Flushes for real, lets the test wait for that, and fails or hangs when told to."""

    def __init__(self) -> None:
        self.flushed: list[str] = []
        self.modified: list[int] = []
        self.failures = 0
        self.may_go = threading.Event()
        self.may_go.set()
        self.done = threading.Semaphore(0)

    def __call__(self, file: int) -> None:
        try:
            assert self.may_go.wait(20)
            self.flushed.append(threading.current_thread().name)
            self.modified.append(os.fstat(file).st_mtime_ns)
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EIO, "Input/output error")
            os.fsync(file)
        finally:
            self.done.release()

    def wait(self) -> None:
        assert self.done.acquire(timeout=20)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.failures = 0
    disk.may_go.set()


def until(true: Callable[[], object]) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come true within 10 s")


def test_a_flush_is_due_so_long_after_the_first_commit_it_covers(begin: Begin, disk: Disk) -> None:
    clock = Clock()
    journal, _ = begin(fsync_ms=50, clock=clock, flush=disk)
    assert journal.due() is None
    journal.append(b"one")
    assert journal.due() is None
    journal.commit()
    assert journal.due() == 100.05
    clock.now = 100.04
    journal.append(b"two")
    journal.commit()
    assert journal.due() == 100.05
    journal.sync()
    assert (journal.due(), disk.flushed) == (100.05, [])
    clock.now = 100.05
    journal.sync()
    assert journal.due() is None
    disk.wait()
    assert disk.flushed == ["journal-flush"]
    clock.now = 101.0
    journal.sync()
    journal.append(b"three")
    journal.commit()

    assert (journal.due(), len(disk.flushed)) == (101.05, 1)


def test_a_slow_disk_stops_neither_commit_nor_sync_and_gets_one_flush_for_all_that_waits(
    folder: Path, begin: Begin, disk: Disk
) -> None:
    clock = Clock()
    journal, _ = begin(fsync_ms=0, clock=clock, flush=disk)
    disk.may_go.clear()
    for number in range(100):
        journal.append(b"%d" % number)
        journal.commit()
        journal.sync()
    assert len(os.listdir(folder)) == 3
    disk.may_go.set()
    journal.close()

    assert 1 <= len(disk.flushed) <= 3
    assert everything(folder)[0] == [b"%d" % number for number in range(100)]


def test_sealed_segments_are_flushed_too(begin: Begin, disk: Disk) -> None:
    journal, _ = begin(flush=disk)
    journal.append(b"one")
    journal.seal()
    disk.wait()

    assert journal.due() is None


def test_a_flush_that_failed_is_raised_once_by_the_next_commit_and_its_bytes_are_written_again(
    folder: Path, begin: Begin, disk: Disk
) -> None:
    clock = Clock()
    journal, _ = begin(fsync_ms=0, clock=clock, flush=disk)
    disk.failures = 1
    journal.append(b"one")
    journal.commit()
    time.sleep(0.02)  # longer than a tick of the kernel's clock for files
    journal.sync()
    disk.wait()
    until(lambda: journal.due() is not None)
    assert journal.due() == 101.0  # tried again a second later
    journal.append(b"refused")
    with pytest.raises(
        JournalError,
        match=r"segment-0000000001\.log could not be flushed to the disk: Input/output error: none of this burst's",
    ):
        journal.commit()
    clock.now = 101.0
    journal.sync()
    disk.wait()
    until(lambda: not journal._flusher.behind)
    assert journal.due() is None
    assert disk.modified[1] > disk.modified[0]  # the kernel believes them clean, and would flush nothing
    journal.append(b"two")
    journal.commit()
    journal.close()

    assert everything(folder) == ([b"one", b"two"], [])


def test_a_flush_that_fails_at_the_end_is_raised_by_close_which_lets_go_nevertheless(
    folder: Path, begin: Begin, disk: Disk
) -> None:
    journal, _ = begin(flush=disk)
    disk.failures = 1
    journal.append(b"one")
    with pytest.raises(JournalError, match="could not be flushed"):
        journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.commit()

    assert everything(folder) == ([b"one"], [])
