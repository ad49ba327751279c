"""What comes of an exec of tar: all of the run folder, or an error."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any, cast
from unittest import mock

import pytest
import websocket
from kubernetes.config import kube_config
from websocket import ABNF

from tests.twinkle_operator.commands.kubeconfig import write_kubeconfig
from twinkle.loop.run_folder import LOCK, QUEUE, WEIGHTS
from twinkle_operator.commands import pod_exec
from twinkle_operator.commands.access import Access
from twinkle_operator.commands.archive import unpack
from twinkle_operator.commands.fetch import tar
from twinkle_operator.commands.pod_exec import ENDED, STDERR, STDOUT, Output, output
from twinkle_operator.errors import OperatorError

RESULTS = {"run.json": "{}", "checkpoints/1/weights": "w", "checkpoints/1/queue.json": "q", "report.html": "r"}
DEADLINE_S = 60.0


class Exec:
    """The socket of an exec: what tar printed, and how it ended, unless the connection breaks."""

    def __init__(
        self, folder: Path, *, code: int = 0, breaks: bool = False, raises: Exception | None = None, pings: bool = False
    ) -> None:
        said = subprocess.run(tar(PurePosixPath(folder)), capture_output=True, check=False)
        assert said.returncode == 0, said.stderr
        frames = [(STDOUT, said.stdout[at : at + 1000]) for at in range(0, len(said.stdout), 1000)]
        if code:
            frames.append((STDERR, b"tar: x: Cannot open: Permission denied\n"))
        status: dict[str, Any] = {"metadata": {}, "status": "Success"}
        if code:
            cause = {"reason": "ExitCode", "message": str(code)}
            text = f"command terminated with non-zero exit code: {code}"
            status = {"status": "Failure", "message": text, "reason": "NonZeroExitCode", "details": {"causes": [cause]}}
        frames += [] if breaks else [(ENDED, json.dumps(status).encode())]
        self._frames = deque((ABNF.OPCODE_BINARY, bytes([channel]) + data) for channel, data in frames)
        self._frames += [] if breaks else [(ABNF.OPCODE_CLOSE, b"")]
        self._raises = raises or websocket.WebSocketConnectionClosedException("Connection to remote host was lost.")
        self._pings = pings

    def recv_data_frame(self, _: bool) -> tuple[int, ABNF]:
        if self._pings:
            return ABNF.OPCODE_PING, ABNF(opcode=ABNF.OPCODE_PING)
        if not self._frames:
            raise self._raises
        code, data = self._frames.popleft()
        return code, ABNF(opcode=code, data=data)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "there" / "s-1"
    for name, text in {**RESULTS, LOCK: "", QUEUE: "key", WEIGHTS: "w", ".weights.7": "w"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def fetched(run: Path, into: Path, *, deadline_s: float = DEADLINE_S, **ended: Any) -> dict[str, str]:
    end = time.monotonic() + deadline_s
    unpack(Output(cast(websocket.WebSocket, Exec(run, **ended)), end), run.name, into)
    folder = into / run.name
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("code", [0, 1])
def test_results_come_and_the_key_of_the_queue_stays(run: Path, tmp_path: Path, code: int) -> None:
    """With 1, a file has changed as it was read: the run goes on."""
    assert fetched(run, tmp_path / "here", code=code) == RESULTS


def test_a_file_that_tar_cannot_read_is_an_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"could not read all of it .*exit code: 2"):
        fetched(run, tmp_path / "here", code=2)

    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({}, "the connection ended before tar did"),
        ({"raises": websocket.WebSocketTimeoutException()}, "the connection broke off: no byte came for 60 s"),
        ({"raises": ConnectionResetError("reset by peer")}, "the connection broke off: reset by peer"),
    ],
    ids=["closed", "silent", "reset"],
)
def test_an_archive_that_is_whole_is_not_believed_before_tar_has_ended(
    run: Path, tmp_path: Path, how: dict[str, Any], why: str
) -> None:
    with pytest.raises(OperatorError, match=why):
        fetched(run, tmp_path / "here", breaks=True, **how)

    assert list((tmp_path / "here").iterdir()) == []


def test_a_connection_that_only_lives_ends_with_the_deadline(run: Path, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="tar has not read all of it within --deadline"):
        fetched(run, tmp_path / "here", deadline_s=0.2, pings=True)

    assert list((tmp_path / "here").iterdir()) == []


@pytest.fixture
def api_server() -> Iterator[socket.socket]:
    """Which takes connections and says nothing by itself."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listens:
        yield listens


def execute(server: socket.socket, folder: Path) -> None:
    host, port = server.getsockname()
    path = write_kubeconfig(folder, here=f"http://{host}:{port}")
    with (
        mock.patch.object(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path)),
        output(Access("ns"), "pod", "ray", ["tar"], end=time.monotonic() + DEADLINE_S),
    ):
        pass


def test_an_api_server_that_opens_nothing_is_not_awaited_for_ever(
    api_server: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_exec, "OPENS_S", 0.2)

    with pytest.raises(OperatorError, match=r"^tar in pod ns/pod did not begin within 0 s: the API server waits for"):
        execute(api_server, tmp_path)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("403 Forbidden", "tar in pod ns/pod: you may not do that"),
        ("500 Internal Server Error", "tar in pod ns/pod: the API server answered 500 Internal Server Error"),
        ("", "tar in pod ns/pod: the API server does not answer "),
    ],
)
def test_an_exec_that_is_refused_is_said_in_a_sentence(
    api_server: socket.socket, tmp_path: Path, answer: str, sentence: str
) -> None:
    def answers() -> None:
        connection, _ = api_server.accept()
        with closing(connection):
            connection.recv(1 << 16)
            if answer:
                connection.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 2\r\n\r\n{{}}".encode())

    thread = threading.Thread(target=answers)
    thread.start()
    with pytest.raises(OperatorError, match=f"^{sentence}"):
        execute(api_server, tmp_path)
    thread.join()
