"""Whatever clients do, and whenever the controller dies: the journal gives the same queue again, and nothing twice."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.transfer_queue.journalled import Node, Peer, image, put_of, want_of
from transfer_queue import wire

PICK = st.integers(0, 1000)
FAST = Path("/dev/shm")
"""Where nobody waits for a disk."""
SEGMENT = 64
TASKS = ("rollout", "train")


class Bytes:
    """Whose each byte of a segment is: the producer's, or the controller's since it was put."""

    def __init__(self) -> None:
        self.mine = [True] * SEGMENT

    def first(self, size: int) -> int | None:
        for offset in range(SEGMENT - size + 1):
            if all(self.mine[offset : offset + size]):
                return offset
        return None

    def mark(self, offset: int, size: int, mine: bool) -> None:
        for at in range(offset, offset + size):
            assert self.mine[at] is not mine, f"byte {at} is given back twice, or put twice"
            self.mine[at] = mine


class QueueMachine(RuleBasedStateMachine):
    """Sessions that ask, crash, ask again; a segment whose bytes are counted one by one."""

    @initialize(samples=st.sampled_from([1, 2]), tasks=st.sampled_from([(), ("rollout", "train")]))
    def begin(self, samples: int, tasks: tuple[str, ...]) -> None:
        self.home = Path(tempfile.mkdtemp(dir=FAST if FAST.is_dir() else None))
        self.arenas = self.home / "arenas"
        self.arenas.mkdir()
        self.samples, self.tasks = samples, tasks
        self.node = Node(self.home / "journal", self.arenas, num_n_samples=samples, tasks=tasks)
        self.peers = [Peer(self.node, 100 + i) for i in range(3)]
        self.segments: dict[int, Bytes] = {}
        self.files: list[int] = []
        self.leases: list[tuple[str, int, list[int], int | None]] = []
        self.acked: dict[str, set[int]] = {task: set() for task in TASKS}
        self.put_ids: set[int] = set()
        self.reads: list[tuple[Peer, int, Any]] = []
        self.labels = 0

    def teardown(self) -> None:
        if hasattr(self, "node"):
            self.node.close()
            for file in self.files:
                os.close(file)
            shutil.rmtree(self.home)

    def ask(self, pick: int, body: wire.Body, frames: list[bytes] | None = None, how: str = "plain") -> Any:
        """One request, whose connection may break before or behind the journal's write; asked again until answered."""
        peer = self.peers[pick % len(self.peers)]
        peer.send(body, frames or [])
        if how == "before":
            self.crash()
            peer.again()
        elif how == "behind":
            self.node.journal.commit()
            self.crash()
            peer.again()
        elif how == "deaf":
            peer.link.deaf = True
            self.node.service.settle()
            self.node.service.gone(peer.link)
            self.node.service.settle()
            peer.link = self.node.link()
            return None
        self.node.service.settle()
        first = peer.answer()
        if how == "twice" and first is not None and not isinstance(first, wire.Failure | wire.Values):
            peer.again()
            self.node.service.settle()
            assert peer.answer() == first
        if first is None:  # it waits; let it go away
            self.node.service.gone(peer.link)
            peer.link = self.node.link()
        self.node.service.settle()
        return first

    def crash(self) -> None:
        self.node.crash()
        self.node.restart()
        self.reads.clear()
        for peer in self.peers:
            peer.node = self.node

    HOW = st.sampled_from(["plain", "plain", "plain", "before", "behind", "twice"])
    HOW_TO_TAKE = st.sampled_from(["plain", "plain", "before", "behind", "twice", "deaf"])

    @rule(who=PICK, count=st.integers(1, 4), step=st.sampled_from([None, None, 0, 1]), named=st.booleans(), how=HOW)
    def put(self, who: int, count: int, step: int | None, named: bool, how: str) -> None:
        self.labels += 1
        count = count if named else count * self.samples
        groups: list[str | int] | None = (
            [f"g{(self.labels + i) // self.samples}" for i in range(count)] if named else None
        )
        body, frames = put_of(count, step=step, group_ids=groups, timeout_s=5.0)
        self.note(self.ask(who, body, frames, how))

    def note(self, reply: Any) -> None:
        if isinstance(reply, wire.Rows):
            assert not self.put_ids & set(reply.indexes)
            self.put_ids |= set(reply.indexes)

    @rule(who=PICK, how=HOW)
    def attach(self, who: int, how: str) -> None:
        if len(self.segments) >= 2:
            return
        path = self.arenas / f"segment-{len(self.files)}"
        path.write_bytes(bytes(SEGMENT))
        self.files.append(os.open(path, os.O_RDWR))
        fcntl.flock(self.files[-1], fcntl.LOCK_EX)
        reply = self.ask(who, wire.Attach(str(path), SEGMENT), how=how)
        assert isinstance(reply, wire.Attached)
        assert reply.segment not in self.segments
        self.segments[reply.segment] = Bytes()

    @precondition(lambda self: self.segments)
    @rule(who=PICK, count=st.integers(1, 3), size=st.integers(1, 6), where=PICK, how=HOW)
    def put_large(self, who: int, count: int, size: int, where: int, how: str) -> None:
        count *= self.samples
        number = list(self.segments)[where % len(self.segments)]
        offset = self.segments[number].first(count * size)
        if offset is None:
            return
        column = wire.Column("x", wire.OBJECT, [], [size] * count)
        reply = self.ask(who, wire.Put(count, [column], timeout_s=5.0, extents=[(number, offset)]), how=how)
        self.note(reply)
        if isinstance(reply, wire.Rows):
            self.segments[number].mark(offset, count * size, mine=False)

    @precondition(lambda self: self.segments)
    @rule(who=PICK, how=HOW)
    def recycle(self, who: int, how: str) -> None:
        reply = self.ask(who, wire.Recycle(list(self.segments)), how=how)
        assert isinstance(reply, wire.Recycled)
        places = self.live_places()
        for number, offset, size in reply.ranges:
            self.segments[number].mark(offset, size, mine=True)
            for other, start, length in places + [place for _, _, read in self.reads for place in read]:
                assert number != other or start + length <= offset or offset + size <= start

    def live_places(self) -> list[tuple[int, int, int]]:
        found = []
        for fields in self.node.state.catalog.partitions.values():
            for field in fields.values():
                for number, chunk in field.chunks.items():
                    if chunk.frame is None:
                        found += [chunk.place(position) for position in field.live(chunk, number)]
        return found

    @rule(
        who=PICK, task=st.sampled_from(TASKS), count=st.integers(1, 3), lease=st.sampled_from([None, 5.0, 50.0]),
        step=st.sampled_from([None, None, 0]), whole=st.booleans(), rank=st.sampled_from([None, None, 0, 1]),
        how=HOW_TO_TAKE,
    )  # fmt: skip
    def take(
        self, who: int, task: str, count: int, lease: float | None, step: int | None, whole: bool, rank: int | None,
        how: str,
    ) -> None:  # fmt: skip
        count *= self.samples if whole else 1
        params = None if rank is None else {"dp_rank": rank, "dp_size": 2, "dp_group_id": f"{task}{count}"}
        more = {"lease_s": lease, "step": step, "get_n_samples": whole, "params": params}
        reply = self.ask(who, want_of(count, task, **more), how=how)
        if isinstance(reply, wire.Rows):
            if reply.lease is not None:
                self.leases.append((task, reply.lease, reply.indexes, reply.dp_rank))
            elif rank is None:
                self.consume(task, reply.indexes)

    def consume(self, task: str, indexes: list[int]) -> None:
        assert not self.acked[task] & set(indexes), "consumed twice"
        self.acked[task] |= set(indexes)

    @precondition(lambda self: self.leases)
    @rule(who=PICK, pick=PICK, act=st.sampled_from(["ack", "ack", "release", "drop", "refill", "extend"]), how=HOW)
    def end(self, who: int, pick: int, act: str, how: str) -> None:
        task, lease, indexes, rank = self.leases[pick % len(self.leases)]
        body: wire.Body = {
            "ack": wire.Ack(lease, rank),
            "release": wire.Release(lease),
            "drop": wire.Drop(lease, "dull"),
            "refill": wire.Drop(lease, "dull", refill=True),
            "extend": wire.Extend(lease, 20.0),
        }[act]
        reply = self.ask(who, body, how=how)
        if act == "ack" and isinstance(reply, wire.Done) and rank is None:
            self.consume(task, indexes)
        if act != "extend":
            self.leases.remove((task, lease, indexes, rank))

    @precondition(lambda self: self.leases)
    @rule(who=PICK, pick=PICK, field=st.sampled_from(["y", "z"]), how=HOW)
    def put_more(self, who: int, pick: int, field: str, how: str) -> None:
        _, lease, indexes, _ = self.leases[pick % len(self.leases)]
        body, frames = put_of(len(indexes), field=field, indexes=indexes, lease=lease)
        self.ask(who, body, frames, how)

    @precondition(lambda self: self.put_ids)
    @rule(who=PICK, pick=PICK, count=st.integers(1, 3))
    def read(self, who: int, pick: int, count: int) -> None:
        known = sorted(self.put_ids)
        indexes = [known[(pick + i) % len(known)] for i in range(count)]
        peer = self.peers[who % len(self.peers)]
        peer.send(wire.GetData(list(dict.fromkeys(indexes)), ["x"], task=TASKS[pick % 2]))
        self.node.service.settle()
        reply = peer.answer()
        if isinstance(reply, wire.Values) and reply.placed:
            places = [self.node.state.catalog._find("x", index) for index in dict.fromkeys(indexes)]
            found = [chunk.place(at) for chunk, at in places if chunk.frame is None]
            self.reads.append((peer, reply.read, found))

    @precondition(lambda self: self.reads)
    @rule(pick=PICK)
    def end_read(self, pick: int) -> None:
        peer, token, _ = self.reads.pop(pick % len(self.reads))
        peer.send(wire.EndRead(token))
        self.node.service.settle()

    @rule(who=PICK, step=st.integers(0, 2), force=st.booleans(), how=HOW, really=st.sampled_from([True, False, False]))
    def clear(self, who: int, step: int, force: bool, how: str, really: bool) -> None:
        if really:
            self.ask(who, wire.Clear(step, force), how=how)

    @rule(seconds=st.sampled_from([0.5, 3, 6, 60, 400]))
    def let_time_pass(self, seconds: float) -> None:
        self.node.clock.now += seconds
        self.node.service.tick()
        self.node.service.settle()

    @rule()
    def crash_now(self) -> None:
        self.crash()

    @rule()
    def compact(self) -> None:
        self.node.service.settle()
        self.node.compact()

    @invariant()
    def the_journal_tells_the_same(self) -> None:
        if not hasattr(self, "node"):
            return
        self.node.service.settle()
        live, found = self.node.state, self.node.replayed()
        live.now = found.now
        assert image(found) == image(live)
        assert self.node.failures == []


QueueMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestQueue = QueueMachine.TestCase
