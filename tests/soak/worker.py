"""The processes that put and take: `python -m tests.soak.worker ROLE NUMBER INCARNATION FOLDER`.

They end themselves at points of their own, wrapped from outside as the controller's are.
"""

from __future__ import annotations

import json
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.soak.controller import before
from tests.soak.points import Point
from tests.soak.truth import Notes
from tests.soak.values import checksum, key_of, make
from transfer_queue import (
    BackPressureError,
    BatchMeta,
    DPGroupError,
    FieldError,
    LeaseError,
    NotReadyError,
    StepClearedError,
    TransferQueueClient,
    columns,
    wire,
)
from transfer_queue.connection import Connection
from transfer_queue.errors import (
    ControllerLostError,
    ControllerTimeoutError,
    ExhaustedError,
    FieldLostError,
    GroupError,
    TransferQueueError,
)
from transfer_queue.storage import arena as arenas
from transfer_queue.storage.arena import Arena
from transfer_queue.storage.reader import Reader
from transfer_queue.storage.shm import ShmPlane
from transfer_queue.transport.channel import UnixChannel

PRODUCER_POINTS = ("in_arena_write", "segment_made", "before_put", "put_sent", "recycled")
CONSUMER_POINTS = ("in_read", "before_ack", "ack_sent", "meta_sent")
SAMPLES, RANKS, SLOT_S = 2, 2, 3.0
LEASE_S = 2.5
PATIENCE_S = 5.0
AWAY = (ControllerLostError, ControllerTimeoutError)


def wrap() -> None:
    """Put the points in place."""
    columns._has_torch = lambda: False
    arenas.SMALLEST_SEGMENT = 1 << 20
    asked: list[type] = [object]
    ahead = {wire.Put: Point("before_put"), wire.Ack: Point("before_ack")}
    behind = {wire.Put: Point("put_sent"), wire.Ack: Point("ack_sent")}
    gone = Point("meta_sent")
    torn, call, send, copy = Point("in_arena_write"), Connection.call, UnixChannel.send, Arena._copy

    def calling(self: Connection, client: str, body: Any, *args: Any) -> Any:
        asked[0] = type(body)
        if asked[0] in ahead:
            ahead[asked[0]].passed()
        return call(self, client, body, *args)

    def sending(self: UnixChannel, parts: Any, deadline: float) -> None:
        send(self, parts, deadline)
        if asked[0] in behind:
            behind[asked[0]].passed()
        elif asked[0] is wire.GetMeta and gone.armed():
            self.close()  # the kernel takes longer over a killed process than the controller over its answer
            gone.end()

    def copying(self: Arena, sources: Any, extents: Any) -> Any:
        if torn.armed():
            extent, half = extents[0], len(sources[0]) // 2
            self._bytes[extent.segment][extent.offset : extent.offset + half] = sources[0][:half]
            torn.end()
        return copy(self, sources, extents)

    Connection.call, UnixChannel.send, Arena._copy = calling, sending, copying  # type: ignore[method-assign]
    before(ShmPlane, "_attach", "segment_made")
    before(Arena, "recycle", "recycled")
    before(Reader, "gather", "in_read")


