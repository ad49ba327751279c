"""A client's side over TCP: a DEALER with the keys of the run, and its monitor, which says when the peer is gone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from transfer_queue.errors import ConfigurationError
from transfer_queue.transport.address import Address
from transfer_queue.transport.channel import LONGEST_SLEEP_S, Late, Lost
from transfer_queue.transport.framing import Frame, check

WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)


def dealer(context: zmq.Context[Any], address: Address) -> tuple[Any, Any]:
    """A socket that is connecting, and its monitor; of the kind that the context makes, blocking or asyncio."""
    assert address.keys is not None
    made = context.socket(zmq.DEALER)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.SNDHWM, 0)
    made.setsockopt(zmq.RCVHWM, 0)
    made.setsockopt(zmq.RECONNECT_IVL, -1)  # who is lost is told; nothing is sent twice behind our back
    made.setsockopt(zmq.TCP_KEEPALIVE, 1)
    made.setsockopt(zmq.HEARTBEAT_IVL, 10_000)
    made.setsockopt(zmq.HEARTBEAT_TIMEOUT, 30_000)
    made.setsockopt(zmq.CURVE_SERVERKEY, address.keys.server_public.encode())
    made.setsockopt(zmq.CURVE_PUBLICKEY, address.keys.client_public.encode())
    made.setsockopt(zmq.CURVE_SECRETKEY, address.keys.client_secret.encode())
    monitor = made.get_monitor_socket(WATCHED)
    try:
        made.connect(address.endpoint)
    except zmq.ZMQError as error:
        close(made, monitor)
        raise ConfigurationError(f"{address.endpoint} is no address that a client can connect to: {error}") from error
    return made, monitor


def close(made: Any, monitor: Any) -> None:
    """Close both; may be called twice."""
    if not made.closed:
        made.disable_monitor()
        monitor.close(linger=0)
        made.close(linger=0)


def verdict(endpoint: str, message: Sequence[bytes], *, connected: bool) -> bool:
    """True once the handshake has succeeded; `Lost` if the connection is over, or its keys were refused."""
    event = parse_monitor_message(list(message))["event"]
    if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
        return True
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        raise ConfigurationError(
            f"the controller at {endpoint} does not know the key in controller_info: it is of another run; "
            "get a new one with controller.get_info()"
        )
    raise Lost(nobody=not connected)


class TcpChannel:
    """Sending never waits: ZeroMQ takes what it is given, and `receive` has the deadline."""

    def __init__(self, address: Address, deadline: float, longest: int) -> None:
        self._endpoint, self._longest = address.endpoint, longest
        self._socket, self._monitor = dealer(zmq.Context.instance(), address)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        try:
            if not self._monitor.poll(max(0, int(1000 * (deadline - time.monotonic())))):
                raise Lost(nobody=True)
            verdict(self._endpoint, self._monitor.recv_multipart(), connected=False)
        except BaseException:
            self.close()
            raise

    def send(self, parts: Sequence[Frame], deadline: float) -> None:
        check(parts, self._longest)
        with contextlib.suppress(zmq.Again):  # it says so when the peer is gone; `receive` tells
            self._socket.send_multipart(parts, zmq.NOBLOCK, copy=False)

    def receive(self, deadline: float) -> list[Frame]:
        while True:
            left = deadline - time.monotonic()
            events = dict(self._poller.poll(int(1000 * min(max(left, 0.0), LONGEST_SLEEP_S)) + 1))
            if self._socket in events:
                return list(self._socket.recv_multipart())
            if self._monitor in events:
                verdict(self._endpoint, self._monitor.recv_multipart(), connected=True)
            elif left <= 0:
                raise Late

    def close(self) -> None:
        close(self._socket, self._monitor)

    def abandon(self) -> None:
        """Nothing is to be done: pyzmq leaves sockets of another process alone."""
