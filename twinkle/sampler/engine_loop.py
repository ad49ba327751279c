"""Many callers, one engine: a thread that owns the engine while there is work, and hands results to whom they belong.

Callers submit requests and wait for them; weights and adapters are changed between two steps. The thread begins with
the first call and ends when nothing came for a while, so that a sampler nobody refers to is not kept alive by it.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from twinkle.errors import SampleAbortedError, SamplerError, SampleTimeoutError, TwinkleError
from twinkle.sampler.engine import Engine
from twinkle.sampler.requests import Drawn, Request

IDLE_S = 2.0
CHANGE_TIMEOUT_S = 300.0
T = TypeVar("T")


class Call:
    """The requests of one caller: what has ended and was not fetched yet, and what is still to come."""

    def __init__(self, requests: Sequence[Request], changed: threading.Condition, on_end: Callable[[], None]) -> None:
        self.total = len(requests)
        self.pending = dict.fromkeys(requests)
        self.ended: deque[tuple[Request, Drawn]] = deque()
        self.error: TwinkleError | None = None
        self.changed = changed
        self.awaited = 1  # how many have to have ended before whoever waits is woken
        self._on_end = on_end

    def take(self, request: Request, outcome: Drawn | TwinkleError) -> None:
        """Note the end of one request."""
        if isinstance(outcome, TwinkleError):
            self.error = self.error or outcome
        else:
            self.ended.append((request, outcome))
        self.forget(request)
        if self.ready:
            self.changed.notify()

    @property
    def ready(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.error is not None or len(self.ended) >= self.awaited or not self.pending

    def forget(self, request: Request) -> None:
        """The engine no longer works on a request; behind the last one the call's weights are free."""
        if request in self.pending:
            del self.pending[request]
            if not self.pending:
                self._on_end()


class _Change:
    """Something to do between two steps; ``drained``: not before every earlier call has ended."""

    def __init__(self, act: Callable[[], None], drained: bool) -> None:
        self.act = act
        self.drained = drained
        self.done = False
        self.error: BaseException | None = None


