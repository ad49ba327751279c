"""How much a queue is asked, how often it had to refuse, and when rows last moved."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

from transfer_queue import wire


class Traffic:
    """Counts requests by kind and errors by class; both are lists of fixed length. It costs a request next to nothing.

    `idle_s` are the seconds since rows were put, given or given back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.errors: Counter[str] = Counter()
        self._asked: defaultdict[type[wire.Body], int] = defaultdict(int)
        self._clock = clock
        self._moved_at = clock()

    @property
    def requests(self) -> dict[str, int]:
        """Requests by kind."""
        return {str(kind.__struct_config__.tag): count for kind, count in self._asked.items()}

    @property
    def idle_s(self) -> float:
        return self._clock() - self._moved_at

    def asked(self, body: wire.Body) -> None:
        """A request has arrived."""
        self._asked[type(body)] += 1

    def answered(self, body: wire.ReplyBody) -> None:
        """A reply leaves."""
        kind = type(body)
        if kind is wire.Rows or kind is wire.Done:
            self._moved_at = self._clock()
        elif isinstance(body, wire.Failure):
            self.errors[body.name] += 1
