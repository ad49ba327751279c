"""Points where a process ends itself, as if somebody had sent it SIGKILL there.

A file that the environment names (`TQ_ARMED`) holds a line `point passages`: at that passage through that point the
process notes it in the file `hits` beside it, and is gone. Without the file, points cost a `stat` and do nothing.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

ARMED = "TQ_ARMED"


def arm(path: Path, point: str, passages: int = 1) -> None:
    """Let the next process that passes this point so often end there; visible at once and whole."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(f"{point} {passages}")
    temporary.rename(path)


def hits(path: Path) -> Counter[str]:
    """How often each point was hit so far."""
    noted = path.with_name("hits")
    return Counter(line.split(" ")[0] for line in noted.read_text().splitlines()) if noted.exists() else Counter()


class Point:
    """One point of this process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._seen: tuple[int, int] = (0, 0)
        self._left = 0

    def armed(self) -> bool:
        """Count one passage; whether the process is to end at it."""
        path = os.environ.get(ARMED)
        if path is None:
            return False
        try:
            status = os.stat(path)
            if (status.st_ino, status.st_mtime_ns) != self._seen:
                name, passages = Path(path).read_text().split(" ")
                self._seen = (status.st_ino, status.st_mtime_ns)
                self._left = int(passages) if name == self.name else 0
        except (OSError, ValueError):
            return False
        self._left -= 1
        return self._left == 0

    def end(self) -> None:
        """Note it and be gone."""
        path = Path(os.environ[ARMED])
        path.unlink(missing_ok=True)
        with open(path.with_name("hits"), "a") as file:
            file.write(f"{self.name} {os.getpid()}\n")
        os.kill(os.getpid(), signal.SIGKILL)

    def passed(self) -> None:
        """End here, if it is time to."""
        if self.armed():
            self.end()
