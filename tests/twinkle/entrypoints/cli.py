"""Runs twinkle-train as a person does, in a process and a temporary folder of its own, and looks at what it leaves."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COMMAND = [str(Path(sys.executable).with_name("twinkle-train"))]
MARK = "TWINKLE_TEST_MARK"
FAST = ["loop.steps=4", "loop.checkpoint_every=2", "data.held_out_prompts=8", "metrics.tensorboard=false"]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str
    left_processes: list[int]
    left_files: list[str]


@dataclass
class Trainer:
    """A command in ``folder``; its runs lie in ``folder/runs``, its temporary files in a folder that must end empty."""

    folder: Path

    def start(self, *overrides: str, flags: Sequence[str] = (), fast: bool = True) -> "Running":
        """Start ``twinkle-train`` with overrides; ``fast`` makes it four steps long."""
        temporary = Path(f"/tmp/tw-{uuid.uuid4().hex[:8]}")  # short: a unix socket's path has 104 bytes on macOS
        temporary.mkdir()
        mark = uuid.uuid4().hex
        paths = os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "TMPDIR": str(temporary), MARK: mark, "PYTHONPATH": paths}
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(self.folder / "torch")  # torch's own cache, made at import
        process = subprocess.Popen(
            [*COMMAND, *flags, *(FAST if fast else []), *overrides],
            cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        return Running(process, mark, temporary)

    def run(self, *overrides: str, flags: Sequence[str] = (), fast: bool = True) -> Outcome:
        """Start, wait for the end, and look around."""
        return self.start(*overrides, flags=flags, fast=fast).wait()

    @property
    def latest(self) -> Path:
        """The newest run folder."""
        return (self.folder / "runs" / "latest").resolve()


@dataclass
class Running:
    """A command that was started."""

    process: "subprocess.Popen[str]"
    mark: str
    temporary: Path

    def wait(self, timeout: float = 100) -> Outcome:
        """Its outcome; kills it and fails when it takes longer than ``timeout`` seconds."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"no end within {timeout} s\n{out}\n{err}") from None
        left = self._left()
        files = [str(path.relative_to(self.temporary)) for path in self.temporary.rglob("*")]
        return Outcome(self.process.returncode, out, err, left, files)

    def until_step(self, run: Path, step: int, timeout: float = 90) -> None:
        """Return when ``metrics.jsonl`` of the run at ``run`` has ``step`` lines."""
        deadline = time.monotonic() + timeout
        metrics = run / "metrics.jsonl"
        while not metrics.exists() or len(metrics.read_text().splitlines()) < step:
            assert time.monotonic() < deadline, f"no step {step} within {timeout} s: {run}"
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to the command's process alone."""
        self.process.send_signal(signum)

    def _left(self, patience: float = 5.0) -> list[int]:
        """Processes of this command that are still there after ``patience`` seconds (none on a good day, at once)."""
        deadline = time.monotonic() + patience
        while (found := marked(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found


def marked(mark: str) -> list[int]:
    """Ids of the processes that were started with ``mark`` in their environment (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except (OSError, PermissionError):
            continue
    return found
