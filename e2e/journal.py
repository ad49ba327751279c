"""What an end-to-end run says while it goes on, and what it gathers when it fails."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from e2e.node import NodeError, kubectl

LOG_LINES = 60
T = TypeVar("T")


class Journal:
    """Prints each line with the seconds since it began, and keeps them, and longer texts, in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._began = time.monotonic()
        file.write_text("")

    def say(self, text: str) -> None:
        line = f"{time.monotonic() - self._began:6.1f} s  {text}"
        print(line, flush=True)
        self.keep(line)

    def keep(self, text: str) -> None:
        """Into the file alone."""
        with self.file.open("a") as file:
            file.write(text.rstrip("\n") + "\n")

    def diagnose(self) -> None:
        """Objects, events and the end of every container's log, into the file."""
        self.keep(_asked("get", "trainingstacks,rayclusters,rayjobs,jobs,pods", "-A", "-o", "wide"))
        self.keep(_asked("get", "trainingstacks,rayclusters,rayjobs", "-A", "-o", "yaml"))
        self.keep(_asked("get", "events", "-A", "--sort-by=.lastTimestamp"))
        names = _asked(
            "get", "pods", "-A", "-o", "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}\n{end}"
        )
        for namespace, name in (line.split() for line in names.splitlines() if len(line.split()) == 2):
            self.keep(f"--- log of {namespace}/{name}")
            self.keep(_asked("logs", name, f"--namespace={namespace}", "--all-containers", f"--tail={LOG_LINES}"))


def objects(kind: str, selector: str = "", namespace: str = "default") -> list[Any]:
    """The objects of a kind that a label selector finds."""
    answer = kubectl("get", kind, f"--namespace={namespace}", f"--selector={selector}", "-o", "json")
    found: list[Any] = json.loads(answer)["items"]
    return found


def until(within_s: float, what: str, probe: Callable[[], T]) -> T:
    """Ask again and again until the answer is true, and return it.

    Raises:
        NodeError: it was not in time; the message ends with the last answer.
    """
    end = time.monotonic() + within_s
    while not (answer := probe()):
        if time.monotonic() > end:
            raise NodeError(f"{what} did not come within {within_s:g} s; the last answer was {answer!r}")
        time.sleep(0.5)
    return answer


def _asked(*arguments: str) -> str:
    try:
        return kubectl(*arguments, timeout_s=30, check=False)
    except (NodeError, subprocess.TimeoutExpired) as error:
        return f"{error}"
