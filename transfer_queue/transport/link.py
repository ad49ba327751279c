"""What the server, its transports and the receiver of messages know of each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from transfer_queue import wire
from transfer_queue.errors import TransferQueueError
from transfer_queue.transport.framing import Frame

Post = Callable[[Callable[[], None]], None]
"""Runs a function in the server's loop; may be called from any thread."""


class Link(Protocol):
    """One connection, seen from the server; only the loop's thread may touch it. Hashed by identity."""

    key: int
    """Unique in the server's life."""

    def send(self, parts: Sequence[Frame]) -> bool:
        """Send a message without ever waiting; False if the peer is gone. Parts must not change afterwards.

        `ProtocolError` if it is larger than a message may be; then nothing was sent.
        """

    def alive(self) -> bool:
        """Whether a message can still be sent."""

    def close(self) -> None:
        """Take nothing more from this peer, and send it nothing more than what was sent."""


class Receiver(Protocol):
    """Who gets the messages. All calls come from the loop's thread, none from inside a call of `Link`."""

    def received(self, link: Link, parts: list[Frame]) -> None:
        """A whole message; `parts` has at least one."""

    def gone(self, link: Link) -> None:
        """This connection is over, whoever ended it: once for each, after its last message."""

    def tick(self) -> None:
        """The time that `next_deadline` named is there; called once a second in any case."""

    def settle(self) -> None:
        """Some messages, posted work or a tick are done: write the journal, let the replies go."""

    def next_deadline(self) -> float | None:
        """When `tick` has to be called, on `time.monotonic`; None if nothing waits."""


class Loop(Protocol):
    """What a listener needs of the server that it is plugged into."""

    def watch(self, descriptor: int, mask: int, ready: Callable[[int], None]) -> None:
        """Call `ready` with the mask of what happened; `watch` again to change the mask or who is called."""

    def unwatch(self, descriptor: int) -> None:
        """Forget the descriptor; before it is closed."""

    def received(self, link: Link, parts: list[Frame]) -> None:
        """Hand a message to the receiver."""

    def gone(self, link: Link) -> None:
        """Tell the receiver that the link is over, after the work at hand."""

    def soon(self, work: Callable[[], None]) -> None:
        """Do this in the next round, which comes without a sleep, after what others have to do."""

    def later(self, at: float, work: Callable[[], None]) -> None:
        """Do this at that time, on `time.monotonic`."""

    def new_key(self) -> int:
        """A key for a new link."""


class Listener(Protocol):
    """A way into the server; bound when it is made, so that wrong addresses raise there."""

    def open(self, loop: Loop) -> None:
        """Begin to accept connections; called in the loop's thread."""

    def close(self) -> None:
        """Close every connection and stop listening; may be called twice."""


def refusal(error: TransferQueueError) -> list[Frame]:
    """The message that ends a connection: a failure that answers no request in particular."""
    return [wire.encode(wire.Reply(0, wire.Failure(type(error).__name__, str(error), error.details)))]
