"""A server with a receiver that answers every request, and remembers what it was told."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from transfer_queue import wire
from transfer_queue.server import Server
from transfer_queue.transport.framing import Frame
from transfer_queue.transport.link import Link, Listener


class Answering:
    """Answers each request with `Done` and the values it brought; a request of client "silent" never.

    A message that is no request comes back as it is. Replies leave when the burst is settled.
    """

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.requests: list[wire.Request] = []
        self.over: list[Link] = []
        self.bursts: list[list[int]] = []
        self.deadline: float | None = None
        self.ticks = 0
        self._replies: list[tuple[Link, list[Frame]]] = []

    def received(self, link: Link, parts: list[Frame]) -> None:
        if link not in self.links:
            self.links.append(link)
        try:
            request = wire.decode_request(parts[0])
        except ValueError:
            self._replies.append((link, parts))
            return
        self.requests.append(request)
        if request.client == "failing":
            raise RuntimeError("a receiver must not do this")
        if request.client != "silent":
            header = wire.encode(wire.Reply(request.sequence, wire.Done()))
            self._replies.append((link, [header, *parts[1:]]))

    def gone(self, link: Link) -> None:
        self.over.append(link)

    def tick(self) -> None:
        self.ticks += 1
        self.deadline = None

    def settle(self) -> None:
        replies, self._replies = self._replies, []
        if replies:
            self.bursts.append([link.key for link, _ in replies])
        for link, reply in replies:
            link.send(reply)

    def next_deadline(self) -> float | None:
        return self.deadline


@contextmanager
def serving(listeners: Sequence[Listener]) -> Iterator[Server[Answering]]:
    """A server in a thread, ended with the block."""
    server = Server(lambda _post: Answering(), listeners)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for it; fails if it does not come."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
