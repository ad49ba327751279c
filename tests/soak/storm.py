"""One soak: processes that put and take, and that are killed; then calm, a drain, and the reckoning."""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak import compaction, controller, worker
from tests.soak.points import ARMED, arm, hits
from tests.soak.processes import ROLES, Workers, bytes_in, resident_bytes, using
from tests.soak.truth import Notes, faults, gathered, read
from tests.soak.values import key_of
from transfer_queue import GRPOSampler, TransferQueueClient, TransferQueueController, supervisor, wire
from transfer_queue.checkpoint import payload_of
from transfer_queue.errors import TransferQueueError
from transfer_queue.image import restored
from transfer_queue.storage.run_folder import SHARED_MEMORY

TASKS = ["rollout", "reward", "train"]
ANYWHERE = ("controller_anywhere", "worker_anywhere")
AHEAD = (*controller.POINTS, *compaction.POINTS)
ALL_POINTS = (*AHEAD, *worker.PRODUCER_POINTS, *worker.CONSUMER_POINTS, *ANYWHERE)
OFTEN = ("before_write", "in_write", "behind_write", "before_reply", "behind_reply", "meta_waits", "in_replay")
OFTEN_TOO = ("in_arena_write", "before_put", "put_sent", "in_read", "before_ack", "ack_sent", "meta_sent")
"""Points that a process passes many times: it ends at one of the first passages. At the others at the first."""
CALM = 0.3
"""Of the time, at the end: the controller is left alone, so that its memory can be seen to grow or not."""
PATIENCE_S = 6.0
"""How long a point stays armed that nobody passes."""
STUCK_S = 8.0
"""A step of which nothing moved for so long waits for rows whose producer died; it is cleared."""


@dataclass
class Report:
    """What a soak found."""

    seconds: float
    faults: list[str] = field(default_factory=list)
    points: Counter[str] = field(default_factory=Counter)
    rows_put: int = 0
    consumed: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    deaths: int = 0
    checkpoints: int = 0
    checks: int = 0
    cleared: int = 0
    memory: list[tuple[float, int]] = field(default_factory=list)
    """Of the calm: seconds and bytes of the controller."""
    journal: list[int] = field(default_factory=list)
    arenas: list[int] = field(default_factory=list)

    @property
    def unhit(self) -> list[str]:
        return [point for point in ALL_POINTS if not self.points[point]]


