"""A client that sends any segment messages gets typed answers, and touches nobody else's memory."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.transfer_queue.journalled import Node, Peer
from tests.transfer_queue.test_replay import FAST, SEGMENT, Bytes
from transfer_queue import wire
from transfer_queue.readers import COPYING_S

NUMBERS = st.integers(-1, 3)
OFFSETS = st.one_of(st.integers(-8, SEGMENT + 8), st.sampled_from([2**31, 2**62, 2**63 - 1]))
SIZES = st.one_of(st.integers(0, 24), st.sampled_from([SEGMENT, SEGMENT + 1, 2**40]))
EXTENTS = st.tuples(NUMBERS, OFFSETS)
STEPS = 2


class Home:
    """A queue, and two clients of it with a segment each: 0 is the victim's, 1 the stranger's."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=FAST if FAST.is_dir() else None))
        self.arenas = self.folder / "arenas"
        self.arenas.mkdir()
        (self.arenas / "lock").write_bytes(bytes(SEGMENT))
        self.node = Node(self.folder / "journal", self.arenas, num_global_batch=STEPS)
        self.victim, self.stranger = Peer(self.node, 1, "victim"), Peer(self.node, 2, "stranger")
        self.files: list[int] = []
        self.paths = [self.attach(peer) for peer in (self.victim, self.stranger)]

    def attach(self, peer: Peer) -> Path:
        path = self.arenas / f"{peer.name}-0"
        path.write_bytes(bytes(SEGMENT))
        self.files.append(os.open(path, os.O_RDWR))
        fcntl.flock(self.files[-1], fcntl.LOCK_EX)
        assert isinstance(peer.ask(wire.Attach(str(path), SEGMENT)), wire.Attached)
        return path

    def placed(self) -> list[tuple[int, tuple[int, int, int]]]:
        """Every row with a value in a segment, and where."""
        found = []
        for serial, fields in self.node.state.catalog.partitions.items():
            for field in fields.values():
                for number, chunk in field.chunks.items():
                    if chunk.frame is None:
                        found += [(serial << 32 | chunk.rows[at], chunk.place(at)) for at in field.live(chunk, number)]
        return found

    def close(self) -> None:
        self.node.close()
        for file in self.files:
            os.close(file)
        shutil.rmtree(self.folder)


@pytest.fixture
def home() -> Iterator[Home]:
    made = Home()
    yield made
    made.close()


def column(name: str, sizes: list[int]) -> wire.Column:
    return wire.Column(name, wire.OBJECT, [], sizes)


