"""Starting the engine's process, talking to it, and noticing that it is gone."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from typing import Any

from twinkle import errors
from twinkle.errors import ConfigError, EngineLostError, SamplerError, TwinkleError
from twinkle.sampler.vllm.messages import Command, Done, Ended, Ready, Refused, Settings

START_TIMEOUT_S = 600.0
COMMAND_TIMEOUT_S = 300.0
END_TIMEOUT_S = 10.0
TAIL_BYTES = 2000


class ChildGone(Exception):
    """The process has ended; the message says how."""


class Child:
    """One process with one engine in it. Not safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        """Start it and wait until its engine runs. What vLLM refuses is raised as ConfigError, a process that dies as
        EngineLostError."""
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "twinkle.sampler.vllm.process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=environment,
            )
        self._connection = Connection(ours.detach())
        self._ended: list[Ended] = []
        try:
            self.ready = self._start(settings)
        except BaseException:
            self.close()
            raise

    def send(self, message: Any) -> None:
        """Hand over a message; ChildGone when nobody takes it."""
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChildGone(self.end_of_log()) from error

    def ended(self) -> list[Ended]:
        """The responses that have ended and were not fetched yet; ChildGone."""
        while self._connection.poll(0):
            self._ended += self._receive()
        ended, self._ended = self._ended, []
        return ended

    def command(self, method: str, *args: Any) -> None:
        """Have a method of the engine called and wait until it has returned; raises what it raised, ChildGone, or
        SamplerError when no answer comes within 300 s."""
        self.send(Command(method, args))
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        while (answer := self._take_answer(method, deadline)) is None:
            pass
        if isinstance(answer, Refused):
            raise _error(answer)

    def fileno(self) -> int:
        """For select: readable when something has come."""
        return self._connection.fileno()

    def close(self) -> None:
        """Let the process end, by force after 10 s."""
        self._connection.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def end_of_log(self) -> str:
        """How the process ended and the last of what it wrote."""
        try:
            code: int | None = self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = None
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES)).decode(errors="replace").strip()
        return f"exit code {code}" + (f"; the end of its output: {tail}" if tail else "")

    def _start(self, settings: Settings) -> Ready:
        try:
            self.send(settings)
            if not self._connection.poll(START_TIMEOUT_S):
                raise EngineLostError(f"the vLLM engine did not start within {START_TIMEOUT_S:.0f} s: {settings}")
            answer = self._receive()
        except ChildGone as gone:
            raise EngineLostError(f"the vLLM engine ended while it started: {gone}") from gone
        if isinstance(answer, Refused):
            raise _error(answer, otherwise=ConfigError)
        ready: Ready = answer
        return ready

    def _take_answer(self, method: str, deadline: float) -> Done | Refused | None:
        if not self._connection.poll(max(0.0, deadline - time.monotonic())):
            raise SamplerError(f"the vLLM engine did not answer {method!r} within {COMMAND_TIMEOUT_S:.0f} s")
        message = self._receive()
        if isinstance(message, Done | Refused):
            return message
        self._ended += message
        return None

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise ChildGone(self.end_of_log()) from error


def _error(refused: Refused, otherwise: type[TwinkleError] = SamplerError) -> TwinkleError:
    kind = getattr(errors, refused.kind, None)
    if isinstance(kind, type) and issubclass(kind, TwinkleError):
        return kind(refused.message)
    return otherwise(f"vLLM refused: {refused.message}")
