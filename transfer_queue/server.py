"""The loop of the controller: one ROUTER socket, one thread, and around it whatever can wake it."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import zmq

from transfer_queue import wire
from transfer_queue.ledger import Ledger, QueueShape
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.service import Service
from transfer_queue.waiting import Caller

log = logging.getLogger(__name__)

TICK_S = 1.0
"""The longest sleep of the loop: how soon a controller notices by itself that it is not wanted any more."""
BURST = 256
"""Requests carried out between two looks at deadlines."""


class Server:
    """Answers requests on `endpoint` until `stop`. Only `run`'s thread touches the service; others use `submit`."""

    def __init__(
        self, shape: QueueShape, registry: SamplerRegistry, endpoint: str, *, sampler_timeout_s: float = 30.0
    ) -> None:
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        for option in (zmq.SNDHWM, zmq.RCVHWM, zmq.LINGER):
            self._router.setsockopt(option, 0)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.bind(endpoint)
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._stopping = threading.Event()
        ledger = Ledger(shape, time.monotonic)
        self.service = Service(ledger, registry, self._send, self.post, sampler_timeout_s)

    def run(self, watched: int | None = None, still_wanted: Callable[[], bool] = lambda: True) -> None:
        """Serve until `stop`, until the file descriptor `watched` is closed at its other end, or while wanted."""
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._wake_read, zmq.POLLIN)
        if watched is not None:
            poller.register(watched, zmq.POLLIN)
        try:
            while not self._stopping.is_set():
                events = dict(poller.poll(self._sleep_ms()))
                if self._wake_read in events:
                    os.read(self._wake_read, 65536)
                    self._run_posted()
                if self._router in events:
                    self._drain()
                if watched is not None and watched in events and not os.read(watched, 4096):
                    return
                self._guarded(self.service.tick)
                if not still_wanted():
                    return
        finally:
            self._router.close(linger=200)
            self._context.term()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def stop(self) -> None:
        """Let `run` return soon; may be called from any thread and from a signal handler."""
        self._stopping.set()
        self._wake()

    def post(self, work: Callable[[], None]) -> None:
        """Run `work` in the loop; may be called from any thread."""
        self._posted.put(work)
        self._wake()

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Run `work` in the loop and keep what it returns or raises."""
        result: Future[Any] = Future()

        def carry_out() -> None:
            try:
                result.set_result(work())
            except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
                result.set_exception(error)

        self.post(carry_out)
        return result

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"w")
        except (BlockingIOError, OSError):
            return  # the pipe is full, so the loop will wake anyway, or the loop has ended

    def _run_posted(self) -> None:
        while not self._posted.empty():
            self._guarded(self._posted.get())

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            log.exception("work that no caller waits for failed")

    def _sleep_ms(self) -> int:
        deadline = self.service.next_deadline()
        if deadline is None:
            return int(TICK_S * 1000)
        return int(1000 * min(TICK_S, max(0.0, deadline - time.monotonic()))) + 1

    def _drain(self) -> None:
        for _ in range(BURST):
            if not int(self._router.EVENTS) & zmq.POLLIN:
                return
            identity, *frames = self._router.recv_multipart(zmq.NOBLOCK)
            self.service.handle(identity, frames)

    def _send(self, caller: Caller, body: wire.ReplyBody, frames: Sequence[wire.Frame]) -> bool:
        header = wire.encode(wire.Reply(caller.sequence, body))
        try:
            self._router.send_multipart([caller.identity, header, *frames], copy=False)
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return False
            raise
        return True
