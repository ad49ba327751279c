"""One socket to the controller: a request, its reply, a deadline, and a controller that may die meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from transfer_queue import wire
from transfer_queue.errors import ConfigurationError, ControllerLostError, ControllerTimeoutError

CONNECT_S = 2.0
"""A controller on the same machine answers a connection in microseconds; after this nobody listens."""

LONGEST_SLEEP_S = 3600.0


class Connection:
    """Not thread safe; not usable again after an error."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self._endpoint, self._pid = endpoint, os.getpid()
        self._socket = context.socket(zmq.DEALER)
        for option in (zmq.SNDHWM, zmq.RCVHWM, zmq.LINGER):
            self._socket.setsockopt(option, 0)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._sequence = 0
        self._connected = False
        self._socket.connect(endpoint)

    def close(self) -> None:
        """Close the socket; not in a forked child, where it is the parent's."""
        if self._pid != os.getpid():
            return
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)

    def call(
        self, client: str, body: wire.Body, frames: Sequence[Any], timeout_s: float, waits_for: Callable[[], str]
    ) -> tuple[wire.ReplyBody, list[bytes]]:
        """The reply to this request; `ControllerTimeoutError` or `ControllerLostError` say what was waited for."""
        began = time.monotonic()
        deadline = began + timeout_s
        if not self._connected:
            self._connect(min(deadline, began + CONNECT_S))
        self._sequence += 1
        try:
            header = wire.encode(wire.Request(self._sequence, client, body))
        except (TypeError, OverflowError, UnicodeEncodeError) as error:
            raise ConfigurationError(f"{type(body).__name__} has an argument that cannot be sent: {error}") from error
        self._socket.send_multipart([header, *frames], copy=False)
        while True:
            left = deadline - time.monotonic()
            events = dict(self._poller.poll(int(1000 * min(max(left, 0.0), LONGEST_SLEEP_S)) + 1))
            if self._socket in events:
                reply, *values = self._socket.recv_multipart()
                answer = wire.decode_reply(reply)
                if answer.sequence in (self._sequence, 0):
                    return answer.body, values
            elif self._monitor in events:
                if recv_monitor_message(self._monitor)["event"] == zmq.EVENT_DISCONNECTED:
                    raise ControllerLostError(
                        f"the controller at {self._endpoint} went away while {waits_for()}: its process ended"
                    )
            elif left <= 0:
                raise ControllerTimeoutError(
                    f"the controller at {self._endpoint} did not answer for {time.monotonic() - began:.1f} s "
                    f"while {waits_for()}: it is alive but stuck or overloaded"
                )

    def _connect(self, deadline: float) -> None:
        while not self._connected:
            left = deadline - time.monotonic()
            if not self._monitor.poll(max(0, int(left * 1000))):
                raise ControllerLostError(
                    f"nobody listens at {self._endpoint}: the controller has ended, or its address is stale"
                )
            self._connected = recv_monitor_message(self._monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
