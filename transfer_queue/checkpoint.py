"""Checkpoints: one file that holds a whole queue, its values included, wherever they lie.

The cut is made when it is asked for; the file is written by a process of its own (`python -m transfer_queue.checkpoint
JOURNAL NUMBER FILE PARENT [RAY]`) from the journal's snapshot, while the queue goes on. It ends with its controller,
whose successor knows nothing of it and would let the values be written over. It is portable: a queue on another
machine, or with another data plane, can begin with it.
"""

from __future__ import annotations

import os
import secrets
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from transfer_queue.errors import ConfigurationError, JournalError, TransferQueueError
from transfer_queue.image import encoded, restored
from transfer_queue.journal import Compactor, Journal
from transfer_queue.journal import snapshot as snapshots
from transfer_queue.journal.compact import NICENESS, end_with
from transfer_queue.journal.folder import Folder
from transfer_queue.state import QueueState
from transfer_queue.storage.image import brought_in
from transfer_queue.storage.place import is_actor
from transfer_queue.storage.segments import Segments

MAGIC = b"TQCHKPT1"
HEADER = struct.Struct("<8sIQ")
LOOK_S = 0.05
"""How often a checkpoint that is being written is looked at."""


@dataclass(eq=False)
class Wanted:
    """A checkpoint that somebody waits for."""

    path: Path
    done: Callable[[Exception | None], None]
    upto: int = -1
    read: int = -1
    writer: subprocess.Popen[bytes] | None = None


class Checkpoints:
    """Writes one checkpoint after the other. What is freed meanwhile is not written over until it is done."""

    def __init__(
        self, journal: Journal | None, compactor: Compactor | None, segments: Segments, now: Callable[[], float]
    ) -> None:
        self._journal, self._compactor, self._segments, self._now = journal, compactor, segments, now
        self._wanted: list[Wanted] = []

    @property
    def busy(self) -> bool:
        """Whether `poll` has something to do."""
        return bool(self._wanted)

    def ask(self, path: str, done: Callable[[Exception | None], None]) -> None:
        """Cut now, and call `done` when the file is there, or with what went wrong."""
        where = Path(path)
        if self._journal is None:
            raise ConfigurationError("a checkpoint is made from the journal: start the controller with journal_dir")
        if not where.is_absolute() or not where.parent.is_dir():
            raise ConfigurationError(f"a checkpoint at {path!r} needs an absolute path in a folder that is there")
        read = self._segments.begin_read(self, secrets.randbits(31), f"checkpoint {path}", self._now())
        wanted = Wanted(where, done, self._journal.seal(), read)
        self._wanted.append(wanted)
        self.poll()

    def poll(self) -> None:
        """Take the next step of the first checkpoint, if it can be taken."""
        if not self._wanted or self._compactor is None:
            return
        first, outcome = self._wanted[0], self._compactor.outcome
        if first.writer is not None:
            self._look_at(first, first.writer)
        elif outcome is not None and outcome.upto >= first.upto and not outcome.ok:
            self._end(first, JournalError(f"the checkpoint {first.path} could not be made: {outcome.error}"))
        elif outcome is not None and outcome.upto == first.upto:
            self._write(first)
        elif self._compactor.pid is None:
            self._compactor.begin(first.upto)

    def close(self) -> None:
        """Give up what is not done."""
        for wanted in self._wanted:
            if wanted.writer is not None:
                wanted.writer.kill()
                wanted.writer.communicate()

    def _write(self, wanted: Wanted) -> None:
        assert self._journal is not None
        command = [sys.executable, "-m", "transfer_queue.checkpoint", str(self._journal.folder), str(wanted.upto)]
        command += [str(wanted.path), str(os.getpid()), *self._cluster()]
        path = os.pathsep.join(each for each in sys.path if each)
        wanted.writer = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )

    def _cluster(self) -> list[str]:
        """The address of Ray, where values lie in storage actors."""
        if not any(is_actor(each.path) for each in self._segments.known.values()):
            return []
        import ray

        return [str(ray.get_runtime_context().gcs_address)]

    def _look_at(self, wanted: Wanted, writer: subprocess.Popen[bytes]) -> None:
        code = writer.poll()
        if code is None:
            return
        said = writer.communicate()[1].decode(errors="replace").strip()
        words = said.splitlines()[-1] if said else f"its process ended with code {code}"
        self._end(wanted, JournalError(f"the checkpoint {wanted.path} could not be made: {words}") if code else None)

    def _end(self, wanted: Wanted, error: Exception | None) -> None:
        self._wanted.remove(wanted)
        self._segments.end_read(wanted.read)
        wanted.done(error)
        self.poll()


def write(state: QueueState, path: Path) -> None:
    """Write the queue to `path`, made visible by one rename."""
    brought_in(state.catalog)
    payload = encoded(state)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # of one that was killed
    try:
        with open(temporary, "xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(HEADER.pack(MAGIC, crc32(payload), len(payload)))
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def payload_of(path: Path) -> bytes:
    """What a checkpoint holds; `JournalError` if it is damaged or none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise JournalError(f"{path} is no checkpoint of this version")
    _, checksum, size = HEADER.unpack_from(data)
    payload = data[HEADER.size :]
    if len(payload) != size or crc32(payload) != checksum:
        raise JournalError(f"the checkpoint {path} is damaged: take an earlier one")
    return payload


def main(arguments: list[str]) -> int:
    folder, number, path = Folder(Path(arguments[0])), int(arguments[1]), Path(arguments[2])
    threading.Thread(target=end_with, args=(int(arguments[3]),), daemon=True).start()
    os.nice(NICENESS)
    if len(arguments) > 4:
        import ray

        ray.init(address=arguments[4], logging_level="ERROR", log_to_driver=False)
    header, _ = snapshots.newest(folder, number, None)
    if header is None or header.number != number:
        print(f"the snapshot {number} of {folder.path} is not there", file=sys.stderr)
        return 1
    try:
        write(restored(snapshots.view(folder, header)), path)
    except (TransferQueueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
