"""A deadline for downloads: not on the whole, which may take hours, but on the time without any progress."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from twinkle.errors import DownloadError

T = TypeVar("T")
LOOK_EVERY_S = 0.5


class Stalled(DownloadError):
    """Nothing arrives any more."""


def watched(work: Callable[[threading.Event], T], *, folder: Path, stall_s: float, what: str) -> T:
    """What ``work`` returns or raises; Stalled when ``folder`` has not changed for ``stall_s`` seconds.

    The work runs in a thread of its own, so that a call that hangs where no time-out reaches (a silent server, the lock
    of a process that hangs) holds up nobody. Another process that fills the same folder counts as progress. The event
    that ``work`` is handed is set when nobody waits for it any more: after a stall, or Ctrl-C.
    """
    abandoned = threading.Event()
    outcome: list[T] = []
    failure: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            outcome.append(work(abandoned))
        except BaseException as error:  # noqa: BLE001 - handed on to the caller's thread
            failure.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="hub-download", daemon=True).start()
    try:
        _wait(done, folder, stall_s, what)
    except BaseException:
        abandoned.set()
        raise
    if failure:
        raise failure[0]
    return outcome[0]


def _wait(done: threading.Event, folder: Path, stall_s: float, what: str) -> None:
    seen, since = _state(folder), time.monotonic()
    while not done.wait(min(LOOK_EVERY_S, stall_s / 4)):
        now = _state(folder)
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > stall_s:
            raise Stalled(
                f"{what}: nothing has arrived for {stall_s:g} s; check the network, or raise hub.stall_s (what has "
                "been fetched is kept, and the next attempt goes on from there)"
            )


def _state(folder: Path) -> tuple[int, int]:
    """Number of files below the folder, and bytes in them."""
    files = size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
            files += 1
    return files, size
