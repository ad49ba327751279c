"""A command in a pod and what it prints: opened and read with deadlines, all of it or an error."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import msgspec
import websocket
from kubernetes import client
from kubernetes.stream import stream
from kubernetes.stream.ws_client import WSClient

from twinkle_operator.commands.access import Access, asked
from twinkle_operator.errors import OperatorError
from twinkle_operator.text import one_line

OPENS_S = 30.0
SILENCE_S = 60.0
"""Without a byte, after which the stream counts as broken."""
STDOUT, STDERR, ENDED = 1, 2, 3
"""Channels of an exec; the last one says how the command ended."""
SOME_DIFFER = 1
"""Exit code of tar when a file changed as it was read: a run may go on meanwhile."""
MOST_SAID = 1024
"""Characters of a command's errors that are shown."""


@contextmanager
def output(access: Access, pod: str, container: str, command: Sequence[str], *, end: float) -> Iterator[Output]:
    """What tar prints in a container of a pod, up to `end` (as time.monotonic() tells it).

    Raises:
        OperatorError: also for what is raised in the block; with what the command said.
    """
    what = f"{command[0]} in pod {access.namespace}/{pod}"
    with asked(what):
        opened = _opened(access, pod, container, command, what)
    opened.sock.settimeout(SILENCE_S)
    read = Output(opened.sock, end)
    try:
        yield read
    except OperatorError as error:
        said = one_line(read.errors.decode(errors="replace").strip(), MOST_SAID)
        raise OperatorError(f"{error}; {what} said: {said}" if said else str(error)) from error
    finally:
        opened.close()


def _opened(access: Access, pod: str, container: str, command: Sequence[str], what: str) -> WSClient:
    """The kubernetes client opens its WebSocket without any deadline, so a thread does it and that is waited for."""
    core = client.CoreV1Api(client.ApiClient(access.api.configuration))  # of its own: `stream` changes what it calls
    opened: Future[WSClient] = Future()

    def connect() -> None:
        try:
            found = stream(
                core.connect_get_namespaced_pod_exec,
                pod,
                access.namespace,
                container=container,
                command=list(command),
                stdin=False,
                stdout=True,
                stderr=True,
                tty=False,
                binary=True,
                _preload_content=False,
            )
        except client.ApiException as error:
            opened.set_exception(_refusal(error))
        else:
            opened.set_result(found)

    threading.Thread(target=connect, name="exec", daemon=True).start()
    try:
        return opened.result(OPENS_S)
    except TimeoutError as error:
        raise OperatorError(
            f"{what} did not begin within {OPENS_S:.0f} s: the API server waits for the kubelet of its node, or a "
            "proxy before it lets no WebSocket pass"
        ) from error


def _refusal(error: client.ApiException) -> client.ApiException:
    """Of a WebSocket, with the status and the words that the API server answered with."""
    found = re.match(r"Handshake status (\d{3}) (.*?)( -\+-\+-|$)", error.reason or "")
    return client.ApiException(status=int(found[1]), reason=found[2]) if found else error


class Output:
    """What tar prints in a pod, as a stream; its errors are kept."""

    def __init__(self, socket: websocket.WebSocket, end: float) -> None:
        self._socket, self._deadline = socket, end
        self._rest, self._status, self._ended = b"", b"", False
        self.errors = b""

    def read(self, size: int = -1, /) -> bytes:
        """At least one byte, unless tar has ended.

        Raises:
            OperatorError: it has not read everything, its deadline is over, or the connection ended before it.
        """
        while not self._rest and not self._ended:
            if time.monotonic() > self._deadline:
                raise OperatorError("tar has not read all of it within --deadline")
            self._receive()
        cut = len(self._rest) if size < 0 else size
        piece, self._rest = self._rest[:cut], self._rest[cut:]
        return piece

    def _receive(self) -> None:
        try:
            code, frame = self._socket.recv_data_frame(True)
        except websocket.WebSocketConnectionClosedException:
            self._end()
            return
        except websocket.WebSocketTimeoutException as error:
            raise OperatorError(f"the connection broke off: no byte came for {SILENCE_S:.0f} s") from error
        except (websocket.WebSocketException, OSError) as error:
            raise OperatorError(f"the connection broke off: {str(error) or type(error).__name__}") from error
        if code == websocket.ABNF.OPCODE_CLOSE:
            self._end()
        elif code in (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT) and frame.data:
            self._take(frame.data[0], frame.data[1:])

    def _take(self, channel: int, data: bytes) -> None:
        if channel == STDOUT:
            self._rest = data
        elif channel == STDERR:
            self.errors = (self.errors + data)[-4096:]
        elif channel == ENDED:
            self._status += data

    def _end(self) -> None:
        self._ended = True
        try:
            status = msgspec.json.decode(self._status, type=_Status)
        except msgspec.DecodeError as error:
            raise OperatorError("the connection ended before tar did") from error
        codes = [cause.message for cause in status.details.causes if cause.reason == "ExitCode"]
        if status.status != "Success" and codes != [str(SOME_DIFFER)]:
            raise OperatorError(f"tar could not read all of it ({status.message or 'no reason given'})")


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] = []


class _Status(msgspec.Struct):
    """How a command ended, in the words of Kubernetes."""

    status: str
    message: str = ""
    details: _Details = msgspec.field(default_factory=_Details)
