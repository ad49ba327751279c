"""The operator as its Deployment runs it: a process of its own, as somebody who has only its rights."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
WITHIN_S = 60.0
READY_WITHIN_S = 120.0
ROOT = Path(__file__).parents[2]


def eventually(what: str, found: Callable[[], T | None], within: float = WITHIN_S) -> T:
    """What `found` returns once it returns something true."""
    end = time.monotonic() + within
    while True:
        value = found()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {within:g} s: {what}; last seen: {value!r}")
        time.sleep(0.1)


class OperatorProcess:
    """`python -m twinkle_operator`, started by `start`; its standard error lies in `log`."""

    def __init__(self, kubeconfig: Path, folder: Path, *arguments: str) -> None:
        self._kubeconfig, self._arguments = kubeconfig, arguments
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.log = folder / f"operator-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> OperatorProcess:
        """Begin; `ready` waits."""
        environment = {**os.environ, "KUBECONFIG": str(self._kubeconfig), "PYTHONPATH": f"{ROOT}/operator"}
        command = [sys.executable, "-m", "twinkle_operator", "--port", str(self.port), *self._arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        return self

    def ready(self) -> OperatorProcess:
        """Wait until /readyz says so."""
        eventually(f"the operator is ready\n{self.tail()}", lambda: self.ask("/readyz") == 200, READY_WITHIN_S)
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit status."""
        assert self._process is not None
        return self._process.wait(WITHIN_S)

    def stop(self) -> int:
        """SIGTERM, and wait; its exit status."""
        if self._process is None:
            return 0
        self.signal(signal.SIGTERM)
        return self.wait()

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ask(self, path: str) -> int:
        """The status of an answer of its port; 0 if there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def metrics(self) -> str:
        """Of Prometheus."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2) as answer:
            return str(answer.read().decode())

    def metric(self, line: str) -> float | None:
        """The value of the series that begins like that."""
        found = re.search(rf"^{re.escape(line)}\S* (\S+)$", self.metrics(), re.MULTILINE)
        return float(found[1]) if found else None

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text().splitlines()[-30:]) if self.log.exists() else ""
