"""What of a producer's segments is free again: asked of the controller so that no answer is lost for good."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from transfer_queue import wire
from transfer_queue.exchange import GRACE_S, Ask, Steps


class Recycling:
    """Hands free ranges (segment, offset, bytes) to `take`. Threads may share it.

    The controller tells of a range once. An answer that was not heard is therefore asked for again, under the number
    of its request, before anything else is: then it is told again.
    """

    def __init__(self, take: Callable[[list[tuple[int, int, int]]], None]) -> None:
        self._take = take
        self._unheard: deque[tuple[int, int]] = deque()

    def ask(self, segments: Sequence[int], timeout_s: float, waits: str) -> Steps[None]:
        """Take what of these segments is free; waits until something is, at most `timeout_s`."""
        while (earlier := self._earlier()) is not None:
            yield from self._ask(segments, 0.0, waits, earlier)
        yield from self._ask(segments, timeout_s, waits)

    def _ask(
        self, segments: Sequence[int], timeout_s: float, waits: str, after: tuple[int, int] | None = None
    ) -> Steps[None]:
        body, longest = wire.Recycle(list(segments), timeout_s), timeout_s + GRACE_S
        reply, _ = yield Ask(wire.Recycled, body, (), longest, lambda: waits, unheard=self._note, after=after)
        self._take(reply.ranges)

    def _note(self, session: int, sequence: int) -> None:
        self._unheard.append((session, sequence - 1))

    def _earlier(self) -> tuple[int, int] | None:
        try:
            return self._unheard.popleft()
        except IndexError:  # another thread may ask for it
            return None
