"""Replies leave together, once the journal holds what they say."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transfer_queue import wire
from transfer_queue.errors import JournalError, ProtocolError, TransferQueueError
from transfer_queue.recorder import Recorder
from transfer_queue.traffic import Traffic
from transfer_queue.waiting import Caller

log = logging.getLogger(__name__)

DONE = wire.Done()


@dataclass(slots=True)
class Outgoing:
    """A reply that leaves once the journal holds what it says; `gone` is called if its caller hung up.

    `waited`: its caller was asleep, and hears before whoever woke it.
    """

    caller: Caller
    body: wire.ReplyBody
    frames: Sequence[wire.Frame] = ()
    gone: Callable[[], None] | None = None
    waited: bool = False


class Replies:
    """What goes out. `fatal` is called, once, when the journal cannot be written: nobody hears of more."""

    def __init__(self, recorder: Recorder, traffic: Traffic, fatal: Callable[[Exception], None]) -> None:
        self._recorder, self._traffic, self._fatal = recorder, traffic, fatal
        self._out: list[Outgoing] = []
        self.gave_up = False

    @property
    def wait(self) -> bool:
        """Whether there are replies that have not left."""
        return bool(self._out)

    def reply(
        self, caller: Caller, body: wire.ReplyBody | None, frames: Sequence[wire.Frame] = (),
        gone: Callable[[], None] | None = None, waited: bool = False,
    ) -> None:  # fmt: skip
        """Answer a caller; `gone` is called if it hung up before it could hear. Who has waited hears first."""
        body = DONE if body is None else body
        self._traffic.answered(body)
        self._out.append(Outgoing(caller, body, frames, gone, waited))

    def fail(self, caller: Caller, error: Exception) -> None:
        """Answer with an error; one that nobody foresaw is logged too."""
        if isinstance(error, TransferQueueError):
            self.reply(caller, wire.Failure(type(error).__name__, sendable(str(error)), error.details))
            return
        log.error("a request of client %r failed", caller.client, exc_info=error)
        text = f"the controller could not carry out the request: {type(error).__name__}: {error}"
        self.reply(caller, wire.Failure("RequestError", sendable(text), {}))

    def send(self) -> None:
        """Let those go that wait now."""
        out, self._out = self._out, []
        for each in sorted(out, key=_hears_later) if len(out) > 1 else out:
            self._send(each)

    def written(self) -> bool:
        """Whether all that was done is in the journal. If it cannot be, nobody hears of it, and nothing is done more:
        a restart goes on from what is written."""
        if self._recorder.journal is not None and not self.gave_up:
            try:
                self._recorder.journal.commit()
            except JournalError as error:
                self._give_up(error)
        return not self.gave_up

    def _send(self, each: Outgoing) -> None:
        try:
            header = wire.encode(wire.Reply(each.caller.sequence, each.body))
            sent = each.caller.link.send([header, *each.frames])
        except (ProtocolError, ValueError, OverflowError) as error:
            failure = wire.Failure("ProtocolError", f"the answer cannot be sent: {error}", {})
            each.caller.link.send([wire.encode(wire.Reply(each.caller.sequence, failure))])
            sent = False
        if not sent and each.gone is not None:
            each.gone()

    def _give_up(self, error: JournalError) -> None:
        self.gave_up = True
        failure = wire.Failure("JournalError", str(error), error.details)
        for each in self._out:
            each.caller.link.send([wire.encode(wire.Reply(each.caller.sequence, failure))])
        self._out.clear()
        self._fatal(error)


def _hears_later(each: Outgoing) -> bool:
    return not each.waited


def sendable(text: str) -> str:
    """The text without what UTF-8 cannot say: a sampler may put anything into its messages."""
    return text.encode(errors="backslashreplace").decode()
