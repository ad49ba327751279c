"""Where a running queue lives on its machine: one private folder for its socket, one for its arenas."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from transfer_queue.storage.run_folder import PREFIX, RunFolder, choose

LONGEST = 100
"""Bytes that a unix socket's path may have on macOS (104), with a little room."""
SOCKET = "queue"
ARENAS = "arenas"
"""A file beside the socket that says where the arenas are, for a run that comes back."""
NEEDED = 64 << 20
"""Room that is looked for where nobody said how much the queue may hold: one segment."""


@dataclass(slots=True)
class Home:
    """The folders of one queue. Whoever holds it keeps it; a later start sweeps what nobody holds."""

    socket: RunFolder
    arenas: RunFolder | None
    warning: str | None = None

    @classmethod
    def make(
        cls, storage: str, capacity_bytes: int | None = None, shm_dir: Path | None = None, run: str | None = None
    ) -> Home:
        """New folders, or with `run` (8 hex digits) those of the run that was here before.

        `warning` is set where large values will be slower than they could be; `ConfigurationError` for a `shm_dir` that
        cannot hold `capacity_bytes`.
        """
        socket = _folder(_socket_parent(), run)
        if storage != "shm":
            return cls(socket, None)
        kept = socket.path / ARENAS
        if run is not None and kept.exists():
            return cls(socket, RunFolder.make_again(Path(kept.read_text())))
        place = choose(capacity_bytes or NEEDED, shm_dir)
        arenas = _folder(place.path, run)
        kept.write_text(str(arenas.path))
        return cls(socket, arenas, place.warning)

    def stay(self) -> None:
        """Let no sweep remove the folders for a while, even if nobody holds them: the run will come back."""
        for folder in (self.socket, self.arenas):
            if folder is not None:
                folder.stay()

    @classmethod
    def hold(cls, socket: str, arenas: str | None) -> Home:
        """Keep the folders that another process made, too."""
        return cls(RunFolder.hold(Path(socket)), RunFolder.hold(Path(arenas)) if arenas is not None else None)

    @property
    def socket_path(self) -> str:
        return f"{self.socket.path}/{SOCKET}"

    @property
    def info(self) -> dict[str, str]:
        """What a client needs to know of it."""
        info = {"endpoint": f"unix://{self.socket_path}"}
        if self.arenas is not None:
            info |= {"storage": "shm", "folder": str(self.arenas.path)}
        return info

    def remove(self) -> None:
        """Remove the folders, whoever else holds them; may be called twice."""
        self.socket.remove()
        if self.arenas is not None:
            self.arenas.remove()


def _folder(parent: Path, run: str | None) -> RunFolder:
    if run is None:
        return RunFolder.make(parent)
    return RunFolder.make_again(parent / f"{PREFIX}{os.getuid()}-{run}")


def _socket_parent() -> Path:
    folder = Path(tempfile.gettempdir())
    longest = len(f"tq-{os.getuid()}-xxxxxxxx/{SOCKET}")
    return folder if len(os.fsencode(folder)) + 1 + longest < LONGEST else Path("/tmp")