class Worker:
    """What all roles share."""

    def __init__(self, role: str, number: int, incarnation: int, folder: Path) -> None:
        self.role, self.number, self.folder = role, number, folder
        self.chance = random.Random(f"{role} {number} {incarnation}")
        self.notes = Notes(folder / "truth" / f"{role}-{number}-{incarnation}")
        self.keys = random.Random(f"keys {role} {number} {incarnation}").getrandbits(40) << 20
        info = json.loads((folder / "info").read_text())
        self.client = TransferQueueClient(f"{role}{number}", info, call_timeout_s=30.0)

    def key(self) -> int:
        self.keys += 1
        return self.keys

    def wanted(self, what: str) -> bool:
        return (self.folder / what).exists()

    def run(self) -> None:
        """Work until the folder says that it is over; whatever was not foreseen is noted and fails the soak."""
        act: Callable[[], None] = {"producer": self.produce, "train": self.train}.get(self.role, self.consume)
        while self.wanted("consuming" if self.role != "producer" else "producing"):
            try:
                act()
            except (NotReadyError, BackPressureError, ExhaustedError, StepClearedError, *AWAY):
                continue
            except Exception:  # noqa: BLE001 - it is written down, and the soak fails
                self.notes.note("bad", text=f"{self.role}{self.number}: {traceback.format_exc()}")
        self.client.close()

    # Producers

    def produce(self) -> None:
        """One row of a named group after the other, or several groups at once; small values, or large ones too."""
        large = self.chance.random() < 0.5
        if self.chance.random() < 0.5:
            label = f"{self.key()}"
            for _ in range(SAMPLES):
                self.put(1, large, label)
        else:
            self.put(SAMPLES * self.chance.randint(1, 6), large, None)
        time.sleep(self.chance.random() * 0.05)

    def put(self, rows: int, large: bool, label: str | None) -> None:
        prompts = [make(self.key(), self.chance.randint(16, 300)) for _ in range(rows)]
        size = self.chance.choice((70_000, 100_000, 300_000)) if large else self.chance.randint(16, 2000)
        blobs = [np.frombuffer(make(self.key(), size), np.uint8) for _ in range(rows)]
        meta = self.client.put({"prompt": prompts, "blob": blobs}, group_id=label, timeout_s=PATIENCE_S)
        self.notes.note("put", ids=meta.global_indexes, sums=[checksum(prompt) for prompt in prompts])

    # Consumers

    def consume(self) -> None:
        """Rollouts read prompts and write responses, rewards read responses and write numbers."""
        fields = ["prompt", "blob"] if self.role == "rollout" else ["prompt", "response"]
        count = self.chance.randint(1, 8)
        meta = self.client.get_meta(fields, count, task_name=self.role, lease_s=LEASE_S, timeout_s=1.0)
        if not self.read(meta, fields):
            return
        fate = self.chance.random()
        try:
            if fate < 0.05:
                self.client.release(meta)
            elif fate < 0.08:
                self.notes.note("try drop", ids=meta.global_indexes)
                self.client.drop(meta, "dull")
            elif fate < 0.10:
                time.sleep(LEASE_S + 0.5)
                self.ack(meta)  # too late, unless the queue's time stood still meanwhile
            else:
                self.finish(meta)
        except (LeaseError, StepClearedError):
            return

    def finish(self, meta: BatchMeta) -> None:
        """Write what the next task reads, and acknowledge."""
        self.notes.note("wrote", task=self.role, ids=meta.global_indexes)
        size = self.chance.choice((16, 500, 90_000))
        if self.role == "rollout":
            made = [np.frombuffer(make(self.key(), size), np.uint8) for _ in range(len(meta))]
            self.client.put({"response": made}, metadata=meta, timeout_s=PATIENCE_S)
        else:
            self.client.put({"reward": [make(self.key(), 24) for _ in range(len(meta))]}, metadata=meta)
        if self.chance.random() < 0.2:
            self.client.extend(meta, LEASE_S)
        self.ack(meta)

    def ack(self, meta: BatchMeta) -> None:
        self.notes.note("try ack", task=self.role, ids=meta.global_indexes)
        self.client.ack(meta)
        more = {"lease": meta.lease, "rank": meta.dp_rank}
        self.notes.note("ack", task=self.role, ids=meta.global_indexes, **more)

    def train(self) -> None:
        """Both ranks ask under names that the clock gives, so that one that died finds the other again."""
        slot, end = divmod(time.time(), SLOT_S)
        for number in range(20):
            if time.time() // SLOT_S != slot:
                return
            place = {"dp_rank": self.number, "dp_size": RANKS, "dp_group_id": f"{slot:.0f}.{number}"}
            fields = ["prompt", "response", "reward"]
            try:
                meta = self.client.get_meta(
                    fields, 2 * SAMPLES, task_name="train", sampler_params=place, lease_s=LEASE_S, timeout_s=1.0
                )
                groups = [meta.group_ids[i : i + SAMPLES] for i in range(0, len(meta), SAMPLES)]
                if any(len(set(group)) != 1 for group in groups):
                    self.notes.note("bad", text=f"groups are not whole: {meta}")
                if self.read(meta, fields):
                    self.ack(meta)
            except (LeaseError, DPGroupError, GroupError):
                continue
        time.sleep(max(0.0, SLOT_S - end))

    def read(self, meta: BatchMeta, fields: list[str]) -> bool:
        """Whether all values could be read; a lease that is over meanwhile is no fault, a changed byte is."""
        try:
            data = self.client.get_data(meta, fields, plain=True)
        except (FieldError, FieldLostError, StepClearedError) as error:
            try:
                self.client.extend(meta, LEASE_S)
            except (LeaseError, FieldLostError):
                return False
            self.notes.note("bad", text=f"values under a live lease cannot be read: {meta}: {error}")
            return False
        sums: dict[str, list[int | None]] = {name: [] for name in fields}
        keys: dict[str, list[int]] = {name: [] for name in fields}
        for name in fields:
            for value in data[name]:
                whole = value if isinstance(value, bytes) else np.asarray(value).tobytes()
                try:
                    keys[name].append(key_of(whole))
                    sums[name].append(checksum(whole))
                except ValueError:
                    sums[name].append(None)
        if any(None in found for found in sums.values()):
            try:
                self.client.extend(meta, LEASE_S)
            except (LeaseError, TransferQueueError):
                return False
            self.notes.note("bad", text=f"changed values under a live lease: {meta} {sums}")
            return False
        self.notes.note("seen", task=self.role, ids=meta.global_indexes, sums=sums["prompt"], keys=keys["prompt"])
        return True


if __name__ == "__main__":
    wrap()
    Worker(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])).run()
