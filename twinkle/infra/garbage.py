"""Objects on a device group that nobody refers to any more are closed, by a thread of its own.

The garbage collector runs anywhere, also inside of Ray; nothing that waits may be done there.
"""

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger("twinkle")

_left: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
_started = threading.Event()


def close_soon(close: Callable[[], None]) -> None:
    """Call that function soon in another thread; safe inside of the garbage collector."""
    _left.put(close)
    if not _started.is_set():
        _started.set()
        threading.Thread(target=_close_all, name="closes lost handles", daemon=True).start()


def settle(timeout_s: float) -> None:
    """Wait until what nobody refers to any more at this moment is closed."""
    settled = threading.Event()
    close_soon(settled.set)
    settled.wait(timeout_s)


def _close_all() -> None:
    while True:
        close = _left.get()
        try:
            close()
        except Exception:
            log.exception("an object on a device group could not be closed")