class Messages(RuleBasedStateMachine):
    """The victim minds its own business; the stranger may say anything."""

    @initialize()
    def begin(self) -> None:
        self.home = Home()
        self.node, self.victim, self.stranger = self.home.node, self.home.victim, self.home.stranger
        self.bytes = Bytes()
        self.rows: dict[int, tuple[int, tuple[int, int, int]]] = {}
        self.strange: set[int] = set()
        self.leases: list[int] = []

    def teardown(self) -> None:
        if hasattr(self, "home"):
            self.home.close()

    @rule(size=st.integers(1, 12))
    def victim_puts(self, size: int) -> None:
        offset = self.bytes.first(size)
        if offset is None:
            return
        put = wire.Put(1, [column("x", [size])], timeout_s=0.0, extents=[(0, offset)])
        reply = self.victim.ask(put)
        if not isinstance(reply, wire.Rows):  # the steps are full, for whatever reason: anybody may clear them
            self.time_passes(1.0)
            for step in range(STEPS):
                self.clear(step)
            reply = self.victim.ask(put)
        assert isinstance(reply, wire.Rows), reply
        self.bytes.mark(offset, size, mine=False)
        self.rows[reply.indexes[0]] = reply.steps[0], (0, offset, size)

    @rule()
    def victim_recycles(self) -> None:
        reply = self.victim.ask(wire.Recycle([0]))
        assert isinstance(reply, wire.Recycled)
        for number, offset, size in reply.ranges:
            assert number == 0
            self.bytes.mark(offset, size, mine=True)

    @rule(step=st.integers(0, STEPS - 1))
    def clear(self, step: int) -> None:
        alive = [each.step for each in self.node.state.ledger.steps.in_order()]
        step = alive[step] if step < len(alive) else step
        self.victim.ask(wire.Clear(step, True))
        self.rows = {row: (at, place) for row, (at, place) in self.rows.items() if at != step}

    def strangely(self, body: wire.Body, frames: list[bytes] | None = None) -> Any:
        reply = self.stranger.ask(body, frames or [])
        assert not isinstance(reply, wire.Failure) or reply.name != "RequestError", reply.message
        if isinstance(reply, wire.Rows):
            self.strange |= set(reply.indexes) if isinstance(body, wire.Put) and not body.indexes else set()
            self.leases += [reply.lease] * (reply.lease is not None)
        return reply

    @rule(rows=st.integers(1, 2), extents=st.lists(EXTENTS, min_size=1, max_size=2), size=SIZES)
    def puts_anywhere(self, rows: int, extents: list[tuple[int, int]], size: int) -> None:
        columns = [column(name, [size] * rows) for name in ("x", "y")[: len(extents)]]
        self.strangely(wire.Put(rows, columns, timeout_s=0.0, extents=extents))

    @rule(offset=st.integers(0, SEGMENT), size=st.integers(0, 12))
    def puts_into_its_own(self, offset: int, size: int) -> None:
        self.strangely(wire.Put(1, [column("x", [size])], timeout_s=0.0, extents=[(1, offset)]))

    @rule(row=st.integers(0, 8), twice=st.booleans(), extent=EXTENTS, size=st.integers(0, 12), lease=st.none())
    def puts_more_fields(self, row: int, twice: bool, extent: tuple[int, int], size: int, lease: int | None) -> None:
        indexes = [row] * (1 + twice)
        named = [column("z", [size] * len(indexes))]
        self.strangely(wire.Put(len(indexes), named, indexes, lease, timeout_s=0.0, extents=[extent]))

    @rule(numbers=st.lists(NUMBERS, max_size=3))
    def recycles(self, numbers: list[int]) -> None:
        reply = self.strangely(wire.Recycle(numbers))
        if isinstance(reply, wire.Recycled):
            assert {number for number, _, _ in reply.ranges} <= {1}
            assert len(set(reply.ranges)) == len(reply.ranges), "one range is given twice"

    @rule(numbers=st.lists(NUMBERS, max_size=3), lost=st.booleans())
    def detaches_or_misses(self, numbers: list[int], lost: bool) -> None:
        self.strangely(wire.Lost(numbers) if lost else wire.Detach(numbers))

    @rule(
        path=st.sampled_from(["victim-0", "stranger-0", "lock", "none-0", "../journal", ""]),
        size=st.integers(-1, SEGMENT + 1),
    )
    def attaches(self, path: str, size: int) -> None:
        assert isinstance(self.strangely(wire.Attach(str(self.home.arenas / path), size)), wire.Failure)

    @rule(task=st.sampled_from(["a", "b"]), seconds=st.floats(1, 100))
    def leases_rows(self, task: str, seconds: float) -> None:
        self.strangely(wire.GetMeta(task, ["x"], 1, None, False, None, seconds, 0.0))

    @rule(pick=st.integers(0, 9), end=st.sampled_from(["release", "drop", "ack"]))
    def ends_a_lease_again(self, pick: int, end: str) -> None:
        lease = self.leases[pick % len(self.leases)] if self.leases else pick
        bodies: dict[str, wire.Body] = {
            "release": wire.Release(lease),
            "drop": wire.Drop(lease, "dull"),
            "ack": wire.Ack(lease),
        }
        self.strangely(bodies[end])
        assert isinstance(self.strangely(bodies[end]), wire.Failure)

    @rule(rows=st.lists(st.integers(0, 8), min_size=1, max_size=3))
    def reads(self, rows: list[int]) -> None:
        self.strangely(wire.GetData(rows, ["x"]))

    @rule()
    def hangs_up(self) -> None:
        self.node.service.gone(self.stranger.link)
        self.stranger.link = self.node.link()

    @rule(number=st.integers(0, 9), secret=st.sampled_from([0, 1, 2**31 - 1]))
    def ends_a_read_by_guess(self, number: int, secret: int) -> None:
        self.stranger.ask(wire.EndRead(number << 31 | secret))

    @rule(seconds=st.sampled_from([1.5, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.node.clock.now += seconds
        self.node.service.tick()
        self.node.service.settle()
        self.node.service.places.sweep()

    @invariant()
    def nobody_elses_memory_is_touched(self) -> None:
        if not hasattr(self, "home"):
            return
        catalog, placed = self.node.state.catalog, self.home.placed()
        assert self.home.paths[0].exists()
        assert (self.home.arenas / "lock").exists()
        assert not catalog.segments.known[0].orphan
        assert {(row, place) for row, (_, place) in self.rows.items()} <= set(placed)
        assert not [place for row, place in placed if row in self.strange and place[0] == 0]
        for number, segment in catalog.segments.known.items():
            live = [place[1:] for _, place in placed if place[0] == number and place[2]]
            assert segment.live == sum(size for _, size in live)
            places = sorted(live + catalog.segments.all_free(segment))
            ends = [0, *(offset + size for offset, size in places)]
            assert all(offset >= end for (offset, _), end in zip(places, ends, strict=False)), places
            assert ends[-1] <= SEGMENT


Messages.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMessages = Messages.TestCase


def test_no_client_ends_the_reads_of_those_that_no_connection_vouches_for(home: Home) -> None:
    home.node.service.settle()
    home.node.crash()
    home.node.restart()
    stranger = Peer(home.node, 3, "stranger")
    segments = home.node.state.catalog.segments
    assert segments.reads
    for number in range(8):
        stranger.ask(wire.EndRead(number << 31))
    assert segments.reads
    home.node.clock.now += COPYING_S + 2.0
    home.node.service.tick()

    assert not segments.reads


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (wire.Put(1, [column("x", [8])], extents=[(0, 8)]), "segment 0 is of client 'victim', not of 'stranger'"),
        (wire.Put(1, [column("x", [8])], extents=[(1, 60)]), "reach past the 64 bytes of segment 1"),
        (wire.Put(1, [column("x", [8])], extents=[(7, 0)]), "segment 7 is not attached"),
        (wire.Put(1, [column("x", [8]), column("y", [8])], extents=[(1, 0), (1, 4)]), "8 bytes at 4 of segment 1 are"),
        (wire.Recycle([0]), "segment 0 is of client 'victim'"),
        (wire.Detach([1, 0]), "segment 0 is of client 'victim'"),
    ],
)
def test_what_is_wrong_is_said(home: Home, body: wire.Body, sentence: str) -> None:
    answer = home.stranger.ask(body)

    assert (answer.name, sentence in answer.message) == ("FieldError", True), answer


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("victim-0", SEGMENT, "is segment 0 already"),
        ("lock", SEGMENT, "is no segment of this queue"),
        ("none-0", SEGMENT, "cannot be read"),
        ("stranger-1", 0, "has 64 bytes, not 0"),
    ],
)
def test_only_a_file_of_its_own_can_be_attached(home: Home, name: str, size: int, sentence: str) -> None:
    if name == "stranger-1":
        (home.arenas / name).write_bytes(bytes(SEGMENT))
    answer = home.stranger.ask(wire.Attach(str(home.arenas / name), size))

    assert (answer.name, sentence in answer.message) == ("FieldError", True), answer


def test_bytes_that_hold_values_or_wait_to_be_given_back_are_not_put_over(home: Home) -> None:
    put = wire.Put(1, [column("x", [8])], step=0, extents=[(1, 8)])
    assert isinstance(home.stranger.ask(put), wire.Rows)
    assert "8 bytes at 8 of segment 1 are not the producer's" in home.stranger.ask(put).message
    home.stranger.ask(wire.Clear(0, True))
    assert "not the producer's" in home.stranger.ask(put).message
    home.node.service.settle()
    home.node.crash()
    home.node.restart()
    home.stranger = Peer(home.node, 4, "stranger")
    assert "not the producer's" in home.stranger.ask(put).message
    home.node.clock.now += COPYING_S + 2.0
    home.node.service.tick()
    assert home.stranger.ask(wire.Recycle([1, 1])).ranges == [(1, 8, 8)]

    assert isinstance(home.stranger.ask(wire.Put(1, [column("x", [8])], step=1, extents=[(1, 8)])), wire.Rows)
