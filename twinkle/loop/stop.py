"""SIGINT and SIGTERM as an exception at a safe moment, so that a run can save before it ends."""

import signal
from collections.abc import Iterator
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

    Inside it they wait until its end, so that parameters, optimizer and files are never left half written.
    After the first signal further ones are ignored while ``shielded``, and end the process's patience otherwise:
    a second Ctrl-C raises KeyboardInterrupt at once.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._depth = 0
        self._pending: int | None = None
        self._raised = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for signum in self.SIGNALS:
            self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._depth:
            self._pending = signum
        elif self._raised:
            raise KeyboardInterrupt
        else:
            self._raised = True
            raise StopRequested(signum)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Hold signals back until the block is done."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self._pending is not None and not self._depth and not self._raised:
            self._raised = True
            raise StopRequested(self._pending)
