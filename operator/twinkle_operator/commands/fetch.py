"""`twinkle fetch NAME`: the run folder of a stack, read by a pod that exists only for that, or from the head."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import msgspec
import websocket
from kubernetes import client
from kubernetes.stream import stream

from twinkle_operator.commands.access import DEADLINE_S, Access, asked
from twinkle_operator.commands.archive import unpack
from twinkle_operator.commands.reader_pod import CONTAINER, reader_pod
from twinkle_operator.errors import OperatorError
from twinkle_operator.groups import one_line
from twinkle_operator.observed import Stack
from twinkle_operator.resources import Manifest
from twinkle_operator.strip import pod as stripped
from twinkle_operator.words import STACK_LABEL

SILENCE_S = 60.0
"""Without a byte, after which the stream counts as broken."""
STDOUT, STDERR, ENDED = 1, 2, 3
"""Channels of an exec; the last one says how the command ended."""
SOME_DIFFER = 1
"""Exit code of tar when a file changed as it was read: a run may go on meanwhile."""
LEFT_OUT = (".*", "queue.json", "weights")
"""In a run folder: locks, drafts, the key to its queue, and what samplers read while it runs. None is a result."""
MOST_SAID = 1024
"""Characters of tar's errors that are shown."""
POLL_S = 0.5


def fetch(name: str, namespace: str | None, context: str | None, into: Path, *, deadline: int) -> Path:
    """Bring the run folder into `into`; where it is then. The reader pod is deleted, whatever happens, Ctrl-C too.

    Raises:
        OperatorError: it cannot be had; nothing is changed then.
    """
    access = Access(namespace, context)
    stack, _ = access.stack(name)
    folder = stack.status.run_folder
    if not folder:
        raise OperatorError(f"{access.namespace}/{name} has no run folder yet")
    head = next((pod for pod in access.pods(f"{STACK_LABEL}={name},ray.io/node-type=head") if _owned(pod)), None)
    with _reader(access, stack, head, deadline) as (pod, container):
        path = PurePosixPath(folder)
        with _tar(access, pod, container, path) as output:
            return unpack(output, path.name, into)


@contextmanager
def _reader(access: Access, stack: Stack, head: Manifest | None, deadline: int) -> Iterator[tuple[str, str]]:
    """A pod, and the container in it, that can read the run folder."""
    if stack.spec is None or stack.spec.run.volume is None:
        ready = None if head is None else stripped(head)
        if head is None or ready is None or not ready.ready:
            raise OperatorError(
                f"{stack.namespace}/{stack.name} has no run.volume: its run lay on its head pod, and that is not there"
            )
        yield head["metadata"]["name"], head["spec"]["containers"][0]["name"]
        return
    manifest = reader_pod(stack, head, deadline=deadline)
    with asked(f"a reader pod in {stack.namespace}"):
        made = access.core.create_namespaced_pod(stack.namespace, manifest, _request_timeout=DEADLINE_S)
    name = made.metadata.name
    try:
        _await_running(access, name, time.monotonic() + deadline)
        yield name, CONTAINER
    finally:
        with asked(f"pod {stack.namespace}/{name} was not deleted (it ends by itself after {deadline} s)"):
            _delete(access, name)


def _delete(access: Access, name: str) -> None:
    try:
        access.core.delete_namespaced_pod(name, access.namespace, grace_period_seconds=0, _request_timeout=DEADLINE_S)
    except client.ApiException as error:
        if error.status != 404:
            raise


def _await_running(access: Access, name: str, end: float) -> None:
    where = f"the reader pod {access.namespace}/{name}"
    while True:
        with asked(where):
            pod = access.core.read_namespaced_pod(name, access.namespace, _request_timeout=DEADLINE_S)
        if pod.status.phase == "Running":
            return
        why = _why(access.api.sanitize_for_serialization(pod))
        if pod.status.phase in ("Failed", "Succeeded"):
            raise OperatorError(f"{where} ended before it could read: {why}")
        if time.monotonic() > end:
            raise OperatorError(f"{where} did not start in time: {why}")
        time.sleep(POLL_S)


def _why(pod: Manifest) -> str:
    status = pod.get("status") or {}
    waits = [each["state"]["waiting"] for each in status.get("containerStatuses") or [] if "waiting" in each["state"]]
    waits += [each for each in status.get("conditions") or [] if each.get("status") == "False" and each.get("message")]
    texts = [f"{each.get('reason', '')}: {each.get('message', '')}".strip(": ") for each in waits]
    return texts[0] if texts else status.get("message") or "no node has taken it"


class Output:
    """What tar prints in a pod, as a stream; its errors are kept."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket, self._rest = socket, b""
        self._status, self._ended = b"", False
        self.errors = b""

    def read(self, size: int = -1, /) -> bytes:
        """At least one byte, unless tar has ended.

        Raises:
            OperatorError: it has not read everything, or the connection ended before it.
        """
        while not self._rest and not self._ended:
            try:
                code, frame = self._socket.recv_data_frame(True)
            except websocket.WebSocketConnectionClosedException:
                self._end()
                break
            if code == websocket.ABNF.OPCODE_CLOSE:
                self._end()
            elif code in (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT) and frame.data:
                self._take(frame.data[0], frame.data[1:])
        cut = len(self._rest) if size < 0 else size
        piece, self._rest = self._rest[:cut], self._rest[cut:]
        return piece

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


def tar(path: PurePosixPath) -> list[str]:
    """The command that prints a run folder as an archive."""
    left_out = [f"--exclude={path.name}/{each}" for each in LEFT_OUT]
    return ["tar", "-C", str(path.parent), *left_out, "-cf", "-", "--", path.name]


@contextmanager
def _tar(access: Access, pod: str, container: str, path: PurePosixPath) -> Iterator[Output]:
    what = f"tar in pod {access.namespace}/{pod}"
    with asked(what):
        opened = stream(
            access.core.connect_get_namespaced_pod_exec,
            pod,
            access.namespace,
            container=container,
            command=tar(path),
            stdin=False,
            stdout=True,
            stderr=True,
            tty=False,
            binary=True,
            _preload_content=False,
        )
    opened.sock.settimeout(SILENCE_S)
    output = Output(opened.sock)
    try:
        yield output
    except (websocket.WebSocketException, OSError) as error:
        raise OperatorError(f"{what} broke off: {str(error) or type(error).__name__}") from error
    except OperatorError as error:
        said = one_line(output.errors.decode(errors="replace").strip(), MOST_SAID)
        raise OperatorError(f"{error}; {what} said: {said}" if said else str(error)) from error
    finally:
        opened.close()


def _owned(pod: Manifest) -> bool:
    return "deletionTimestamp" not in pod["metadata"]
