"""The loop of the controller: one thread that waits for connections, messages, posted work and deadlines."""

from __future__ import annotations

import functools
import heapq
import itertools
import logging
import os
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from transfer_queue.transport.framing import Frame
from transfer_queue.transport.link import Link, Listener, Post, Receiver

log = logging.getLogger(__name__)

TICK_S = 1.0
"""The longest sleep of the loop: how soon a controller notices by itself that it is not wanted any more."""
BURST = 256
"""Messages handed over between two calls of `settle`."""
SHORTEST_SLEEP_S = 0.001
"""After a tick that left its deadline in the past: whatever is wrong there must not keep a core busy."""

ReceiverT = TypeVar("ReceiverT", bound=Receiver)


class Server(Generic[ReceiverT]):
    """Hands messages to its receiver until `stop`. Only `run`'s thread touches the receiver; others use `submit`."""

    def __init__(self, make_receiver: Callable[[Post], ReceiverT], listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        self._selector = selectors.DefaultSelector()
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        self._stopping = threading.Event()
        self._keys = itertools.count(1)
        self._order = itertools.count()
        self._soon: list[Callable[[], None]] = []
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._gone: list[Link] = []
        self._unsettled = 0
        self._tick_at = 0.0
        self.receiver = make_receiver(self.post)

    def run(self, watched: int | None = None, still_wanted: Callable[[], bool] = lambda: True) -> None:
        """Serve until `stop`, until the file descriptor `watched` is closed at its other end, or while wanted."""

        def heard(_: int) -> None:
            assert watched is not None
            if not os.read(watched, 4096):
                self._stopping.set()

        try:
            self.watch(self._wake.fileno(), selectors.EVENT_READ, self._woken)
            if watched is not None:
                self.watch(watched, selectors.EVENT_READ, heard)
            for listener in self._listeners:
                listener.open(self)
            while not self._stopping.is_set():
                self._round(self._tick_and_plan(still_wanted))
        finally:
            self._close()

    def stop(self) -> None:
        """Let `run` return soon; may be called from any thread and from a signal handler."""
        self._stopping.set()
        self._rouse()

    def post(self, work: Callable[[], None]) -> None:
        """Run `work` in the loop; may be called from any thread."""
        self._posted.put(work)
        self._rouse()

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

    # What listeners use (`transport.link.Loop`)

    def watch(self, descriptor: int, mask: int, ready: Callable[[int], None]) -> None:
        """Call `ready` with the mask of what happened; `watch` again to change the mask or who is called."""
        if descriptor in self._selector.get_map():
            self._selector.modify(descriptor, mask, ready)
        else:
            self._selector.register(descriptor, mask, ready)

    def unwatch(self, descriptor: int) -> None:
        """Forget the descriptor; before it is closed."""
        if descriptor in self._selector.get_map():
            self._selector.unregister(descriptor)

    def received(self, link: Link, parts: list[Frame]) -> None:
        """Hand a message to the receiver."""
        self._unsettled += 1
        try:
            self.receiver.received(link, parts)
        except Exception:
            log.exception("a message could not be handled; its connection is closed")
            link.close()
        if self._unsettled >= BURST:
            self._settle()

    def gone(self, link: Link) -> None:
        """Tell the receiver that the link is over, after the work at hand."""
        self._gone.append(link)

    def soon(self, work: Callable[[], None]) -> None:
        """Do this in the next round, which comes without a sleep, after what others have to do."""
        self._soon.append(work)

    def later(self, at: float, work: Callable[[], None]) -> None:
        """Do this at that time, on `time.monotonic`."""
        heapq.heappush(self._later, (at, next(self._order), work))

    def new_key(self) -> int:
        """A key for a new link."""
        return next(self._keys)

    # One round

    def _tick_and_plan(self, still_wanted: Callable[[], bool]) -> float:
        """Tick if it is time to; then how long the loop may sleep."""
        now = time.monotonic()
        due = self.receiver.next_deadline()
        if now >= self._tick_at or (due is not None and due <= now):
            self._tick_at = now + TICK_S
            self._guarded(self.receiver.tick)
            self._settle()
            self._finish()
            if not still_wanted():
                self._stopping.set()
            due = self.receiver.next_deadline()
            due = due if due is None else max(due, now + SHORTEST_SLEEP_S)
        wake = self._tick_at if due is None else min(due, self._tick_at)
        if self._later:
            wake = min(wake, self._later[0][0])
        return 0.0 if self._soon or self._stopping.is_set() else max(0.0, wake - now)

    def _round(self, sleep_s: float) -> None:
        turn, self._soon = self._soon, []
        for key, mask in self._selector.select(sleep_s):
            try:
                key.data(mask)
            except Exception:
                log.exception("a connection or a listener failed")
        for work in turn:
            self._guarded(work)
        while self._later and self._later[0][0] <= time.monotonic():
            self._guarded(heapq.heappop(self._later)[2])
        if self._unsettled:
            self._settle()
        if self._gone:
            self._finish()

    def _finish(self) -> None:
        """Tell the receiver who is gone; what it does then may find others gone."""
        while self._gone:
            over, self._gone = self._gone, []
            for link in over:
                self._guarded(functools.partial(self.receiver.gone, link))
            self._settle()

    def _settle(self) -> None:
        self._unsettled = 0
        self._guarded(self.receiver.settle)

    def _rouse(self) -> None:
        try:
            self._waker.send(b"w")
        except OSError:
            return  # so much was sent that the loop will wake anyway, or the loop has ended

    def _woken(self, _: int) -> None:
        self._wake.recv(65536)
        self._unsettled += 1
        while not self._posted.empty():
            self._guarded(self._posted.get())

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            log.exception("work that no caller waits for failed")

    def _close(self) -> None:
        for listener in self._listeners:
            self._guarded(listener.close)
        self._selector.close()
        self._wake.close()
        self._waker.close()
