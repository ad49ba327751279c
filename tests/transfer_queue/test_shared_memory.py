"""Large values between clients of one machine: no room is lost, whatever becomes of a call."""

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transfer_queue import BackPressureError, FieldError, LeaseError, TransferQueueClient, TransferQueueController, wire
from transfer_queue.errors import FieldLostError, StorageFullError
from transfer_queue.readers import COPYING_S

Start = Callable[..., TransferQueueController]
Connect = Callable[..., TransferQueueClient]
LARGE = np.ones((1, 100_000), np.uint8)


def used(client: TransferQueueClient) -> int:
    """Bytes of the client's arena that hold values."""
    arena = client._plane._arena  # type: ignore[attr-defined]
    assert arena is not None
    return int(arena.used)


def test_a_refused_put_leaves_its_room_to_others(start: Start, connect: Connect) -> None:
    client = connect(start(global_batch_size=1))
    meta = client.put({"x": LARGE})
    lease = client.get_meta(["x"], 1, task_name="rollout", lease_s=60)
    client.put({"y": LARGE}, metadata=lease)
    before = used(client)
    with pytest.raises(BackPressureError):
        client.put({"x": LARGE}, timeout_s=0.05)
    with pytest.raises(FieldError, match="written already"):
        client.put({"y": LARGE}, metadata=lease)
    client.release(lease)
    with pytest.raises(LeaseError):
        client.put({"z": LARGE}, metadata=lease)

    assert used(client) == before
    assert client.get_data(meta)["x"].sum() == 100_000


def test_the_end_of_a_read_is_not_told_to_a_connection_that_is_not_there(start: Start, connect: Connect) -> None:
    client = connect(start())
    meta = client.put({"x": LARGE}, global_step=0)
    mapped = client.get_data(meta, zero_copy=True, plain=True)
    connection = client._take()
    del mapped
    gc.collect()
    client.stats()  # through another connection, which has to be made
    client._give_back(connection)
    client.clear(0)

    assert client.request(wire.Recycled, wire.Recycle([0]), "recycling").ranges == [(0, 0, 100_000)]


