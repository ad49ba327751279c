"""Keeps a controller's process running: one with a journal comes back when it dies."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from transfer_queue.doors import TcpDoor
from transfer_queue.errors import ControllerLostError, TransferQueueError, rebuild
from transfer_queue.process import GAVE_UP, Orders

log = logging.getLogger("transfer_queue")

PROGRAM = "transfer_queue.process"
"""What a controller's process runs."""
START_S = 60.0
"""A controller is there in a fraction of a second; one whose samplers import torch takes some seconds."""
STOP_S = 5.0
RESTARTS, WITHIN_S = 5, 60.0
"""A controller that dies so often in so short a time is not brought back any more, unless it could not write."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
"""Between two tries to start it again: the pause doubles from the first to the longest."""


class Supervisor:
    """One controller process after the other, with the same orders. `restarts` counts those that were brought back."""

    def __init__(self, orders: Orders, *, restart: bool) -> None:
        self._orders = orders
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._restart, self._over = restart, threading.Event()
        self.restarts = 0
        answer = self._spawn()
        if orders.door is not None:
            door = msgspec.structs.replace(orders.door, address=answer["listens"])
            self._orders = msgspec.structs.replace(orders, door=door)
        if restart:
            threading.Thread(target=self._watch, name="transfer queue supervisor", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id of the controller that runs now."""
        return self.process.pid

    @property
    def door(self) -> TcpDoor | None:
        """Where the controller listens besides its unix socket."""
        return self._orders.door

    def stop(self) -> None:
        """End the process and bring no other; may be called twice."""
        self._stopping.set()
        with self._starting:
            end(self.process)

    def wait(self) -> int:
        """Return when no controller runs any more, nor will; the exit code of the last (negative: of a signal)."""
        if self._restart:
            self._over.wait()
        return self.process.wait()

    def _watch(self) -> None:
        try:
            self._bring_back()
        finally:
            self._over.set()

    def _bring_back(self) -> None:
        deaths: list[float] = []
        while not self._stopping.is_set():
            code = self.process.wait()
            if code != GAVE_UP:
                deaths = [at for at in deaths if time.monotonic() - at < WITHIN_S] + [time.monotonic()]
            if self._stopping.is_set():
                return
            if len(deaths) > RESTARTS:
                log.error("the controller died %d times within %g s: it is not started again", len(deaths), WITHIN_S)
                return
            log.warning("the controller ended with code %s: starting it again from its journal", code)
            self._start_again()

    def _start_again(self) -> None:
        """Try until one runs or none is wanted: what is in the way, such as a full disk, may go."""
        pause = FIRST_PAUSE_S
        while not self._stopping.is_set():
            with self._starting:
                if self._stopping.is_set():
                    return
                try:
                    end(self.process)
                    self._spawn()
                    self.restarts += 1
                    return
                except TransferQueueError as error:
                    log.error("the controller could not be started again, next try in %g s: %s", pause, error)
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _spawn(self) -> Mapping[str, Any]:
        """Start a controller and return its answer; the error that it answers, or `ControllerLostError`.

        It is `process` at once: its clients may be served before its answer is read here.
        """
        self.process = subprocess.Popen(
            [sys.executable, "-m", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        return _handshake(self.process, msgspec.json.encode(self._orders) + b"\n")


def _handshake(process: subprocess.Popen[bytes], orders: bytes) -> Mapping[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    readable: list[Any] = [process.stdout]
    try:
        process.stdin.write(orders)
        process.stdin.flush()
        readable, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if readable else b""
    except BrokenPipeError:
        line = b""
    except BaseException:
        end(process)
        raise
    process.stdout.close()
    if line:
        answer: Mapping[str, Any] = json.loads(line)
        if "error" not in answer:
            return answer
        end(process)
        raise rebuild(*answer["error"])
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.0 if not readable else STOP_S)
    code = process.poll()
    end(process)
    what = f"ended with code {code}" if code is not None else f"did not answer for {START_S:g} s"
    raise ControllerLostError(f"the controller's process {what} while it started; its own words are above, on stderr")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask by closing stdin, then insist."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    asks: list[Callable[[], None]] = [lambda: None, process.terminate, process.kill]
    for ask in asks:
        ask()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
            return
