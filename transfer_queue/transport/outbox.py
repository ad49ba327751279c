"""Bytes that a peer has not taken yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from transfer_queue.transport.framing import Frame

AT_ONCE = 64
"""Buffers offered to the kernel in one call."""
OVERHEAD = 128
"""What a waiting buffer costs beyond its bytes, so that many tiny ones are not free."""


class Outbox:
    """A queue of buffers; `cost` is the memory that it keeps."""

    __slots__ = ("_views", "cost")

    def __init__(self) -> None:
        self._views: deque[memoryview] = deque()
        self.cost = 0

    def __bool__(self) -> bool:
        return bool(self._views)

    def add(self, buffers: Sequence[Frame], sent: int = 0) -> None:
        """What is left of the buffers after the first `sent` bytes; they must not change until they are gone."""
        for buffer in buffers:
            view = memoryview(buffer)
            if sent >= view.nbytes:
                sent -= view.nbytes
                continue
            self._views.append(view.cast("B")[sent:])
            self.cost += view.nbytes - sent + OVERHEAD
            sent = 0

    def first(self) -> list[memoryview]:
        """The next buffers to send."""
        return [self._views[place] for place in range(min(AT_ONCE, len(self._views)))]

    def sent(self, count: int) -> None:
        """So many bytes are gone."""
        while count:
            view = self._views[0]
            if count < view.nbytes:
                self._views[0] = view[count:]
                self.cost -= count
                return
            count -= view.nbytes
            self.cost -= view.nbytes + OVERHEAD
            self._views.popleft()