class EngineLoop:
    """Runs an engine for any number of threads. ``name`` is what errors call it."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._changed = threading.Condition(self._lock)
        self._queue: deque[Call | _Change] = deque()
        self._changes: deque[_Change] = deque()
        self._calls: dict[Call, None] = {}
        self._owners: dict[Request, Call] = {}
        self._drops: list[Request] = []
        self._thread: threading.Thread | None = None
        self._stepping = False
        self._asleep = False
        self._closed = False

    def submit(self, requests: Sequence[Request], on_end: Callable[[], None]) -> Call:
        """Let the engine serve these; ``on_end`` is called once, when it has nothing more to do with them."""
        with self._lock:
            self._require_open()
            call = Call(requests, threading.Condition(self._lock), on_end)
            self._calls[call] = None
            self._owners |= dict.fromkeys(requests, call)
            self._queue.append(call)
            self._wake_thread()
            return call

    def next(self, call: Call, deadline: float | None) -> tuple[Request, Drawn] | None:
        """The next request of a call that has ended; None after the last.

        Raises what ended the call: SampleTimeoutError at the deadline (of time.monotonic), SampleAbortedError, or the
        error of the engine. Nothing of the call is left in the engine then.
        """
        with self._lock:
            self._wait(call, 1, deadline)
            if call.ended:
                return call.ended.popleft()
            self._calls.pop(call, None)
            return None

    def results(self, call: Call, deadline: float | None) -> list[tuple[Request, Drawn]]:
        """All requests of a call in the order of their ends, of which none was fetched yet; raises as ``next``."""
        with self._lock:
            self._wait(call, call.total, deadline)
            self._calls.pop(call, None)
            return list(call.ended)

    def _wait(self, call: Call, count: int, deadline: float | None) -> None:
        """Until so many have ended, or all that were left; raises what ended the call."""
        call.awaited = count
        while not call.ready:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                done = call.total - len(call.pending)
                call.error = SampleTimeoutError(
                    f"{done} of {call.total} sequences were done when timeout_s was over; the rest was aborted: "
                    "give more time, fewer prompts or a lower max_tokens"
                )
                break
            call.changed.wait(left)
        if call.error is not None:
            self.cancel(call)
            raise call.error

    def cancel(self, call: Call) -> None:
        """Take a call out of the engine, whatever has become of it."""
        with self._lock:
            self._calls.pop(call, None)
            if call in self._queue:
                self._queue.remove(call)
                self._settle(list(call.pending))
            elif call.pending:
                self._drops += call.pending
                self._wake_thread()

    def abort(self, why: str = "abort() was called") -> None:
        """End every call in flight with SampleAbortedError."""
        with self._lock:
            for call in list(self._calls):
                done = call.total - len(call.pending)
                call.error = call.error or SampleAbortedError(
                    f"{why} when {done} of {call.total} sequences were done; ask again for the others"
                )
                self.cancel(call)
                call.changed.notify_all()

    def change(self, act: Callable[[], T], *, drained: bool = False) -> T:
        """The result of ``act``, called between two steps; ``drained``: when every earlier call has ended, and before
        any later one begins.

        Raises what ``act`` raises, and SamplerError when its turn does not come within 300 s.
        """
        results: list[T] = []
        with self._lock:
            self._require_open()
            if not (self._stepping or self._engine.busy or self._queue or self._changes):
                return act()
            change = _Change(lambda: results.append(act()), drained)
            (self._queue if drained else self._changes).append(change)
            self._wake_thread()
            if not self._changed.wait_for(lambda: change.done or self._closed, CHANGE_TIMEOUT_S):
                change.act = _nothing
                raise SamplerError(
                    f"{self._name} waited {CHANGE_TIMEOUT_S:.0f} s to change its weights behind the "
                    f"{len(self._calls)} calls in flight; abort() them, or lower max_tokens"
                )
        if change.error is not None:
            raise change.error
        if not results:
            raise SampleAbortedError(f"this {self._name} was closed before its weights could be changed")
        return results[0]

    def sleep(self, act: Callable[[], None]) -> None:
        """``act`` behind every earlier call; later ones wait until ``wake``."""

        def fall_asleep() -> None:
            act()
            self._asleep = True

        if not self._asleep:
            self.change(fall_asleep, drained=True)

    def wake(self, act: Callable[[], None]) -> None:
        """``act``, and serve what waited; nothing when awake."""
        with self._lock:
            self._require_open()
            if self._asleep:
                act()
                self._asleep = False
                self._wake_thread()

    def close(self) -> None:
        """Abort what is in flight and let the thread end; later calls are refused."""
        with self._lock:
            if not self._closed:
                self.abort(f"the {self._name} was closed")
                self._closed = True
            thread = self._thread
            self._work.notify_all()
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CHANGE_TIMEOUT_S)

    def _require_open(self) -> None:
        if self._closed:
            raise SampleAbortedError(f"this {self._name} is closed; make a new one")

    def _wake_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._work.notify()

    def _has_work(self) -> bool:
        queued = bool(self._queue) and not self._asleep
        return bool(queued or self._drops or self._changes or self._engine.busy)

    def _run(self) -> None:
        while self._take_up():
            try:
                ended = self._engine.step() if self._engine.busy else []
            except Exception as error:  # noqa: BLE001 - whatever broke the step is told to every caller in it
                self._fail(error)
                continue
            if ended:
                self._deliver(ended)

    def _take_up(self) -> bool:
        """Wait for work and take up what is new; whether the thread goes on."""
        with self._lock:
            self._stepping = False
            while not self._has_work():
                if self._closed or not (self._work.wait(IDLE_S) or self._has_work()):
                    self._thread = None
                    return False
            self._stepping = True
            drops, self._drops = self._drops, []
            if drops:
                self._engine.drop(drops)
                self._settle(drops)
            while self._changes:
                self._perform(self._changes.popleft())
            self._take_queue()
            return True

    def _take_queue(self) -> None:
        while self._queue and not self._asleep:
            first = self._queue[0]
            if isinstance(first, _Change):
                if self._engine.busy:
                    return
                self._queue.popleft()
                self._perform(first)
            else:
                self._queue.popleft()
                self._engine.add(list(first.pending))

    def _perform(self, change: _Change) -> None:
        try:
            change.act()
        except BaseException as error:  # noqa: BLE001 - it is raised where the change was asked for
            change.error = error
        change.done = True
        self._changed.notify_all()

    def _deliver(self, ended: Sequence[tuple[Request, Drawn | TwinkleError]]) -> None:
        with self._lock:
            for request, outcome in ended:
                owner = self._owners.pop(request, None)
                if owner is not None:
                    owner.take(request, outcome)

    def _settle(self, requests: Sequence[Request]) -> None:
        for request in requests:
            owner = self._owners.pop(request, None)
            if owner is not None:
                owner.forget(request)

    def _fail(self, error: Exception) -> None:
        """End every request in the engine: what is left of the batch cannot be trusted."""
        with self._lock:
            queued = {request for call in self._queue if isinstance(call, Call) for request in call.pending}
            inside = [request for request in self._owners if request not in queued]
            self._engine.drop(inside)
            for request in inside:
                owner = self._owners.pop(request)
                owner.take(request, _told(self._name, error))


def _told(name: str, error: Exception) -> TwinkleError:
    if isinstance(error, TwinkleError):
        return error
    told = SamplerError(
        f"a step of the {name} failed, and every sequence in it with it: {type(error).__name__}: {error}"
    )
    told.__cause__ = error
    return told


def _nothing() -> None:
    """What a change does that is no longer wanted."""
