"""`Compactor`: compaction seen from the writer's loop, which starts it, watches a descriptor, and goes on writing."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from transfer_queue.errors import JournalError
from transfer_queue.journal.journal import Journal
from transfer_queue.journal.policy import CompactionPolicy

log = logging.getLogger(__name__)

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Outcome:
    """How a compaction up to segment `upto` ended: `error` is empty if it succeeded, else a sentence."""

    upto: int
    error: str
    snapshot_bytes: int = 0
    records: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.error


class Compactor:
    """At most one compaction of a journal at a time, in a process of low priority that dies with this one.

    `fold` is the `module:function` that makes a snapshot (see `transfer_queue.journal.compact`). A compaction that
    fails costs nothing but disk space: the writer goes on, and a warning is logged at most once a minute.
    """

    def __init__(
        self,
        journal: Journal,
        fold: str,
        *,
        policy: CompactionPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.outcome: Outcome | None = None
        self._journal, self._fold, self._clock = journal, fold, clock
        self._policy = policy or CompactionPolicy(journal.segment_bytes)
        self._process: subprocess.Popen[bytes] | None = None
        self._leaving: subprocess.Popen[bytes] | None = None
        self._upto = 0
        self._answer = b""

    @property
    def pid(self) -> int | None:
        """Process id of the compaction that runs."""
        return self._process.pid if self._process else None

    def fileno(self) -> int | None:
        """What becomes readable when the compaction that runs wants `poll`; None while none does."""
        return self._process.stdout.fileno() if self._process and self._process.stdout else None

    def consider(self) -> bool:
        """Seal the segment and begin, if the policy wants that and none runs; for once a burst. Whether it began."""
        held = self._journal.bytes_since_snapshot
        if self._busy() or not self._policy.wants(self._clock(), held, self._journal.snapshot_bytes):
            return False
        try:
            return self.begin(self._journal.seal())
        except JournalError as error:
            self._ended(Outcome(self._upto, str(error)))
            return False

    def begin(self, upto: int) -> bool:
        """Start a compaction up to that sealed segment; False if one runs already, or if it could not be started."""
        if self._busy():
            return False
        self._upto, self._answer = upto, b""
        command = [sys.executable, "-m", "transfer_queue.journal.compact", "--parent", str(os.getpid())]
        path = os.pathsep.join(each for each in sys.path if each)
        try:
            self._process = subprocess.Popen(
                [*command, str(self._journal.folder), str(upto), self._fold],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path, **ONE_THREAD},
            )
        except OSError as error:
            self._ended(Outcome(upto, f"compaction cannot be started: {error}"))
            return False
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        return True

    def poll(self) -> Outcome | None:
        """The outcome, once, when the compaction that runs has ended; never blocks."""
        if self._process is None or self._reading():
            return None
        self._process.kill()  # it has closed its stdout, so it is on its way out or will not answer any more
        if self._process.poll() is None and not self._answer:
            return None  # within moments its exit code will say more
        outcome = _outcome(self._upto, self._answer, self._process.returncode or 0)
        self._let_go()
        self._ended(outcome)
        return outcome

    def close(self) -> None:
        """Kill the compaction that runs; what it had not finished is done again another time."""
        if self._process is not None:
            self._process.kill()
            self._let_go()
        if self._leaving is not None:
            self._leaving.wait()
            self._leaving = None

    def __enter__(self) -> Compactor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _busy(self) -> bool:
        """Whether a compaction runs, or the last one, whose answer is known, is not quite gone."""
        return self._process is not None or (self._leaving is not None and self._leaving.poll() is None)

    def _reading(self) -> bool:
        """Take in what the process says; whether more may come."""
        descriptor = self.fileno()
        try:
            while descriptor is not None and (said := os.read(descriptor, 65536)):
                self._answer += said
        except BlockingIOError:
            return True
        return False

    def _let_go(self) -> None:
        assert self._process is not None
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process, self._leaving = None, self._process

    def _ended(self, outcome: Outcome) -> None:
        self.outcome = outcome
        if outcome.ok:
            self._journal.compacted(outcome.upto, outcome.snapshot_bytes)
            self._policy.succeeded()
        elif self._policy.failed(self._clock()):
            log.warning("the journal %s grows: %s", self._journal.folder, outcome.error)


def _outcome(upto: int, answer: bytes, code: int) -> Outcome:
    try:
        said: dict[str, Any] = json.loads(answer)
    except ValueError:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return Outcome(upto, f"compaction {how} without a word (its own are on stderr)")
    if "error" in said:
        return Outcome(upto, str(said["error"]))
    return Outcome(upto, "", said["bytes"], said["records"], said["seconds"])
