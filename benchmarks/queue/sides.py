"""The driven processes, seen from the harness: start one, order work, take its answer."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peer_venv import ROOT, TRANSFER_QUEUE
from benchmarks.queue.system import NotThere

ANSWER_S = 300.0
LAST_WORDS = 3000
SETTINGS = {"OMP_NUM_THREADS": "1", "TQ_NUM_THREADS": "1", "TQ_LOGGING_LEVEL": "ERROR"}


class Side:
    """One process of one system ("ours" or "peer"); ended by `close`."""

    def __init__(self, system: str) -> None:
        self.system = system
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        python, folder = (TRANSFER_QUEUE.python(), _only_benchmarks()) if system == "peer" else (sys.executable, ROOT)
        self._process = subprocess.Popen(
            [python, "-P", "-m", "benchmarks.queue.driver", system],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **SETTINGS, "PYTHONPATH": str(folder)},
            cwd=folder,  # Ray's workers import from there
            start_new_session=True,
        )

    def call(self, work: str, **arguments: Any) -> Any:
        """Order work and wait for its result."""
        self.order(work, **arguments)
        return self.result()

    def order(self, work: str, **arguments: Any) -> None:
        """Order work; its result has to be taken with `result`, in the order of the orders."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"work": work, "arguments": arguments}).encode() + b"\n")
        self._process.stdin.flush()

    def result(self, timeout_s: float = ANSWER_S) -> Any:
        """The result of the oldest order that has not been taken."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline() if readable else b""
        if not line:
            self._log.seek(0)
            raise RuntimeError(
                f"{self.system} gave no answer; its last words: {self._log.read()[-LAST_WORDS:].decode()}"
            )
        answer = json.loads(line)
        if "missing" in answer:
            raise NotThere(answer["missing"])
        if "error" in answer:
            raise RuntimeError(f"{self.system}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        """End the process and whatever it started and left in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


def _only_benchmarks() -> Path:
    """A folder from which the peer's processes import this package, but not our `transfer_queue`."""
    folder = TRANSFER_QUEUE.folder / "path"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "benchmarks"
    if not link.exists():
        link.symlink_to(ROOT / "benchmarks")
    return folder
