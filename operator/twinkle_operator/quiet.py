"""When a driver that was told to stop has saved its checkpoint, and when it is dead."""

from __future__ import annotations

from twinkle_operator.clock import elapsed, seconds
from twinkle_operator.observed import Observed, Poll
from twinkle_operator.state import Status
from twinkle_operator.verdict import head_of
from twinkle_operator.words import DEAD_S, REFUSED, STOPPED_S


def has_saved(status: Status, observed: Observed, now: float) -> bool:
    """Its pods may go: it is dead, its newest step is in a checkpoint, or it had STOPPED_S seconds."""
    if is_dead(status, observed, now) or elapsed(status.stopping_since, now) >= STOPPED_S:
        return True
    poll = _after(observed.poll, status.stopping_since)
    if poll is None or poll.why or poll.progress is None or poll.progress.step is None:
        return False
    return poll.progress.checkpoint_step == poll.progress.step


def is_dead(status: Status, observed: Observed, now: float) -> bool:
    """Another one may begin on the same head: none was told to stop, nothing listens there, or DEAD_S passed."""
    if status.stopping_since is None or head_of(observed.pods) is None:
        return True
    poll = _after(observed.poll, status.stopping_since)
    return elapsed(status.stopping_since, now) >= DEAD_S or (poll is not None and poll.why == REFUSED)


def _after(poll: Poll | None, since: str | None) -> Poll | None:
    """The poll, if it is news since then; times of a status are whole seconds."""
    then = seconds(since)
    return poll if poll is not None and then is not None and poll.at >= then + 1 else None
