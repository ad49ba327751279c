"""What the service does between the journal's write and the replies, and when one of the two fails."""

import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.transfer_queue.journalled import Node, Peer, image, put_of, want_of
from transfer_queue import engine, wire
from transfer_queue.checkpoint import write
from transfer_queue.errors import JournalError, ProtocolError
from transfer_queue.journal import Compactor, Journal
from transfer_queue.ledger import QueueShape, Want
from transfer_queue.operations import Take
from transfer_queue.recovery import identity_of
from transfer_queue.waiting import Caller


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    (tmp_path / "arenas").mkdir()
    made = Node(tmp_path / "journal", tmp_path / "arenas", capacity_bytes=1000)
    yield made
    made.close()


@pytest.fixture
def peer(node: Node) -> Peer:
    return Peer(node, 1)


def put(peer: Peer, count: int = 1, **more: Any) -> Any:
    return peer.ask(*put_of(count, **more))


def fill_the_disk(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(node.journal._segment, "write", write)


def same_after_a_restart(node: Node) -> bool:
    live, found = node.state, node.replayed()
    live.now = found.now
    return bool(image(found) == image(live))


def test_what_nobody_waits_for_is_written_too(node: Node, peer: Peer) -> None:
    """Rows that went back because their consumer was gone, and leases that ran out, with no request behind them."""
    put(peer, 2)
    gone = Peer(node, 2)
    gone.send(want_of(1))
    gone.link.deaf = True
    node.service.settle()
    assert same_after_a_restart(node)
    peer.ask(want_of(1, lease_s=5.0))
    node.clock.now += 10
    node.service.tick()
    node.service.settle()
    assert node.state.ledger.leases.live == {}
    assert same_after_a_restart(node)


def test_who_waited_hears_before_who_woke_it(node: Node, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    waiter = Peer(node, 2)
    waiter.ask(want_of(1))
    for name, link in (("producer", peer.link), ("consumer", waiter.link)):
        send = link.send
        monkeypatch.setattr(link, "send", lambda parts, name=name, send=send: (order.append(name), send(parts))[1])
    put(peer, 1)

    assert order == ["consumer", "producer"]


def test_nothing_is_done_any_more_once_the_journal_failed(
    node: Node, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came behind would be written on top of something that is not."""
    put(peer)
    with monkeypatch.context() as full:
        fill_the_disk(node, full)
        answer = put(peer, 2)
        assert (answer.name, "No space left" in answer.message) == ("JournalError", True)
        assert isinstance(node.failures[0], JournalError)
    late = Peer(node, 2)
    assert late.ask(want_of(3)) is None
    assert late.link.deaf
    node.service.tick()
    node.service.settle()
    node.service.close()
    node.restart()

    assert node.state.ledger.rows_put == 1
    assert len(Peer(node, 3).ask(want_of(1)).indexes) == 1


@pytest.mark.parametrize("sealing", ["compaction", "checkpoint"])
def test_a_disk_that_is_full_when_a_segment_ends_is_no_silent_loss(
    node: Node, peer: Peer, sealing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(peer)
    if sealing == "checkpoint":
        peer.send(*put_of(1))
        fill_the_disk(node, monkeypatch)
        Peer(node, 2).send(wire.Checkpoint(str(tmp_path / "checkpoint")))
    else:
        node.service._compactor = Compactor(node.journal, "no:fold")
        monkeypatch.setattr(node.service._compactor._policy, "wants", lambda *_: True)
        peer.ask(want_of(1, lease_s=2.0))
        node.clock.now += 10
        fill_the_disk(node, monkeypatch)
        node.service.tick()
    node.service.settle()
    assert [type(error) for error in node.failures] == [JournalError]
    assert sealing == "compaction" or peer.answer().name == "JournalError"
    monkeypatch.undo()
    node.service.close()
    node.restart()

    assert node.state.ledger.rows_put == 1


def test_a_put_too_large_for_the_journal_changes_nothing(
    node: Node, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transfer_queue.service.MOST_INSIDE", 100)
    answer = put(peer, 2, value=bytes(100))
    assert (answer.name, "put fewer rows at once" in answer.message) == ("FieldError", True)
    assert put(peer, 2).indexes == [0, 1]
    assert same_after_a_restart(node)


def test_an_answer_that_cannot_be_sent_harms_nobody_else(
    node: Node, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(peer, 2)
    greedy, other = Peer(node, 2), Peer(node, 3)
    send: Any = greedy.link.send

    def too_large(parts: Any) -> bool:
        if isinstance(wire.decode_reply(parts[0]).body, wire.Rows):
            raise ProtocolError("a message of 3 GiB")
        return bool(send(parts))

    monkeypatch.setattr(greedy.link, "send", too_large)
    greedy.send(want_of(1))
    other.send(want_of(1, "other"))
    node.service.settle()

    assert "a message of 3 GiB" in greedy.answer().message
    assert other.answer().indexes == [0]
    assert peer.ask(want_of(2)).indexes == [0, 1]


@pytest.mark.parametrize("lease_s", [None, 5.0])
def test_a_step_that_was_cleared_before_its_consumer_was_found_gone(
    node: Node, peer: Peer, lease_s: float | None
) -> None:
    put(peer, step=0)
    gone, other = Peer(node, 2), Peer(node, 3)
    gone.send(want_of(1, step=0, lease_s=lease_s))
    gone.link.deaf = True
    peer.send(wire.Clear(0, force=True))
    other.send(wire.GetStats())
    node.service.settle()

    assert peer.answer() == wire.Done(True)
    assert other.answer().partitions == []
    assert same_after_a_restart(node)


def attached(node: Node, peer: Peer) -> tuple[int, Path, int]:
    """A segment of 64 bytes that somebody holds: its number, path, and the descriptor that holds it."""
    assert node.arenas is not None
    path = node.arenas / f"segment-{len(os.listdir(node.arenas))}"
    path.write_bytes(bytes(64))
    file = os.open(path, os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    return peer.ask(wire.Attach(str(path), 64)).segment, path, file


def put_at(peer: Peer, segment: int, offset: int, size: int) -> Any:
    column = wire.Column("x", wire.OBJECT, [], [size])
    return peer.ask(wire.Put(1, [column], extents=[(segment, offset)]))


def test_a_file_goes_when_the_journal_says_so_and_not_before(node: Node, peer: Peer) -> None:
    """A crash in between would bring back rows whose values are gone."""
    segment, path, file = attached(node, peer)
    put_at(peer, segment, 0, 10)
    os.close(file)
    peer.send(wire.Clear(0))
    peer.send(wire.Detach([segment]))
    assert path.exists()
    node.service._looked_at -= 10
    node.service.tick()
    assert path.exists()
    node.service.settle()
    assert not path.exists()
    assert same_after_a_restart(node)


def test_a_file_that_its_owner_died_before_telling_of_goes(node: Node, peer: Peer) -> None:
    assert node.arenas is not None
    _, told, file = attached(node, peer)
    names = ("left-0", "held-0", "new-0", "lock")
    left, held, new, lock = (node.arenas / name for name in names)
    for path in (left, held, new, lock):
        path.write_bytes(b"")
    for path in (left, held, lock, told):
        os.utime(path, (1, 1))
    holding = os.open(held, os.O_RDWR)
    fcntl.flock(holding, fcntl.LOCK_EX)
    node.service._looked_at -= 10
    node.service.tick()
    node.service.settle()
    assert sorted(node.arenas.iterdir()) == sorted([held, new, lock, told])
    os.close(holding)
    os.close(file)


def test_a_file_goes_although_others_read_elsewhere(node: Node, peer: Peer) -> None:
    """On a busy queue somebody reads something at any moment."""
    first, path, file = attached(node, peer)
    second, _, other_file = attached(node, peer)
    gone, kept = put_at(peer, first, 0, 10), put_at(peer, second, 0, 10)
    reads = [peer.ask(wire.GetData(kept.indexes, ["x"])).read]
    assert peer.ask(wire.Clear(gone.steps[0])) == wire.Done(True)
    peer.ask(wire.Detach([first]))
    assert path.exists()
    kept = put_at(peer, second, 20, 10)
    reads.append(peer.ask(wire.GetData(kept.indexes, ["x"])).read)
    peer.send(wire.EndRead(reads[0]))
    node.service._looked_at -= 10
    node.service.tick()
    node.service.settle()
    assert not path.exists()
    os.close(file)
    os.close(other_file)


def test_a_range_that_a_reader_held_back_is_free_after_a_restart_too(node: Node, peer: Peer) -> None:
    segment, _, file = attached(node, peer)
    put_at(peer, segment, 0, 10)
    peer.ask(wire.Clear(0))
    held = put_at(peer, segment, 20, 10)
    read = peer.ask(wire.GetData(held.indexes, ["x"])).read
    peer.ask(wire.Clear(held.steps[0]))
    assert peer.ask(wire.Recycle([segment])).ranges == [(segment, 0, 10)]
    assert read >= 0
    assert same_after_a_restart(node)
    node.crash()
    node.restart()
    peer = Peer(node, 9)
    node.service.tick()

    assert peer.ask(wire.Recycle([segment])).ranges == [(segment, 20, 10)]
    os.close(file)


def test_who_waits_behind_a_put_that_ends_is_tried(node: Node, peer: Peer) -> None:
    """The first one waits for more bytes than there are; when it hangs up or its time is over, the second one fits."""
    put(peer, value=bytes(500))
    for session, ends in ((10, "hangs up"), (20, "too late")):
        large, small = Peer(node, session), Peer(node, session + 1)
        large.ask(*put_of(1, value=bytes(800), timeout_s=5.0))
        small.ask(*put_of(1, value=bytes(100), timeout_s=50.0))
        peer.ask(wire.Clear(99))
        assert (large.answer(), small.answer()) == (None, None)
        if ends == "hangs up":
            node.service.gone(large.link)
        else:
            node.clock.now += 6
            node.service.tick()
        node.service.settle()
        assert isinstance(small.answer(), wire.Rows)


def test_a_put_that_fails_when_its_turn_comes_does_not_stop_the_others(node: Node, peer: Peer) -> None:
    for step in (0, 1):
        put(peer, step=step)
    first, again, other = Peer(node, 10), Peer(node, 11), Peer(node, 12)
    for waiting, group in ((first, "a"), (again, "a"), (other, "b")):
        put(waiting, step=2, group_ids=[group])
    peer.ask(wire.Clear(1))

    assert first.answer().group_ids == ["a"]
    assert again.answer().name == "GroupError"
    assert other.answer().group_ids == ["b"]


def test_a_request_that_comes_again_while_it_waits_is_carried_out_once(node: Node, peer: Peer) -> None:
    """A client at the other end of a broken network is back before the controller knows that it was away."""
    for step in (0, 1):
        put(peer, step=step)
    putting, taking, recycling = Peer(node, 10), Peer(node, 11), Peer(node, 12)
    segment, _, file = attached(node, recycling)
    recycling.send(wire.Recycle([segment], 50.0))
    put(putting, step=2)
    taking.ask(want_of(1, step=2))
    links = [each.link for each in (putting, taking, recycling)]
    for each in (putting, taking, recycling):
        each.again()
    node.service.gone(links[0])
    node.service.settle()
    peer.ask(wire.Clear(1))
    assert [len(link.replies) for link in links[:2]] == [0, 0]
    assert putting.answer().steps == [2]
    assert taking.answer().indexes == putting.answer().indexes
    assert (node.state.ledger.rows_put, len(node.service.serving.room.recyclers)) == (3, 1)
    os.close(file)


def test_a_request_that_comes_behind_a_later_one_is_refused(node: Node, peer: Peer) -> None:
    put(peer)
    first = peer.last
    put(peer)
    assert first is not None
    late = node.link()
    node.hear(late, *first)
    node.service.settle()

    assert "came behind request 2" in late.replies[0][0].body.message  # type: ignore[union-attr]
    assert node.state.ledger.rows_put == 2


def test_a_record_that_cannot_be_what_happened_is_not_passed_over(node: Node, peer: Peer) -> None:
    put(peer)
    node.service.recorder._journal(None, Take(Want("train", ("x",), 3, None, False, None, "me", None, 60.0)), ())
    node.journal.commit()
    node.crash()
    with pytest.raises(JournalError, match=r"record 3 of the journal, Take.*, cannot be carried out"):
        node.restart()


def test_an_answer_that_no_message_can_hold_harms_nobody_else(
    node: Node, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "transfer_queue.replies")  # pytest's report could not hold it either
    put(peer, 2)
    hurt, other = Peer(node, 2), Peer(node, 3)
    node.service._replies.fail(Caller(hurt.link, 1, "hurt"), ValueError("no character: \udc80"))
    node.service._replies.reply(Caller(hurt.link, 2, "hurt"), wire.Located(["/no/character/\udc80"]))
    other.send(want_of(1, "other"))
    node.service.settle()

    assert [reply.body.name for reply, _ in hurt.link.replies] == ["RequestError", "ProtocolError"]
    assert other.answer().indexes == [0]


def test_no_step_is_so_late_that_its_number_fits_into_no_message(node: Node, peer: Peer) -> None:
    answer = put(peer, step=2**64 - 1)
    assert (answer.name, "out of range" in answer.message) == ("FieldError", True)
    put(peer, 4, step=2**53)
    assert put(peer, 1).steps == [2**53 + 1]


@pytest.mark.parametrize(("rows", "fields"), [(20, ["x"]), (2, ["x"] * 10)])
def test_what_no_answer_can_hold_is_refused_before_it_is_put_together(
    node: Node, peer: Peer, monkeypatch: pytest.MonkeyPatch, rows: int, fields: list[str]
) -> None:
    """One request that named row 0 a hundred thousand times kept the controller busy for minutes and took 7 GB."""
    monkeypatch.setattr("transfer_queue.reading.LONGEST_MESSAGE", 1000)
    put(peer, 4, value=bytes(100))
    collected = []
    collect = node.state.catalog._collect
    monkeypatch.setattr(node.state.catalog, "_collect", lambda *found: (collected.append(1), collect(*found))[1])

    answer = peer.ask(wire.GetData([0] * rows, fields))

    assert (answer.name, "ask for fewer rows" in answer.message) == ("FieldError", True)
    assert len(collected) < 10
    assert isinstance(peer.ask(wire.GetData([0, 1, 2, 3, 0, 1], ["x"])), wire.Values)


def test_a_put_that_waits_for_a_step_which_is_cleared_does_not_bring_it_back(node: Node, peer: Peer) -> None:
    """Nobody would ever take the rows of that step, and it would hold a place for ever."""
    put(peer, value=bytes(800), step=0)
    late = Peer(node, 2)
    late.send(*put_of(1, value=bytes(300), step=0))
    peer.ask(wire.Clear(0))

    assert late.answer().name == "StepClearedError"
    assert node.state.ledger.steps.alive == {}
    assert put(late, step=0).steps == [0]


@pytest.mark.parametrize("steps", [(0, 1, 2), (0, 0, 1)])
def test_who_waits_for_bytes_or_a_step_holds_nobody_up_who_completes_an_older_step(
    node: Node, peer: Peer, steps: tuple[int, int, int]
) -> None:
    """Its rows are what the older step needs to be consumed, and only that makes room."""
    put(peer, value=bytes(300), step=steps[0])
    put(peer, value=bytes(300), step=steps[1])
    ahead, behind, same = Peer(node, 2), Peer(node, 3), Peer(node, 4)
    ahead.send(*put_of(1, value=bytes(600), step=steps[2]))
    same.send(*put_of(1, value=bytes(10), step=steps[2]))
    behind.ask(*put_of(1, value=bytes(100), step=0))

    assert behind.answer().steps == [0]
    assert (ahead.answer(), same.answer()) == (None, None)
    waiting = Peer(node, 5)
    waiting.send(*put_of(1, value=bytes(300), step=0))
    late = Peer(node, 6)
    late.ask(*put_of(1, value=bytes(250), step=0))
    assert (waiting.answer(), late.answer()) == (None, None)


def test_nobody_waits_for_more_fields_than_a_queue_can_have(node: Node, peer: Peer) -> None:
    """Each costs a look at every row whenever somebody asks why the request waits."""
    put(peer)
    answer = peer.ask(want_of(1, fields=[f"f{number}" for number in range(1025)]))
    assert (answer.name, "1025 fields" in answer.message) == ("FieldError", True)
    peer.send(want_of(1, fields=[f"f{number}" for number in range(1024)]))

    assert [reason.rows for reason in peer.ask(wire.Why("train")).explanation.reasons] == [1, 3]


def test_a_checkpoint_larger_than_a_record_begins_a_journal(
    node: Node, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if its first controller dies within the write."""
    put(peer, 3, value=b"v" * 300)
    write(node.state, tmp_path / "checkpoint")
    monkeypatch.setattr("transfer_queue.engine.PIECE", 400)
    settings = msgspec.structs.replace(
        node.settings, journal_dir=str(tmp_path / "other"), restore=str(tmp_path / "checkpoint")
    )
    append = Journal.append
    with monkeypatch.context() as dying:
        left = iter(range(2))
        dying.setattr(Journal, "append", lambda *args: append(*args) if next(left, None) is not None else None)
        engine._recovered(settings)[1].close()  # type: ignore[union-attr]
    for _ in range(2):
        state, journal = engine._recovered(settings)
        assert journal is not None
        journal.close()
        assert state.catalog.scalars("x", [0, 1, 2]) == [b"v" * 300] * 3
    assert len(list(journal_records(tmp_path / "other"))) > 4


def journal_records(folder: Path) -> Iterator[bytes]:
    journal, found = Journal.open(folder, identity=identity_of(QueueShape(4, 2)))
    journal.close()
    return found.records
