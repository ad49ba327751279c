"""How much a queue is asked, how often it had to refuse, and when rows last moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from transfer_queue import wire


class Traffic:
    """Counts requests by kind and errors by class; both are lists of fixed length."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.requests: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._clock = clock
        self._moved_at = clock()

    @property
    def idle_s(self) -> float:
        """Seconds since rows were put, given or given back."""
        return self._clock() - self._moved_at

    def asked(self, body: wire.Body) -> None:
        """A request has arrived."""
        self.requests[str(body.__struct_config__.tag)] += 1

    def answered(self, body: wire.ReplyBody) -> None:
        """A reply leaves."""
        if isinstance(body, wire.Rows | wire.Done):
            self._moved_at = self._clock()
        elif isinstance(body, wire.Failure):
            self.errors[body.name] += 1
