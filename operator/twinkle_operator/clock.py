"""Times of a status: RFC 3339 in whole seconds, read with care, for wall clocks jump."""

from __future__ import annotations

import math
from datetime import UTC, datetime

LAST = 253402300799.0
"""9999-12-31T23:59:59Z."""
SKEW_S = 60.0
"""A time further ahead than this was written by a clock that has jumped back since."""


def stamp(now: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC; what no calendar holds is cut."""
    seconds = 0.0 if math.isnan(now) else min(max(now, 0.0), LAST)
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str | None) -> float | None:
    """Since 1970; None for a text that is no time."""
    if not text:
        return None
    try:
        read = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def elapsed(since: str | None, now: float) -> float:
    """Seconds since then, never negative; 0 without a time."""
    then = seconds(since)
    return 0.0 if then is None or math.isnan(now) else max(0.0, now - then)


def kept(since: str | None, now: float) -> str:
    """That time, or now where there is none or it lies ahead: no wait lasts longer than it should."""
    then = seconds(since)
    return stamp(now) if since is None or then is None or then > now + SKEW_S else since