class Storm:
    """The driver. Everything it starts ends with it."""

    def __init__(self, seconds: float, seed: int) -> None:
        self.chance = random.Random(seed)
        self.folder = Path(tempfile.mkdtemp(prefix="tq-soak-"))
        (self.folder / "truth").mkdir()
        self.notes = Notes(self.folder / "truth" / "driver")
        self.workers = Workers(self.folder)
        self.armed = self.folder / "armed"
        self.report = Report(seconds)
        self.begins = time.monotonic()
        self.calm_at = self.begins + (1 - CALM) * seconds
        self.ends_at = self.begins + seconds
        self._next_kill = self._next_look = self.begins + 2.0
        self._moved: dict[int, tuple[object, float]] = {}
        self._by_hand: Counter[str] = Counter()
        self._calm_since: float | None = None
        self._before = set(SHARED_MEMORY.glob("tq-*"))

    def run(self) -> Report:
        """All of it."""
        with self._controller() as self.queue, TransferQueueClient("driver", self.queue.get_info()) as self.client:
            (self.folder / "info").write_text(json.dumps(self.queue.get_info()))
            for what in ("producing", "consuming"):
                (self.folder / what).touch()
            try:
                self._storm()
                self._drain()
                self._reckon()
            finally:
                self.workers.end()
            self._empty()
        self._look_for_leftovers()
        return self.report

    @contextlib.contextmanager
    def _controller(self) -> Iterator[TransferQueueController]:
        program, restarts, armed = supervisor.PROGRAM, supervisor.RESTARTS, os.environ.get(ARMED)
        supervisor.PROGRAM, supervisor.RESTARTS = "tests.soak.controller", 1 << 30
        os.environ[ARMED] = str(self.armed)
        try:
            with TransferQueueController.start(
                global_batch_size=16, num_n_samples=worker.SAMPLES, num_global_batch=6, tasks=TASKS,
                task_samplers={"train": GRPOSampler(worker.SAMPLES)}, capacity_bytes=48 << 20,
                journal_dir=self.folder / "journal", fsync_ms=20.0,
            ) as queue:  # fmt: skip
                yield queue
        finally:
            supervisor.PROGRAM, supervisor.RESTARTS = program, restarts
            os.environ.pop(ARMED)
            if armed is not None:
                os.environ[ARMED] = armed

    # While it rages

    def _storm(self) -> None:
        checkpoints = threading.Thread(target=self._checkpoints, daemon=True)
        checkpoints.start()
        while not self._calm or time.monotonic() < self.ends_at:
            self.report.faults += self.workers.keep()
            if time.monotonic() >= self._next_kill:
                self._kill()
            if time.monotonic() >= self._next_look:
                self._look()
            time.sleep(0.05)
        checkpoints.join(60)

    def _hits(self) -> Counter[str]:
        found = hits(self.armed) + self._by_hand
        for name in self.workers.names():
            found += hits(self.workers.armed(*name))
        return found

    def _kill(self) -> None:
        """Arm a point that was hit least, unless one is armed that may be hit any moment."""
        self._next_kill = time.monotonic() + self.chance.uniform(0.1, 0.6)
        if not self._calm and not self._waits_for(self.armed):
            self._kill_controller(self._least((*AHEAD, "controller_anywhere")))
        name = self.chance.choice(self.workers.names())
        if not self._waits_for(self.workers.armed(*name)) and self.chance.random() < 0.4:
            points = worker.PRODUCER_POINTS if name[0] == "producer" else worker.CONSUMER_POINTS
            self._kill_worker(name, self._least((*points, "worker_anywhere")))

    @property
    def _calm(self) -> bool:
        """The controller is left alone from its time on, once each point was hit; or when that takes too long."""
        late = time.monotonic() - self.calm_at
        if late > 0 and self._calm_since is None and (late > 2 * self.report.seconds or not self._unhit()):
            self._calm_since = time.monotonic()
            self.ends_at = max(self.ends_at, self._calm_since + CALM * self.report.seconds)
            self.armed.unlink(missing_ok=True)
        return self._calm_since is not None

    def _unhit(self) -> list[str]:
        counts = self._hits()
        return [point for point in ALL_POINTS if not counts[point]]

    def _least(self, points: Sequence[str]) -> str:
        counts = self._hits()
        least = min(counts[point] for point in points)
        return self.chance.choice([point for point in points if counts[point] == least])

    def _waits_for(self, armed: Path) -> bool:
        """Whether a point is armed there that was not hit yet, and not for long."""
        try:
            return time.time() - armed.stat().st_mtime < PATIENCE_S
        except FileNotFoundError:
            return False

    def _kill_controller(self, point: str) -> None:
        if point == "controller_anywhere":
            self._by_hand[point] += 1
        else:
            arm(self.armed, point, self.chance.choice((1, 2, 5, 20)) if point in OFTEN else 1)
        if point == "at_undo":  # somebody has to be gone before it hears of its rows
            for name in self.workers.names("rollout", "reward"):
                arm(self.workers.armed(*name), "meta_sent", self.chance.choice((1, 2, 3)))
        if point in ("controller_anywhere", "in_replay", "before_answer"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.queue.pid, 9)

    def _kill_worker(self, name: tuple[str, int], point: str) -> None:
        if point == "worker_anywhere":
            self.workers.kill(*name)
            self._by_hand[point] += 1
        else:
            arm(self.workers.armed(*name), point, self.chance.choice((1, 2, 5)) if point in OFTEN_TOO else 1)

    # Looking on

    def _look(self) -> None:
        """Counts must add up at every moment; memory, journal and arenas are measured."""
        self._next_look = time.monotonic() + 1.0
        if self._calm and time.monotonic() > self._calm_since + 2:
            self.report.memory.append((time.monotonic() - self.begins, resident_bytes(self.queue.pid)))
            self.report.journal.append(bytes_in(self.folder / "journal"))
        self.report.arenas.append(bytes_in(Path(self.queue.get_info()["folder"])))
        try:
            stats = self.client.stats()
            self._check_counts(stats)
            self._clear_stuck(stats)
        except TransferQueueError as error:
            self.report.faults.append(f"the driver was refused: {error}")

    def _check_counts(self, stats: wire.Stats) -> None:
        self.report.checks += 1
        for name, task in stats.tasks.items():
            parts = [task.ready, task.leased, task.consumed, *task.dropped.values(), *task.not_ready.values()]
            if task.produced != sum(parts):
                self.report.faults.append(f"{task.produced} rows of {name!r} were produced, but {parts} are known")

    def _clear_stuck(self, stats: wire.Stats) -> None:
        """Clear a step in which nothing moves any more: a producer died between two rows of a group."""
        now = time.monotonic()
        for step in stats.partitions:
            rows = self.client.peek(step, 1000, []).rows
            stand = [
                (row.index, row.fields, sorted((task, how[:6]) for task, how in row.tasks.items())) for row in rows
            ]
            if self._moved.get(step, (None, 0.0))[0] != stand:
                self._moved[step] = (stand, now)
            elif now - self._moved[step][1] > STUCK_S and len(stats.partitions) == 6:
                self.notes.note("clear", ids=[row.index for row in rows])
                self.client.clear(step, force=True)
                self.report.cleared += 1
                return

    def _checkpoints(self) -> None:
        """Now and then a checkpoint, read back value by value."""
        path = self.folder / "checkpoint"
        with TransferQueueClient("checkpoints", self.queue.get_info()) as client:
            while self._calm_since is None or time.monotonic() < self.ends_at - 5:
                time.sleep(3.0)
                try:
                    client.checkpoint(path, timeout_s=30.0)
                    self._check_checkpoint(path)
                    self.report.checkpoints += 1
                except (TransferQueueError, ValueError) as error:
                    if "killed by signal" not in str(error):  # the compaction before it is one of those that are killed
                        self.report.faults.append(f"checkpoint: {error}")

    def _check_checkpoint(self, path: Path) -> None:
        for fields in restored(payload_of(path)).catalog.partitions.values():
            for name, rows in fields.items():
                for chunk in rows.chunks.values():
                    for position in range(len(chunk.sizes)):
                        value = chunk.value(position)
                        key_of(value[2 + (value[0] == 0xC5) :] if name in ("prompt", "reward") else value)

    # The end

    def _drain(self) -> None:
        """Producers stop; consumers go on until nothing moves."""
        self.armed.unlink(missing_ok=True)
        (self.folder / "producing").unlink()
        self.report.faults += self.workers.join(["producer"], 30)
        last, since = None, time.monotonic()
        while time.monotonic() - since < 2 * worker.SLOT_S + 1:
            self.report.faults += self.workers.keep(*(role for role in ROLES if role != "producer"))
            stats = self.client.stats()
            now = {name: (task.consumed_total, task.leased, task.dropped) for name, task in stats.tasks.items()}
            if now != last:
                last, since = now, time.monotonic()
            time.sleep(0.2)
        (self.folder / "consuming").unlink()
        self.report.faults += self.workers.join([role for role in ROLES if role != "producer"], 30)

    def _reckon(self) -> None:
        """Put together what all processes know, and what the queue says is there."""
        truth = gathered(read(self.folder / "truth"), {"train": worker.RANKS})
        stats = self.client.stats()
        self._check_counts(stats)
        resident: dict[str, set[int]] = {task: set() for task in TASKS}
        for step in stats.partitions:
            for row in self.client.peek(step, 1000, []).rows:
                for task, how in row.tasks.items():
                    if how in ("free", "ready") or how.startswith("leased"):
                        resident[task].add(row.index)
        self.report.faults += faults(truth, resident, TASKS)
        self.report.rows_put = len(truth.put)
        self.report.consumed = {task: len(truth.acked[task]) for task in TASKS}
        self.report.restarts = self.queue._supervisor.restarts
        self.report.deaths = self.workers.deaths
        self.report.points = self._hits()
        if stats.rows_put_total < len(truth.put):
            self.report.faults.append(f"{len(truth.put)} rows were acknowledged, {stats.rows_put_total} were put")

    def _empty(self) -> None:
        """Once every step is cleared nothing may be left of what producers wrote."""
        for step in self.client.stats().partitions:
            self.client.clear(step, force=True)
        folder = Path(self.queue.get_info()["folder"])
        deadline = time.monotonic() + 20
        while (left := [path.name for path in folder.iterdir() if path.name != "lock"]) and time.monotonic() < deadline:
            time.sleep(0.2)
        if left or self.client.stats().stored_bytes:
            self.report.faults.append(f"left in {folder}: {left}, {self.client.stats().stored_bytes} bytes")

    def _look_for_leftovers(self) -> None:
        if left := set(SHARED_MEMORY.glob("tq-*")) - self._before:
            named = {path for path in left if str(path) == self.queue.get_info().get("folder")}
            self.report.faults += [f"{path} is left" for path in named]
        endpoint = Path(self.queue.get_info()["endpoint"].removeprefix("unix://"))
        if endpoint.parent.exists():
            self.report.faults.append(f"{endpoint.parent} is left")
        self.report.faults += [f"process {pid} is left" for pid in using(str(self.folder))]
        self.report.faults += [f"{path} is left" for path in self.folder.glob("**/*.tmp")]
        self.report.faults += [f"{path} is left" for path in self.folder.glob("**/*.damaged")]
