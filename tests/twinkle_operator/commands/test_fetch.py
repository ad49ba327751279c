"""What comes of an exec of tar: all of the run folder, or an error."""

from __future__ import annotations

import json
import subprocess
from collections import deque
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pytest
import websocket
from websocket import ABNF

from twinkle.loop.run_folder import LOCK, QUEUE, WEIGHTS
from twinkle_operator.commands.archive import unpack
from twinkle_operator.commands.fetch import ENDED, STDERR, STDOUT, Output, tar
from twinkle_operator.errors import OperatorError

RESULTS = {"run.json": "{}", "checkpoints/1/weights": "w", "checkpoints/1/queue.json": "q", "report.html": "r"}


class Exec:
    """The socket of an exec: what tar printed, and how it ended, unless the connection breaks."""

    def __init__(self, folder: Path, *, code: int = 0, breaks: bool = False) -> None:
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

    def recv_data_frame(self, _: bool) -> tuple[int, ABNF]:
        if not self._frames:
            raise websocket.WebSocketConnectionClosedException("Connection to remote host was lost.")
        code, data = self._frames.popleft()
        return code, ABNF(opcode=code, data=data)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "there" / "s-1"
    for name, text in {**RESULTS, LOCK: "", QUEUE: "key", WEIGHTS: "w", ".weights.7": "w"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def fetched(run: Path, into: Path, **ended: Any) -> dict[str, str]:
    unpack(Output(cast(websocket.WebSocket, Exec(run, **ended))), run.name, into)
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


def test_an_archive_that_is_whole_is_not_believed_before_tar_has_ended(run: Path, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="ended before tar did"):
        fetched(run, tmp_path / "here", breaks=True)

    assert list((tmp_path / "here").iterdir()) == []
