"""Data plane `ray` on one node: what is put comes out again, memory returns, and deaths are answered."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.transfer_queue.ray_actors import kill, made, storage, until, where
from tests.transfer_queue.test_client import in_background
from tests.transfer_queue.test_listen import as_from_afar
from transfer_queue import (
    BackPressureError,
    BatchMeta,
    ConfigurationError,
    FieldLostError,
    StorageTimeoutError,
    TransferQueueClient,
    TransferQueueController,
    wire,
)
from transfer_queue.storage import sending

Info = dict[str, Any]
ROW = 80 << 10
LARGE = made(8, ROW)


@pytest.fixture
def info(ray_cluster: Any) -> Iterator[Info]:
    yield from running(ray_cluster)


def running(ray: Any, **options: Any) -> Iterator[Info]:
    options = {"global_batch_size": 512, "num_global_batch": 4, "storage": "ray", **options}
    controller = TransferQueueController.remote(**options)
    yield ray.get(controller.get_info.remote())
    ray.get(controller.stop.remote())
    ray.kill(controller)


@pytest.fixture
def client(info: Info) -> Iterator[TransferQueueClient]:
    with TransferQueueClient("me", info, call_timeout_s=20) as client:
        yield client


def held(ray: Any, client: TransferQueueClient) -> tuple[int, int]:
    """Blocks and bytes in the first storage actor."""
    found: tuple[int, int] = ray.get(storage(client).held.remote())
    return found


def picked(meta: BatchMeta, rows: list[int]) -> BatchMeta:
    """Some rows of a batch, in that order."""
    return BatchMeta([meta.global_indexes[row] for row in rows], meta.fields, [0] * len(rows), [0] * len(rows))


def test_all_kinds_of_values_come_out_as_they_went_in(client: TransferQueueClient) -> None:
    ragged = [made(1, (row + 1) * 9999)[0].view(np.uint8) for row in range(8)]
    words = [f"word {row} " * 2000 for row in range(8)]
    meta = client.put({"x": LARGE, "ragged": ragged, "s": words, "n": np.arange(8)}, global_step=0)
    for rows in ([0, 1, 2, 3, 4, 5, 6, 7], [5, 2, 7], [3]):
        for zero_copy in (False, True):
            values = client.get_data(picked(meta, rows), zero_copy=zero_copy)

            assert (np.asarray(values["x"]) == LARGE[rows]).all()
            found = values["ragged"]
            found = list(found.unbind()) if hasattr(found, "unbind") else list(found)
            assert all((np.asarray(a) == ragged[row]).all() for a, row in zip(found, rows, strict=True))
            assert list(values["s"]) == [words[row] for row in rows]
            assert np.asarray(values["n"]).tolist() == rows


def test_what_is_fetched_is_private_and_writable(client: TransferQueueClient) -> None:
    meta = client.put({"x": LARGE}, global_step=0)
    client.get_data(meta)["x"][:] = 0

    assert (np.asarray(client.get_data(meta)["x"]) == LARGE).all()


def test_small_puts_never_leave_the_controller(client: TransferQueueClient) -> None:
    meta = client.put({"x": LARGE[:, :64], "s": ["a"] * 8}, global_step=0)

    assert (np.asarray(client.get_data(meta)["x"]) == LARGE[:, :64]).all()
    assert client.request(wire.Located, wire.Locate([0]), "locate").paths == [""]


def test_memory_returns_when_its_rows_are_gone_however_they_were_put(
    ray_cluster: Any, client: TransferQueueClient
) -> None:
    first = client.put({"x": LARGE}, global_step=0)
    client.put({"y": LARGE}, first)
    client.put({"x": LARGE[:1]}, global_step=1)
    assert held(ray_cluster, client) == (3, 17 * ROW)
    client.clear(0)
    until(lambda: held(ray_cluster, client) == (1, ROW))
    client.clear(1)

    until(lambda: held(ray_cluster, client) == (0, 0))


def test_a_put_that_is_refused_leaves_nothing_behind(ray_cluster: Any, client: TransferQueueClient) -> None:
    for step in range(4):
        client.put({"x": LARGE[:1]}, global_step=step)
    with pytest.raises(BackPressureError):
        client.put({"x": LARGE}, global_step=4, timeout_s=0.05)

    until(lambda: held(ray_cluster, client) == (4, 4 * ROW))


def test_what_many_threads_put_at_once_stays_apart(client: TransferQueueClient) -> None:
    values = [made(1, ROW + row) for row in range(48)]
    with ThreadPoolExecutor(16) as threads:
        metas = list(threads.map(lambda value: client.put({"x": [value[0]]}, global_step=0), values))
    for meta, value in zip(metas, values, strict=True):
        assert (np.asarray(client.get_data(meta)["x"][0]) == value).all()


def test_what_many_tasks_put_at_once_stays_apart_and_in_few_calls(info: Info, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    send = sending.Sender._send

    def counting(self: sending.Sender, puts: Any) -> None:
        calls.append(len(puts))
        send(self, puts)

    monkeypatch.setattr(sending.Sender, "_send", counting)
    values = [made(1, ROW + row)[0] for row in range(48)]

    async def put_and_get() -> list[Any]:
        async with TransferQueueClient("async", info) as client:
            metas = await asyncio.gather(*(client.async_put({"x": [value]}, global_step=0) for value in values))
            return await asyncio.gather(*(client.async_get_data(meta) for meta in metas))

    for found, value in zip(asyncio.run(put_and_get()), values, strict=True):
        assert (np.asarray(found["x"][0]) == value).all()
    assert sum(calls) == 48
    assert len(calls) < 24


def test_blocks_hold_small_puts_together_and_large_ones_alone() -> None:
    arrays = [np.zeros(size, np.uint8) for size in (3 << 20, 80 << 10, 900 << 10, 80 << 10, 2 << 20, 80 << 10)]
    puts = [sending._Put([array], 0.0) for array in arrays]

    assert [[puts.index(put) for put in block] for block in sending._in_blocks(puts)] == [[0], [1, 2], [3], [4], [5]]


def test_a_put_after_the_death_of_the_storage_actor_finds_another(
    ray_cluster: Any, client: TransferQueueClient
) -> None:
    client.put({"x": LARGE}, global_step=0)
    kill(where(client)[1])
    meta = client.put({"x": LARGE}, global_step=1, timeout_s=60)

    assert (np.asarray(client.get_data(meta)["x"]) == LARGE).all()


def test_a_lost_field_ends_leases_and_is_produced_again(ray_cluster: Any, client: TransferQueueClient) -> None:
    client.put({"prompt": [f"p{row}" for row in range(8)]}, global_step=0)
    rollout = client.get_meta(["prompt"], 8, 0, "rollout", lease_s=60)
    client.put({"response": LARGE}, rollout)
    client.ack(rollout)
    train = client.get_meta(["prompt", "response"], 8, 0, "train", lease_s=60)
    kill(where(client)[1])

    with pytest.raises(FieldLostError):
        client.get_data(train)
    with pytest.raises(FieldLostError, match="'response'"):
        client.ack(train)
    again = client.get_meta(["prompt"], 8, 0, "rollout", lease_s=60, timeout_s=20)
    assert again.global_indexes == rollout.global_indexes
    client.put({"response": LARGE}, again)
    client.ack(again)
    train = client.get_meta(["prompt", "response"], 8, 0, "train", lease_s=60, timeout_s=20)
    assert (np.asarray(client.get_data(train)["response"]) == LARGE).all()
    client.ack(train)
    assert client.stats().tasks["train"].consumed == 8


def test_the_controller_hears_of_a_death_that_nobody_ran_into(ray_cluster: Any, client: TransferQueueClient) -> None:
    client.put({"prompt": ["p"] * 8}, global_step=0)
    rollout = client.get_meta(["prompt"], 8, 0, "rollout", lease_s=60)
    client.put({"response": LARGE}, rollout)
    client.ack(rollout)
    kill(where(client)[1])

    assert len(client.get_meta(["prompt"], 8, 0, "rollout", timeout_s=20)) == 8


def test_storage_that_does_not_answer_is_an_error_in_time(ray_cluster: Any, info: Info) -> None:
    with TransferQueueClient("me", info, call_timeout_s=2) as client:
        meta = client.put({"x": LARGE}, global_step=0)
        pid = where(client)[1]
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(StorageTimeoutError, match="get_data"):
                client.get_data(meta)
            patient = in_background(lambda: client.put({"x": LARGE[:1]}, global_step=1, timeout_s=60))
            with pytest.raises(StorageTimeoutError, match="put"):
                client.put({"x": LARGE}, global_step=1, timeout_s=1)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (np.asarray(client.get_data(meta)["x"]) == LARGE).all()
        assert (np.asarray(client.get_data(patient())["x"]) == LARGE[:1]).all()
        until(lambda: held(ray_cluster, client) == (2, 9 * ROW))  # what came too late is not kept


def test_a_put_that_is_cancelled_leaves_nothing_behind(ray_cluster: Any, info: Info) -> None:
    async def cancel() -> None:
        async with TransferQueueClient("async", info) as client:
            await client.async_put({"x": LARGE}, global_step=0)
            put = asyncio.create_task(client.async_put({"x": LARGE}, global_step=0))
            await asyncio.sleep(0)
            put.cancel()
            with pytest.raises(asyncio.CancelledError):
                await put

    asyncio.run(cancel())
    with TransferQueueClient("me", info) as client:
        until(lambda: held(ray_cluster, client) == (1, 8 * ROW))
        assert client.stats().rows_put_total == 8


def test_who_is_not_in_the_cluster_is_served_over_tcp(info: Info, client: TransferQueueClient) -> None:
    meta = client.put({"x": LARGE}, global_step=0)
    program = (
        "import sys, json, numpy; from transfer_queue import *;"
        "info, indexes = json.load(sys.stdin); client = TransferQueueClient('afar', info);"
        "meta = BatchMeta(indexes, ['x'], [0] * 8, [0] * 8); x = client.get_data(meta)['x'];"
        "client.put({'x': x + 1}, global_step=1); assert 'ray' not in sys.modules; client.close()"
    )
    words = json.dumps([as_from_afar(info), meta.global_indexes])
    subprocess.run([sys.executable, "-c", program], input=words.encode(), check=True)
    found = client.get_data(client.get_meta(["x"], 8, 1, "t", timeout_s=5))["x"]

    assert (np.asarray(found) == LARGE + 1).all()


def test_a_checkpoint_brings_the_values_along(ray_cluster: Any, tmp_path: Path) -> None:
    for info in running(ray_cluster, journal_dir=str(tmp_path / "journal")):
        with TransferQueueClient("me", info) as client:
            client.put({"x": LARGE}, global_step=0)
            client.checkpoint(tmp_path / "checkpoint")
    options = {"global_batch_size": 512, "num_global_batch": 4, "restore": tmp_path / "checkpoint"}
    with (
        TransferQueueController.start(**options) as controller,
        TransferQueueClient("me", controller.get_info()) as client,
    ):
        assert (np.asarray(client.get_data(client.get_meta(["x"], 8, 0, "t"))["x"]) == LARGE).all()


def test_the_keys_show_nowhere_but_in_get_info(ray_cluster: Any, client: TransferQueueClient, info: Info) -> None:
    client.put({"x": LARGE}, global_step=0)
    seen = b""
    for pid in (info["pid"], where(client)[1]):
        seen += Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    logs = Path(ray_cluster._private.worker._global_node.get_session_dir_path()) / "logs"
    for file in logs.rglob("*"):
        seen += file.read_bytes() if file.is_file() else b""

    assert b"StorageActor" in seen
    for name in ("server_key", "client_key", "client_secret"):
        assert info[name].encode() not in seen


def test_everything_ends_with_the_controller(ray_cluster: Any) -> None:
    for info in running(ray_cluster):
        with TransferQueueClient("me", info) as client:
            client.put({"x": LARGE}, global_step=0)
            pids = [info["pid"], where(client)[1]]
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_storage_ends_when_a_controller_without_a_journal_is_killed(ray_cluster: Any) -> None:
    controller = TransferQueueController.remote(global_batch_size=8, storage="ray")
    info = ray_cluster.get(controller.get_info.remote())
    with TransferQueueClient("me", info) as client:
        client.put({"x": LARGE}, global_step=0)
        pid = where(client)[1]
        kill(info["pid"])

        until(lambda: not Path(f"/proc/{pid}").exists())


def test_it_needs_a_controller_in_ray() -> None:
    with pytest.raises(ConfigurationError, match=r"TransferQueueController\.remote"):
        TransferQueueController.start(global_batch_size=1, storage="ray")
