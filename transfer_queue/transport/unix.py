"""The server's side on one machine: a unix stream socket, and a link for each connection."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Sequence
from selectors import EVENT_READ, EVENT_WRITE

from transfer_queue.errors import ConfigurationError, ProtocolError
from transfer_queue.transport.descriptors import EXHAUSTED, Descriptors
from transfer_queue.transport.framing import IN_KERNEL, LONGEST_MESSAGE, Decoder, Frame, framed
from transfer_queue.transport.link import Loop, refusal
from transfer_queue.transport.outbox import Outbox

log = logging.getLogger(__name__)

READ = 64 << 10
TURN = 32
"""Messages that one connection may bring before it is the others' turn."""
BACKLOG = 4096
ACCEPTS = 64
"""Connections accepted before it is the others' turn."""
UNREAD = 64 << 20
"""Replies that wait for a peer that does not read; one more and its connection is closed."""
PAUSE_S = 0.1
"""How long nobody is accepted when there is not even a descriptor to refuse with."""


class UnixListener:
    """Listens at `path`; a socket that nobody serves any more is replaced, one that somebody serves is an error."""

    def __init__(self, path: str, descriptors: Descriptors, longest: int = LONGEST_MESSAGE) -> None:
        self._descriptors, self._longest = descriptors, longest
        self._links: set[UnixLink] = set()
        self._socket = _bound(path)
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def open(self, loop: Loop) -> None:
        """Begin to accept connections."""
        self._loop = loop
        loop.watch(self._socket.fileno(), EVENT_READ, self._accept)

    def close(self) -> None:
        """Close every connection and stop listening; the socket file stays, for it may be a successor's."""
        for link in list(self._links):
            link.close()
        self._socket.close()
        self._close_spare()

    def forget(self, link: UnixLink) -> None:
        """A link has closed itself."""
        self._links.discard(link)
        self._descriptors.used -= 1
        self._loop.gone(link)

    def _accept(self, _: int) -> None:
        for _attempt in range(ACCEPTS):
            try:
                peer, _address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in EXHAUSTED or not self._refuse_with_spare():
                    return
                continue
            self._welcome(peer)

    def _welcome(self, peer: socket.socket) -> None:
        if not is_ours(uid_of(peer)):
            peer.close()
        elif self._descriptors.full():
            self._refuse(peer)
        else:
            peer.setblocking(False)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IN_KERNEL)
            self._descriptors.used += 1
            self._links.add(UnixLink(peer, self._loop, self, self._longest))

    def _refuse(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):  # it may have given up already
            peer.setblocking(False)
            peer.send(framed(refusal(ConfigurationError(self._descriptors.refusal())))[0])

    def _refuse_with_spare(self) -> bool:
        """Use the descriptor kept for this to refuse whoever is first in line; False if even that is impossible."""
        self._close_spare()
        try:
            self._refuse(self._socket.accept()[0])
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._loop.unwatch(self._socket.fileno())
            self._loop.later(time.monotonic() + PAUSE_S, self._resume)
        return self._spare >= 0

    def _resume(self) -> None:
        if self._socket.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._loop.watch(self._socket.fileno(), EVENT_READ, self._accept)

    def _close_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
        self._spare = -1


class UnixLink:
    """One connection. What the kernel does not take at once waits in its own outbox."""

    __slots__ = ("_behind", "_decoder", "_listener", "_longest", "_loop", "_outbox", "_recv", "_send", "_socket", "key")

    def __init__(self, peer: socket.socket, loop: Loop, listener: UnixListener, longest: int) -> None:
        self.key = loop.new_key()
        self._socket: socket.socket | None = peer
        self._recv, self._send = peer.recv, peer.send
        self._loop, self._listener, self._longest = loop, listener, longest
        self._decoder, self._outbox = Decoder(longest), Outbox()
        self._behind = False  # messages that have come wait for this link's next turn
        loop.watch(peer.fileno(), EVENT_READ, self._ready)

    def alive(self) -> bool:
        return self._socket is not None

    def close(self) -> None:
        if self._socket is None:
            return
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._socket = None
        self._listener.forget(self)

    def send(self, parts: Sequence[Frame]) -> bool:
        if self._socket is None:
            return False
        buffers = framed(parts, self._longest)
        if self._outbox:
            return self._keep(buffers, 0)
        first = buffers[0]
        try:
            if len(buffers) == 1:
                sent = self._send(first)
                whole = sent == len(first)
            else:
                sent = self._socket.sendmsg(buffers)
                whole = sent == sum(memoryview(buffer).nbytes for buffer in buffers)
        except BlockingIOError:
            return self._keep(buffers, 0)
        except OSError:
            self.close()
            return False
        return whole or self._keep(buffers, sent)

    def _keep(self, buffers: Sequence[Frame], sent: int) -> bool:
        """Let the rest wait until the peer reads; not for ever, and not without a bound."""
        assert self._socket is not None
        if self._outbox.cost > UNREAD:
            log.warning("a client left %d bytes of replies unread; its connection is closed", self._outbox.cost)
            self.close()
            return False
        if not self._outbox:
            self._loop.watch(self._socket.fileno(), EVENT_READ | EVENT_WRITE, self._ready)
        self._outbox.add(buffers, sent)
        return True

    def _ready(self, mask: int) -> None:
        if mask & EVENT_READ and not self._behind:
            self._read()
        if mask & EVENT_WRITE:
            self._flush()

    def _flush(self) -> None:
        if self._socket is None or not self._outbox:
            return
        try:
            self._outbox.sent(self._socket.sendmsg(self._outbox.first()))
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not self._outbox:
            self._loop.watch(self._socket.fileno(), EVENT_READ, self._ready)

    def _read(self) -> None:
        """One call to the kernel, however much there is: the others come next."""
        if self._socket is None:
            return
        decoder = self._decoder
        try:
            room = decoder.room()
            if room is None:
                data = self._recv(READ)
                count = len(data)
                decoder.feed(data)
            else:
                with room:
                    count = self._socket.recv_into(room)
                decoder.filled(count)
        except BlockingIOError:
            return
        except (OSError, MemoryError):
            count = 0
        if count:
            self._deliver()
        else:
            self.close()

    def _deliver(self) -> None:
        """Hand on what is complete, at most TURN messages."""
        self._behind = False
        for _ in range(TURN):
            try:
                parts = self._decoder.take()
            except (ProtocolError, MemoryError) as error:
                self._refuse(error)
                return
            if parts is None:
                return
            self._loop.received(self, parts)
            if self._socket is None:
                return
        self._behind = True
        self._loop.soon(self._deliver)

    def _refuse(self, error: Exception) -> None:
        self.send(refusal(ProtocolError(str(error) or "no memory for a message of that size")))
        self.close()


def is_ours(uid: int | None) -> bool:
    """Whether a peer with that user id may speak; None where the system does not tell."""
    return uid is None or uid in (0, os.getuid())


def uid_of(peer: socket.socket) -> int | None:
    """The user at the other end, as the kernel vouches for it; None where the system does not tell (macOS)."""
    if sys.platform != "linux":
        return None
    _, uid, _ = struct.unpack("iII", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def _bound(path: str) -> socket.socket:
    """A socket that listens at `path`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.setblocking(False)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"no socket can be made at {path}: {error}") from error
    except ConfigurationError:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """Remove the socket of a controller that has ended; `ConfigurationError` if one lives or it is something else."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError(f"{path} is in the way: a controller's socket should be there, and it is none")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its queue of newcomers is full, so somebody listens
    raise ConfigurationError(f"another controller listens at {path}: stop it first, or use another folder")
