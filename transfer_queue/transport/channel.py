"""A client's side of a connection, for code that blocks: send a message, receive one, each with a deadline."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from transfer_queue.errors import ConfigurationError
from transfer_queue.transport.address import Address
from transfer_queue.transport.descriptors import EXHAUSTED
from transfer_queue.transport.framing import IN_KERNEL, Decoder, Frame, framed
from transfer_queue.transport.outbox import Outbox

if TYPE_CHECKING:
    from transfer_queue.transport.tcp_client import TcpChannel

READ = 64 << 10
RETRY_S = 0.005
"""Between two tries to get into a controller's queue of newcomers, when that is full."""
LONGEST_SLEEP_S = 3600.0


class Late(Exception):
    """The deadline passed; a signal between channel and connection, not an error that anybody sees."""


class Lost(Exception):
    """Another such signal: the peer hung up (`nobody` False), or nobody listens there (True)."""

    def __init__(self, *, nobody: bool) -> None:
        super().__init__()
        self.nobody = nobody


class Channel(Protocol):
    """One connection. After an exception it is of no use but to be closed."""

    def send(self, parts: Sequence[Frame], deadline: float) -> None:
        """Send a message; `Late` if the peer does not take it in time. A lost peer shows in `receive`."""

    def receive(self, deadline: float) -> list[Frame]:
        """The next message; `Late` or `Lost` if none comes."""

    def close(self) -> None:
        """Close it; may be called twice."""

    def abandon(self) -> None:
        """Let go of it in a forked child, without a trace on the parent's connection."""


def channel_to(address: Address, deadline: float, longest: int) -> UnixChannel | TcpChannel:
    """A new connection; `Late` or `Lost` if there is none by the deadline."""
    if address.path is not None:
        return UnixChannel(unix_socket(address.path, deadline), longest)
    from transfer_queue.transport.tcp_client import TcpChannel

    return TcpChannel(address, deadline, longest)


class UnixChannel:
    """A unix stream socket that never blocks in the kernel; only `poll` waits."""

    def __init__(self, connected: socket.socket, longest: int) -> None:
        self._socket, self._longest = connected, longest
        self._decoder = Decoder(longest)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(connected, select.POLLIN)
        self._writable.register(connected, select.POLLOUT)

    def send(self, parts: Sequence[Frame], deadline: float) -> None:
        buffers = framed(parts, self._longest)
        try:
            if len(buffers) == 1:
                first = buffers[0]
                sent = self._socket.send(first)
                if sent == len(first):
                    return
            else:
                sent = self._socket.sendmsg(buffers)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # `receive` finds what the peer said before it hung up
        rest = Outbox()
        rest.add(buffers, sent)
        self._send_rest(rest, deadline)

    def _send_rest(self, rest: Outbox, deadline: float) -> None:
        while rest:
            self._wait(self._writable, deadline)
            try:
                rest.sent(self._socket.sendmsg(rest.first()))
            except BlockingIOError:
                continue
            except OSError:
                return

    def receive(self, deadline: float) -> list[Frame]:
        while True:
            parts = self._decoder.take()
            if parts is not None:
                return parts
            self._wait(self._readable, deadline)
            self._read()

    def _read(self) -> None:
        try:
            room = self._decoder.room()
            if room is None:
                data = self._socket.recv(READ)
                count = len(data)
                self._decoder.feed(data)
            else:
                with room:
                    count = self._socket.recv_into(room)
                self._decoder.filled(count)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            raise Lost(nobody=False)

    def _wait(self, poller: select.poll, deadline: float) -> None:
        left = deadline - time.monotonic()
        while not poller.poll(1000 * min(max(left, 0.0), LONGEST_SLEEP_S)):
            left = deadline - time.monotonic()
            if left <= 0:
                raise Late

    def close(self) -> None:
        self._socket.close()

    def abandon(self) -> None:
        self._socket.close()  # never shutdown: that would end the parent's connection too


def new_socket() -> socket.socket:
    """A unix socket that does not block; a sentence instead of EMFILE."""
    try:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise ConfigurationError(
                f"this process has no file descriptor left for a connection to the controller ({error}): close "
                "clients that are not needed, or raise the limit (ulimit -n)"
            ) from error
        raise
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IN_KERNEL)
    return made


def try_connect(connecting: socket.socket, path: str) -> bool:
    """Whether the socket is connected now; False if the controller's queue of newcomers is full, `Lost` if nobody
    listens."""
    try:
        connecting.connect(path)
    except BlockingIOError:
        return False
    except (ConnectionRefusedError, FileNotFoundError, NotADirectoryError) as error:
        raise Lost(nobody=True) from error
    except OSError as error:
        raise ConfigurationError(f"the socket {path} of the controller cannot be used: {error}") from error
    return True


def unix_socket(path: str, deadline: float) -> socket.socket:
    """A connected socket; `Lost` if nobody listens or lets it in by the deadline."""
    connecting = new_socket()
    try:
        while not try_connect(connecting, path):
            if time.monotonic() > deadline:
                raise Lost(nobody=True)
            time.sleep(RETRY_S)
    except BaseException:
        connecting.close()
        raise
    return connecting
