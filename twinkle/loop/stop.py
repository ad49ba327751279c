"""SIGINT and SIGTERM as an exception at a safe moment, so that a run can save before it ends."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


class StopRequested(BaseException):
    """A signal asked this run to end. Not an Exception: nothing on the way up may swallow it."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum

    @property
    def signame(self) -> str:
        """SIGINT or SIGTERM."""
        return signal.Signals(self.signum).name

    @property
    def exit_code(self) -> int:
        """128 + signal, as shells report it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


class StopSignals:
    """While entered, SIGINT and SIGTERM raise StopRequested in the main thread, except inside ``shielded()``.

    Inside it they wait until its end, so that parameters, optimizer and files are never left half written. Repeats
    within ``PATIENCE_S`` are taken for the same wish (make and shells pass a signal on twice); a later one ends the
    process at once, without saving.
    """

    PATIENCE_S = 2.0
    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._depth = 0
        self._first: float | None = None
        self._pending: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for signum in self.SIGNALS:
            self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def take(self) -> None:
        """Take the signals again from a library that has taken them meanwhile."""
        for signum in self._previous:
            signal.signal(signum, self._handle)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        now = self._clock()
        if self._first is None:
            self._first = now
            if self._depth:
                self._pending = signum
            else:
                raise StopRequested(signum)
        elif now - self._first > self.PATIENCE_S:
            raise SystemExit(128 + signum)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Hold signals back until the block is done."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self._pending is not None and not self._depth:
            pending, self._pending = self._pending, None
            raise StopRequested(pending)
