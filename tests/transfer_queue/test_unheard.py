"""A put whose answer nobody hears: it is found out what became of it, and its room is neither lost nor given twice."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transfer_queue import ControllerLostError, TransferQueueClient, TransferQueueController, wire
from transfer_queue.carrier import Carrier
from transfer_queue.connection import Connection
from transfer_queue.transport.channel import Lost

Start = Callable[..., TransferQueueController]
Connect = Callable[..., TransferQueueClient]
LARGE = np.ones((1, 100_000), np.uint8)


def used(client: TransferQueueClient) -> int:
    """Bytes of the client's arena that hold values."""
    return int(client._plane._arena.used)  # type: ignore[attr-defined]


def size(client: TransferQueueClient) -> int:
    """Bytes of the client's segments."""
    return int(client._plane._arena.size)  # type: ignore[attr-defined]


def deaf(monkeypatch: pytest.MonkeyPatch) -> Any:
    """While it holds, a request is carried out and its answer lost."""
    exchange = Connection._exchange

    def lost(self: Connection, message: Any, deadline: float) -> Any:
        exchange(self, message, deadline)
        raise Lost(nobody=False)

    context = monkeypatch.context()
    context.__enter__().setattr(Connection, "_exchange", lost)
    return context


def test_the_room_of_a_put_that_was_cancelled_while_it_waited_is_free_again(start: Start, connect: Connect) -> None:
    client = connect(start(global_batch_size=1, num_global_batch=1))

    async def cancelled() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.async_put({"x": LARGE}, global_step=1), 0.3)

    meta = client.put({"x": LARGE}, global_step=0)
    before = used(client)
    asyncio.run(cancelled())
    assert used(client) == before + 100_000
    client.put({"y": [1]}, metadata=meta)

    assert used(client) == before
    assert [*client.stats().partitions] == [0]


def test_a_put_that_was_done_keeps_its_room(start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(start())
    first = client.put({"x": LARGE}, global_step=0)
    context = deaf(monkeypatch)
    with pytest.raises(ControllerLostError):
        client.put({"x": 2 * LARGE}, global_step=0)
    context.__exit__(None, None, None)
    held = used(client)
    client.put({"x": 3 * LARGE}, global_step=0)

    assert used(client) > held
    meta = client.get_meta(["x"], 3, 0, "train")
    assert sorted(np.asarray(client.get_data(meta)["x"])[:, 0].tolist()) == [1, 2, 3]
    assert len(first) == 1


def test_a_put_that_was_interrupted_after_its_answer_keeps_its_room(
    start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told behind a request has a number too, which must not be taken for the number of the request."""
    client = connect(start())

    def told(self: Carrier, connection: Connection) -> None:
        if self._ended and connection.sequence > before:
            connection.tell("a", self._ended.popleft())
            raise KeyboardInterrupt

    client.put({"x": LARGE}, global_step=0)
    before = client._idle[0].sequence
    client._tell(wire.EndRead(1))
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(Carrier, "_tell_ended", told)
        client.put({"x": 2 * LARGE}, global_step=0)
    client.put({"x": 3 * LARGE}, global_step=0)

    meta = client.get_meta(["x"], 3, 0, "train", timeout_s=5)
    assert np.asarray(client.get_data(meta)["x"])[:, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("restarted", [False, True])
def test_room_that_was_given_back_unheard_is_asked_for_again(
    restarted: bool, start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("transfer_queue.storage.arena.SMALLEST_SEGMENT", 1 << 17)
    controller = start(global_batch_size=1, journal_dir=tmp_path / "journal" if restarted else None)
    client = connect(controller)
    client.put({"x": np.ones((1, 100_000), np.uint8)}, global_step=0)
    client.clear(0)
    context = deaf(monkeypatch)
    with pytest.raises(TimeoutError):  # with a journal it is asked again and again, until the deadline
        client.put({"x": LARGE}, global_step=1, timeout_s=0.0)
    context.__exit__(None, None, None)
    if restarted:
        os.kill(controller.pid, signal.SIGKILL)
    client.put({"x": LARGE}, global_step=1)

    assert size(client) == 1 << 17
    assert used(client) == 100_000


def test_a_put_that_was_given_up_is_refused_when_it_comes_late(start: Start, connect: Connect) -> None:
    controller = start()
    info = controller.get_info()
    late, now = Connection(info, after=(77, 4)), Connection(info, after=(77, 5))
    body = wire.Put(1, [wire.Column("x", "object", [], [2])], step=0)

    def say(connection: Connection, body: wire.Body, frames: Any = ()) -> wire.ReplyBody:
        return connection.call("a", body, frames, 5.0, lambda: "a test waited")[0]

    answer = say(now, wire.GiveUp(5))
    assert isinstance(answer, wire.Done)
    assert not answer.changed
    refused = say(late, body, [b"\xa1a"])
    assert isinstance(refused, wire.Failure)
    assert "given up" in refused.message
    assert not connect(controller).stats().partitions
    late.close()
    now.close()


def test_only_earlier_requests_of_its_own_can_be_given_up(start: Start) -> None:
    connection = Connection(start().get_info())
    answer = connection.call("a", wire.GiveUp(9), (), 5.0, lambda: "a test waited")[0]
    connection.close()

    assert isinstance(answer, wire.Failure)
    assert "none before it" in answer.message
