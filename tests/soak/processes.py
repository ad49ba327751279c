"""The processes of a soak: started, watched, killed by their own ids only, and started again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.soak.points import ARMED

ROLES = {"producer": 3, "rollout": 2, "reward": 1, "train": 2}


class Workers:
    """All producers and consumers; each has a folder of its own that arms its points."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
        self.incarnations: dict[tuple[str, int], int] = {}
        self.deaths = 0

    def names(self, *roles: str) -> list[tuple[str, int]]:
        return [(role, number) for role in roles or ROLES for number in range(ROLES[role])]

    def armed(self, role: str, number: int) -> Path:
        """The file that arms a point of this worker."""
        place = self.folder / "workers" / f"{role}-{number}"
        place.mkdir(parents=True, exist_ok=True)
        return place / "armed"

    def keep(self, *roles: str) -> list[str]:
        """Have one process of each name running; what ended in a way that was not meant."""
        wrong = []
        for name in self.names(*roles):
            process = self.running.get(name)
            if process is not None and process.poll() is None:
                continue
            if process is not None:
                self.deaths += 1
                if process.returncode != -9:
                    wrong.append(f"{name[0]} {name[1]} ended with code {process.returncode}")
            self._start(*name)
        return wrong

    def _start(self, role: str, number: int) -> None:
        count = self.incarnations[role, number] = self.incarnations.get((role, number), 0) + 1
        environment = {**os.environ, ARMED: str(self.armed(role, number)), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.soak.worker", role, str(number), str(count), str(self.folder)]
        self.running[role, number] = subprocess.Popen(command, env=environment)

    def kill(self, role: str, number: int) -> None:
        """SIGKILL, whatever it does."""
        self.running[role, number].kill()

    def join(self, roles: list[str], within_s: float) -> list[str]:
        """Wait until these have ended by themselves; those that did not are killed and named."""
        late = []
        for role, number in self.names(*roles):
            process = self.running.get((role, number))
            if process is None:
                continue
            try:
                process.wait(within_s)
            except subprocess.TimeoutExpired:
                late.append(f"{role} {number} does not end")
                process.kill()
                process.wait()
        return late

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.running.values():
            process.kill()
            process.wait()


def resident_bytes(pid: int) -> int:
    """Memory of a process, or 0 if it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def using(text: str) -> list[int]:
    """Ids of the processes whose command line names this."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if text.encode() in words:
                found.append(int(entry.name))
    return found


def bytes_in(folder: Path) -> int:
    """Bytes of all files of a folder, from which others are removed meanwhile."""
    total = 0
    for path in folder.glob("**/*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
