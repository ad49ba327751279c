"""When to compact, and how loudly to say that it fails. Pure: the time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
WARN_EVERY_S = 60.0


@dataclass
class CompactionPolicy:
    """Keeps a journal within about three times its snapshot: the work is constant per byte written.

    A compaction that fails is tried again after 1, 2, 4, … 60 s; a warning is due at most once a minute.
    """

    segment_bytes: int
    _failures: int = field(default=0, init=False)
    _not_before: float = field(default=float("-inf"), init=False)
    _warn_from: float = field(default=float("-inf"), init=False)

    def wants(self, now: float, since_snapshot: int, snapshot_bytes: int) -> bool:
        """Whether to begin now, with that many bytes behind a snapshot of that size."""
        return since_snapshot > max(self.segment_bytes, 2 * snapshot_bytes) and now >= self._not_before

    def succeeded(self) -> None:
        self._failures, self._not_before = 0, float("-inf")

    def failed(self, now: float) -> bool:
        """Take note of a failure; whether it is time to warn."""
        self._not_before = now + min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(self._failures, 10))
        self._failures += 1
        warn = now >= self._warn_from
        if warn:
            self._warn_from = now + WARN_EVERY_S
        return warn