def test_who_keeps_a_view_is_named_where_its_bytes_are_missed(
    start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = start(global_batch_size=1, num_global_batch=2)
    client, viewer = connect(controller), connect(controller, "viewer")
    monkeypatch.setattr("transfer_queue.storage.arena.SMALLEST_SEGMENT", 1 << 17)
    mapped = viewer.get_data(client.put({"x": LARGE}, global_step=0), zero_copy=True, plain=True)
    client.clear(0)
    stats = client.stats()
    assert (stats.held_bytes, stats.held_by) == (100_000, "viewer")
    monkeypatch.setattr("transfer_queue.storage.arena.reserve", lambda *_: 0)
    with pytest.raises(StorageFullError, match=r"100000 bytes were freed but wait for 'viewer', which has read for"):
        client.put({"x": LARGE}, global_step=1, timeout_s=0.1)
    mapped.clear()
    gc.collect()
    viewer.stats()
    client.put({"x": LARGE}, global_step=1, timeout_s=30)

    assert client.stats().held_bytes == 0


def put_over(client: TransferQueueClient) -> None:
    """Put twos wherever there is room, until all that may be written again was."""
    for step in range(1, 1500):
        client.put({"x": LARGE * 2}, global_step=step)
        client.clear(step)


def test_what_was_made_of_a_mapped_array_keeps_its_bytes(
    start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transfer_queue.columns._has_torch", lambda: False)
    controller = start(num_global_batch=2)
    consumer, producer = connect(controller), connect(controller, "producer")
    mapped = consumer.get_data(producer.put({"x": LARGE}, global_step=0), zero_copy=True)["x"]
    part = mapped[0, 1:]
    assert (mapped.flags.writeable, part.flags.owndata) == (False, False)
    del mapped
    gc.collect()
    consumer.clear(0)
    put_over(producer)

    assert part.sum() == 99_999


@pytest.mark.parametrize("loops", [1, 2])
def test_a_mapping_stays_whatever_becomes_of_other_calls(start: Start, connect: Connect, loops: int) -> None:
    controller = start(num_global_batch=2)
    consumer, producer = connect(controller), connect(controller, "producer")
    meta = producer.put({"x": LARGE}, global_step=0)

    async def get() -> Any:
        return await consumer.async_get_data(meta, zero_copy=True, plain=True)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consumer.async_get_meta(["nothing"], 1, task_name="a"), 0.1)

    async def both() -> Any:
        mapped = await get()
        await give_up()
        return mapped

    if loops == 1:
        mapped = asyncio.run(both())
    else:
        mapped = asyncio.run(get())
        asyncio.run(give_up())
    consumer.clear(0)
    consumer.close()
    producer.stats()
    for step in range(1, 1500):
        producer.put({"x": LARGE * 2}, global_step=step)
        producer.clear(step)

    assert mapped["x"].sum() == 100_000
    mapped.clear()
    gc.collect()
    producer.stats()
    assert consumer._mapped.of_parent() == []


def test_a_read_that_nobody_waits_for_any_more_ends(start: Start, connect: Connect) -> None:
    client = connect(start())
    meta = client.put({"x": LARGE}, global_step=0)

    async def give_up() -> None:
        reading = asyncio.ensure_future(client.async_get_data(meta, zero_copy=True))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        while not client._mapped._idle:
            await asyncio.sleep(0.01)

    asyncio.run(give_up())
    client.clear(0)

    assert client.request(wire.Recycled, wire.Recycle([0]), "recycling").ranges == [(0, 0, 100_000)]


def test_a_child_that_lets_go_of_a_mapping_lets_go_of_its_own(start: Start, connect: Connect) -> None:
    controller = start(num_global_batch=2)
    consumer, producer = connect(controller), connect(controller, "producer")
    mapped = consumer.get_data(producer.put({"x": LARGE}, global_step=0), zero_copy=True, plain=True)
    child = os.fork()
    if not child:
        consumer.stats()
        mapped.clear()
        gc.collect()
        consumer.stats()
        os._exit(0)
    os.waitpid(child, 0)
    consumer.clear(0)
    put_over(producer)

    assert mapped["x"].sum() == 100_000


def test_a_child_and_the_threads_of_a_client_have_one_arena_each(start: Start, connect: Connect) -> None:
    controller = start(global_batch_size=64)
    client, folder = connect(controller), Path(controller.get_info()["folder"])
    slow = threading.Barrier(8)

    def put() -> None:
        slow.wait()
        client.put({"x": LARGE})

    frequent, before = 1e-6, sys.getswitchinterval()
    sys.setswitchinterval(frequent)
    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    child = os.fork()
    if not child:
        client.put({"x": LARGE})
        client.put({"x": LARGE})
        os._exit(len(list(folder.glob("client-*-0"))))

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


def test_a_read_that_fails_ends(start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(start())
    meta = client.put({"x": LARGE}, global_step=0)

    def no_memory(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as short, pytest.raises(MemoryError):
        short.setattr(client._plane, "_gather", no_memory)
        client.get_data(meta)
    client.clear(0)

    assert client.request(wire.Recycled, wire.Recycle([0]), "recycling").ranges == [(0, 0, 100_000)]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at what is mapped")
def test_memory_of_producers_that_are_gone_is_let_go(start: Start, connect: Connect) -> None:
    controller = start(num_global_batch=4)
    consumer, folder = connect(controller), controller.get_info()["folder"]
    for step in range(3):
        with TransferQueueClient(f"producer{step}", controller.get_info()) as producer:
            meta = producer.put({"x": LARGE}, global_step=step)
        consumer.get_data(meta)
        consumer.clear(step)
        consumer.stats()

    for _ in range(500):
        if os.listdir(folder) == ["lock"]:
            break
        time.sleep(0.01)
    assert os.listdir(folder) == ["lock"]
    assert Path("/proc/self/maps").read_text().count(f"{folder}/producer") == 1


def test_values_that_are_gone_are_told_of_and_made_anew(start: Start, connect: Connect) -> None:
    controller = start(tasks=["rollout", "train"])
    client = connect(controller)
    client.put({"x": ["prompt"]})
    lease = client.get_meta(["x"], 1, task_name="rollout", lease_s=60)
    client.put({"y": LARGE}, metadata=lease)
    client.ack(lease)
    for name in os.listdir(controller.get_info()["folder"]):
        if name != "lock":
            os.unlink(f"{controller.get_info()['folder']}/{name}")
    train = client.get_meta(["y"], 1, task_name="train", lease_s=60)
    with connect(controller, "other") as other, pytest.raises(FieldLostError):
        other.get_data(train)
    with pytest.raises(FieldLostError):
        client.ack(train)

    assert client.get_meta(["x"], 1, task_name="rollout", lease_s=60).global_indexes == lease.global_indexes


def put_twice_over(client: TransferQueueClient, value: int) -> None:
    """Put until the room of earlier values was used again, if it may be."""
    for _ in range(3):
        meta = client.put({"x": np.full((1, 900_000), value, np.uint8)}, global_step=1)
        client.clear(meta.global_steps[0])
        client.stats()


@pytest.mark.parametrize("ends", ["restart", "connection", "close", "fork"])
def test_mapped_values_are_not_written_over(
    ends: str, start: Start, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when their controller is another one, nor when the connection that they came through is over."""
    monkeypatch.setattr("transfer_queue.storage.arena.SMALLEST_SEGMENT", 2**20)
    controller = start(journal_dir=tmp_path / "journal", num_global_batch=2)
    producer, consumer = connect(controller, "producer"), connect(controller, "consumer")
    meta = producer.put({"x": np.full((1, 900_000), 1, np.uint8)}, global_step=0)
    mapped = consumer.get_data(meta, zero_copy=True, plain=True)["x"]
    if ends == "restart":
        os.kill(controller.pid, 9)
        producer.stats()
        time.sleep(COPYING_S + 2.0)
    elif ends == "connection":
        consumer._take().close()
    elif ends == "close":
        consumer.close()
    elif os.fork() == 0:
        consumer.stats()
        del mapped
        gc.collect()
        consumer.stats()
        os._exit(0)
    else:
        os.wait()
    producer.stats()
    producer.clear(0)
    put_twice_over(producer, 2)
    assert int(mapped.max()) == 1
    del mapped
    gc.collect()
    if ends != "close":
        consumer.stats()  # may have to connect first,
        consumer.stats()  # and the end of a read is told over a connection that stands
    for _ in range(500):
        if producer.request(wire.Recycled, wire.Recycle([0]), "recycling").ranges:
            return
        time.sleep(0.01)
    pytest.fail("the room is not given back")
