"""The server's side over TCP: one ROUTER with CURVE, which asks us about each key, and tells us who comes and goes.

Who has no key of the run never gets as far as a message. ZeroMQ's own thread does the handshakes and encrypts; three
of its sockets are watched by the loop: the router, its monitor, and the door (ZAP), at which keys are asked about.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from selectors import EVENT_READ
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from transfer_queue.errors import ConfigurationError, ProtocolError
from transfer_queue.transport.descriptors import Descriptors
from transfer_queue.transport.framing import LONGEST_MESSAGE, Frame, check
from transfer_queue.transport.keys import Keys
from transfer_queue.transport.link import Loop, refusal

log = logging.getLogger(__name__)

DOMAIN = b"transfer_queue"
DOOR = "inproc://zeromq.zap.01"
"""Where libzmq asks about keys."""
TURN = 64
"""Messages taken before it is the others' turn; among its peers the router is fair by itself."""
UNREAD = 1000
"""Replies that wait for a peer that does not read; one more and it is given up."""
AHEAD = 256
"""Messages that one peer may have sent before they are looked at; then its own socket waits."""
HANDSHAKE_MS = 5000


class TcpListener:
    """Listens at `tcp://host:port` (port 0: a free one, see `endpoint`), for who has the clients' keys."""

    def __init__(self, address: str, keys: Keys, descriptors: Descriptors, longest: int = LONGEST_MESSAGE) -> None:
        self._descriptors, self._longest = descriptors, longest
        self._allowed = frozenset({z85.decode(keys.client_public)})
        self._context = zmq.Context()
        self._door = self._context.socket(zmq.REP)
        self._door.bind(DOOR)  # before the router, or it would let in everybody who knows the server's key
        self._router = self._new_router(keys)
        self._monitor = self._router.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._links: dict[bytes, TcpLink] = {}
        self._connections: dict[int, TcpLink | None] = {}  # by ZeroMQ's descriptor
        self._too_many: set[int] = set()
        self._draining = False
        try:
            self._router.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigurationError(f"nothing can listen at {address}: {error}") from error
        descriptors.measure()  # ZeroMQ has a dozen of its own
        self.endpoint: str = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._port = int(self.endpoint.rpartition(":")[2])

    def _new_router(self, keys: Keys) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0), (zmq.ROUTER_MANDATORY, 1), (zmq.SNDHWM, UNREAD), (zmq.RCVHWM, AHEAD),
            (zmq.MAXMSGSIZE, self._longest), (zmq.HANDSHAKE_IVL, HANDSHAKE_MS), (zmq.BACKLOG, 1024),
            (zmq.HEARTBEAT_IVL, 10_000), (zmq.HEARTBEAT_TIMEOUT, 30_000), (zmq.CURVE_SERVER, 1),
        ):  # fmt: skip
            router.setsockopt(option, value)
        router.setsockopt(zmq.CURVE_SECRETKEY, keys.server_secret.encode())
        router.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        return router

    def open(self, loop: Loop) -> None:
        """Begin to accept messages."""
        self._loop = loop
        work = ((self._door, self._open_door), (self._monitor, self._notice), (self._router, self._drain))
        for each, act in work:
            descriptor = int(each.getsockopt(zmq.FD))
            loop.watch(descriptor, EVENT_READ, _ignoring_mask(act))
            loop.soon(act)  # the descriptor tells of changes only, and something may have come already

    def close(self) -> None:
        """Close every connection and stop listening; may be called twice."""
        if self._router.closed:
            return
        self._router.disable_monitor()
        self._monitor.close(linger=0)
        self._router.close(linger=200)
        self._door.close(linger=0)
        self._context.term()

    def transmit(self, link: TcpLink, parts: Sequence[Frame]) -> bool:
        """Send to one peer; False if it is gone or leaves too much unread."""
        check(parts, self._longest)
        try:
            self._router.send_multipart([link.identity, *parts], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            log.warning("a client left %d replies unread; it is given up", UNREAD)
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return False
            raise
        finally:
            self._drain_soon()  # sending may have swallowed the sign that something came
        return True

    def over(self, link: TcpLink) -> None:
        """A link has closed itself. Its connection stays, unheard, until its client hangs up."""
        self._loop.gone(link)

    # The door

    def _open_door(self) -> None:
        while int(self._door.EVENTS) & zmq.POLLIN:
            version, number, *asked = self._door.recv_multipart()
            known = len(asked) == 5 and asked[3] == b"CURVE" and asked[0] == DOMAIN and asked[4] in self._allowed
            code, text = (b"200", b"OK") if known else (b"400", b"not a key of this run")
            self._door.send_multipart([version, number, code, text, b"", b""])

    # Who comes and goes

    def _notice(self) -> None:
        while int(self._monitor.EVENTS) & zmq.POLLIN:
            event = parse_monitor_message(self._monitor.recv_multipart())
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._came(event["value"])
            else:
                self._went(event["value"])

    def _came(self, descriptor: int) -> None:
        if self._descriptors.full():
            self._too_many.add(descriptor)
        self._connections[descriptor] = None
        self._descriptors.used += 1
        if self._descriptors.used > self._descriptors.most + self._descriptors.reserve // 2:
            self._hang_up(descriptor)

    def _went(self, descriptor: int) -> None:
        if descriptor not in self._connections:
            return
        link = self._connections.pop(descriptor)
        self._too_many.discard(descriptor)
        self._descriptors.used -= 1
        if link is not None:
            self._links.pop(link.identity, None)
            link.close()

    def _hang_up(self, descriptor: int) -> None:
        """End a connection that is too many even for a sentence. ZeroMQ can't: to unbind would end those of all peers.

        The descriptor is ZeroMQ's and stays so. Should it have been closed and have become something else in the
        meantime, then that has not our port and is let be.
        """
        try:
            connection = socket.socket(fileno=descriptor)
        except OSError:
            return
        try:
            if connection.getsockname()[1] == self._port:
                connection.shutdown(socket.SHUT_RDWR)
        except (OSError, IndexError):
            return  # it is gone already
        finally:
            connection.detach()

    # Messages

    def _drain(self) -> None:
        self._draining = False
        for _ in range(TURN):
            if not int(self._router.EVENTS) & zmq.POLLIN:
                return
            identity, *frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            self._take(identity.bytes, frames)
        self._drain_soon()

    def _drain_soon(self) -> None:
        if not self._draining:
            self._draining = True
            self._loop.soon(self._drain)

    def _take(self, identity: bytes, frames: Sequence[zmq.Frame]) -> None:
        descriptor = int(frames[0].get(zmq.SRCFD)) if frames else -1
        link = self._links.get(identity)
        if link is None or link.descriptor != descriptor:
            link = self._new_link(identity, descriptor)
        if not link.alive():
            return
        if descriptor in self._too_many:
            self._refuse(link, ConfigurationError(self._descriptors.refusal()))
            return
        parts: list[Frame] = [frame.bytes for frame in frames]
        try:
            check(parts, self._longest)
        except ProtocolError as error:
            self._refuse(link, error)
            return
        self._loop.received(link, parts)

    def _new_link(self, identity: bytes, descriptor: int) -> TcpLink:
        """A link for a peer that has not spoken before. What the monitor says of the descriptor's earlier life is
        older than the message, so it is heard first."""
        self._notice()
        before = self._links.get(identity)
        if before is not None:
            before.close()
        link = TcpLink(self._loop.new_key(), identity, descriptor, self)
        self._links[identity] = link
        if descriptor in self._connections:
            self._connections[descriptor] = link
        return link

    def _refuse(self, link: TcpLink, error: ConfigurationError | ProtocolError) -> None:
        link.send(refusal(error))
        link.close()


class TcpLink:
    """One peer of the router, from its first message on."""

    __slots__ = ("_listener", "_open", "descriptor", "identity", "key")

    def __init__(self, key: int, identity: bytes, descriptor: int, listener: TcpListener) -> None:
        self.key, self.identity, self.descriptor = key, identity, descriptor
        self._listener, self._open = listener, True

    def send(self, parts: Sequence[Frame]) -> bool:
        if self._open and not self._listener.transmit(self, parts):
            self.close()
        return self._open

    def alive(self) -> bool:
        return self._open

    def close(self) -> None:
        if self._open:
            self._open = False
            self._listener.over(self)


def _ignoring_mask(act: Callable[[], Any]) -> Callable[[int], None]:
    return lambda _mask: act()
