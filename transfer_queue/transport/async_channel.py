"""A client's side of a connection, for asyncio. The deadline is the caller's: every wait here can be cancelled."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from transfer_queue.transport.address import Address
from transfer_queue.transport.channel import READ, RETRY_S, Lost, new_socket, try_connect
from transfer_queue.transport.framing import Decoder, Frame, framed

if TYPE_CHECKING:
    from transfer_queue.transport.async_tcp import AsyncTcpChannel


class AsyncChannel(Protocol):
    """One connection of one event loop. After an exception, cancellation included, it is only to be closed."""

    async def send(self, parts: Sequence[Frame]) -> None:
        """Send a message. A lost peer shows in `receive`."""

    async def receive(self) -> list[Frame]:
        """The next message; `Lost` if none will come."""

    def close(self) -> None:
        """Close it; may be called twice."""

    def abandon(self) -> None:
        """Let go of it in a forked child, without a trace on the parent's connection."""


async def async_channel_to(address: Address, longest: int) -> AsyncUnixChannel | AsyncTcpChannel:
    """A new connection; `Lost` if there is none."""
    if address.path is not None:
        return AsyncUnixChannel(await _unix_socket(address.path), longest)
    from transfer_queue.transport.async_tcp import connected

    return await connected(address, longest)


class AsyncUnixChannel:
    """A unix stream socket; the event loop tells when it can be read or written."""

    def __init__(self, connected: socket.socket, longest: int) -> None:
        self._socket, self._longest = connected, longest
        self._decoder = Decoder(longest)

    async def send(self, parts: Sequence[Frame]) -> None:
        loop = asyncio.get_running_loop()
        try:
            for buffer in framed(parts, self._longest):
                await loop.sock_sendall(self._socket, memoryview(buffer).cast("B"))
        except OSError:
            return  # `receive` finds what the peer said before it hung up

    async def receive(self) -> list[Frame]:
        while True:
            parts = self._decoder.take()
            if parts is not None:
                return parts
            await self._read()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            room = self._decoder.room()
            if room is None:
                data = await loop.sock_recv(self._socket, READ)
                count = len(data)
                self._decoder.feed(data)
            else:
                with room:
                    count = await loop.sock_recv_into(self._socket, room)
                self._decoder.filled(count)
        except OSError:
            count = 0
        if not count:
            raise Lost(nobody=False)

    def close(self) -> None:
        self._socket.close()

    def abandon(self) -> None:
        self._socket.close()  # the event loop's epoll is the parent's too, so nothing is unregistered


async def _unix_socket(path: str) -> socket.socket:
    connecting = new_socket()
    try:
        while not try_connect(connecting, path):
            await asyncio.sleep(RETRY_S)
    except BaseException:
        connecting.close()
        raise
    return connecting
