"""Requests that come twice are carried out once: the last answer of every session is remembered."""

from __future__ import annotations

from collections import OrderedDict

from transfer_queue import wire
from transfer_queue.errors import ProtocolError

REMEMBERED = 16384
"""Sessions whose last answer is kept; a session that was silent while so many others spoke is forgotten."""


class Sessions:
    """For each session the number of its last request that changed something, and the answer."""

    def __init__(self) -> None:
        self.answers: OrderedDict[int, tuple[int, wire.ReplyBody]] = OrderedDict()

    def answer(self, session: int, sequence: int) -> wire.ReplyBody | None:
        """What this very request was answered before, or None; `ProtocolError` if a later one was answered already."""
        known = self.answers.get(session)
        if known is None or known[0] < sequence:
            return None
        if known[0] > sequence:
            raise ProtocolError(f"request {sequence} of a session came behind request {known[0]}: it was given up")
        return known[1]

    def may_have_done(self, session: int, sequence: int) -> bool:
        """Whether this request was carried out, or so many sessions are known that this one may have been forgotten."""
        known = self.answers.get(session)
        if known is None:
            return len(self.answers) >= REMEMBERED // 2
        return known[0] >= sequence

    def note(self, session: int, sequence: int, answer: wire.ReplyBody) -> None:
        """This request was carried out."""
        if session:
            self.answers[session] = (sequence, answer)
            self.answers.move_to_end(session)
            if len(self.answers) > REMEMBERED:
                self.answers.popitem(last=False)

    def forget(self, session: int) -> None:
        """What this session asked for last was undone, so a retry is a new request."""
        self.answers.pop(session, None)
