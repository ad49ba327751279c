"""A client's side over TCP, for asyncio."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import zmq
import zmq.asyncio

from transfer_queue.transport.address import Address
from transfer_queue.transport.framing import Frame, check
from transfer_queue.transport.tcp_client import close, dealer, verdict


async def connected(address: Address, longest: int) -> AsyncTcpChannel:
    """A channel whose handshake has succeeded."""
    context: zmq.asyncio.Context = zmq.asyncio.Context.shadow(zmq.Context.instance())
    channel = AsyncTcpChannel(address.endpoint, *dealer(context, address), longest)
    try:
        await channel.shake_hands()
    except BaseException:
        channel.close()
        raise
    return channel


class AsyncTcpChannel:
    """A DEALER and its monitor, both asyncio sockets."""

    def __init__(self, endpoint: str, made: Any, monitor: Any, longest: int) -> None:
        self._endpoint, self._socket, self._monitor, self._longest = endpoint, made, monitor, longest
        self._poller = zmq.asyncio.Poller()
        self._poller.register(made, zmq.POLLIN)
        self._poller.register(monitor, zmq.POLLIN)

    async def shake_hands(self) -> None:
        """Wait until the server has let this client in; `Lost` or `ConfigurationError` if it does not."""
        verdict(self._endpoint, await self._monitor.recv_multipart(), connected=False)

    async def send(self, parts: Sequence[Frame]) -> None:
        check(parts, self._longest)
        with contextlib.suppress(zmq.Again):  # it says so when the peer is gone; `receive` tells
            await self._socket.send_multipart(parts, zmq.NOBLOCK, copy=False)

    async def receive(self) -> list[Frame]:
        while True:
            events = dict(await self._poller.poll())
            if self._socket in events:
                return list(await self._socket.recv_multipart())
            verdict(self._endpoint, await self._monitor.recv_multipart(), connected=True)

    def close(self) -> None:
        close(self._socket, self._monitor)

    def abandon(self) -> None:
        """Nothing is to be done: pyzmq leaves sockets of another process alone."""
