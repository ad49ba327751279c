"""Data plane `ray` on three nodes: values stay where they were put, and only their storage's death loses them."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from tests.transfer_queue.ray_actors import digest, kill, made, member, storage, until, where
from transfer_queue import FieldLostError, TransferQueueClient, TransferQueueController

Info = dict[str, Any]
ROWS, ROW = 32, 64 << 10
VALUES = made(ROWS, ROW)


@pytest.fixture
def begin(three_nodes: Any) -> Iterator[Any]:
    handles = []

    def make(**options: Any) -> Any:
        options = {"global_batch_size": ROWS, "num_global_batch": 4, "storage": "ray", **options}
        handles.append(TransferQueueController.remote(**options))
        return handles[-1]

    yield make
    for handle in handles:
        ray.get(handle.stop.remote())
        ray.kill(handle)


@pytest.fixture
def info(begin: Any) -> Info:
    found: Info = ray.get(begin().get_info.remote())
    return found


@pytest.fixture
def client(info: Info) -> Iterator[TransferQueueClient]:
    with TransferQueueClient("me", info, call_timeout_s=30) as client:
        yield client


@pytest.fixture
def others(three_nodes: Any) -> list[str]:
    """The nodes that this process is not on."""
    here = ray.get_runtime_context().get_node_id()
    return [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]


def over_tcp(info: Info) -> Info:
    """As on another machine."""
    return {**info, "endpoint": info["tcp_endpoint"]}


def test_a_producer_may_die_right_after_its_put_and_others_read_on_other_nodes(
    info: Info, client: TransferQueueClient, others: list[str]
) -> None:
    producer, consumer = member("producer", over_tcp(info), others[0]), member("consumer", over_tcp(info), others[1])
    node, pid = ray.get(producer.place.remote())
    ray.get(producer.put.remote("x", ROWS, ROW, 0))
    kill(pid)
    meta = client.get_meta(["x"], ROWS, 0, "train", lease_s=60, timeout_s=20)

    assert ray.get(consumer.plane.remote()) == "RayPlane"
    assert ray.get(consumer.digest.remote(meta, "x")) == digest(VALUES)
    assert (np.asarray(client.get_data(meta)["x"]) == VALUES).all()
    assert not Path(f"/proc/{pid}").exists()
    assert where(client)[0] == node == others[0]


def produce(client: TransferQueueClient, producer: Any) -> Any:
    """Rows with a prompt that is in the controller and a response that is in the producer's storage, for training."""
    client.put({"prompt": [f"p{row}" for row in range(ROWS)]}, global_step=0)
    rollout = client.get_meta(["prompt"], ROWS, 0, "rollout", lease_s=60)
    ray.get(producer.complete.remote(rollout, "response", ROW))
    client.ack(rollout)
    return client.get_meta(["prompt", "response"], ROWS, 0, "train", lease_s=60)


def deliver_again(client: TransferQueueClient, producer: Any, before: Any) -> None:
    """The producing task gets the rows again, and then the training task gets them whole."""
    rollout = client.get_meta(["prompt"], ROWS, 0, "rollout", lease_s=60, timeout_s=30)
    assert rollout.global_indexes == before.global_indexes
    ray.get(producer.complete.remote(rollout, "response", ROW))
    client.ack(rollout)
    train = client.get_meta(["prompt", "response"], ROWS, 0, "train", lease_s=60, timeout_s=30)
    assert (np.asarray(client.get_data(train)["response"]) == VALUES).all()
    client.ack(train)
    assert client.stats().tasks["train"].consumed == ROWS


def read_until_lost(client: TransferQueueClient, train: Any) -> None:
    """A node takes its time to die, and what it serves meanwhile is right."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert (np.asarray(client.get_data(train)["response"]) == VALUES).all()


def test_a_killed_storage_actor_costs_its_fields_and_the_next_pass_delivers_all(
    info: Info, client: TransferQueueClient, others: list[str]
) -> None:
    producer = member("producer", info, others[0])
    train = produce(client, producer)
    kill(where(client)[1])
    with pytest.raises(FieldLostError):
        client.get_data(train)

    deliver_again(client, producer, train)


def test_a_killed_controller_comes_back_and_its_clients_go_on(begin: Any, others: list[str], tmp_path: Path) -> None:
    controller = begin(journal_dir=str(tmp_path / "journal"))
    info = ray.get(controller.get_info.remote())
    producer = member("producer", over_tcp(info), others[0])
    with TransferQueueClient("me", info, call_timeout_s=60) as client:
        train = produce(client, producer)
        kill(info["pid"])
        assert (np.asarray(client.get_data(train)["response"]) == VALUES).all()
        ray.get(producer.put.remote("x", ROWS, ROW, 1))
        client.ack(train)
        again = ray.get(controller.get_info.remote())

        assert again["pid"] != info["pid"]
        assert {**again, "pid": 0} == {**info, "pid": 0}
        assert client.stats().tasks["train"].consumed == ROWS
        client.clear(0)
        actor = storage(client)
        until(lambda: ray.get(actor.held.remote())[1] == ROWS * ROW)
        assert client.get_meta(["x"], ROWS, 1, "any", timeout_s=5)
    folder = os.path.dirname(info["endpoint"].removeprefix("unix://"))
    secrets = Path(folder) / "tcp"
    assert secrets.stat().st_mode & 0o777 == 0o600
    journal = b"".join(file.read_bytes() for file in (tmp_path / "journal").rglob("*") if file.is_file())
    assert info["client_secret"].encode() in secrets.read_bytes()
    assert info["client_secret"].encode() not in journal


def test_a_node_that_dies_costs_its_fields_and_the_next_pass_delivers_all(
    three_nodes: Any, info: Info, client: TransferQueueClient, others: list[str]
) -> None:
    doomed = next(node for node in three_nodes.worker_nodes if node.node_id == others[0])
    train = produce(client, member("producer", info, others[0]))
    three_nodes.remove_node(doomed, allow_graceful=False)
    with pytest.raises(FieldLostError):
        read_until_lost(client, train)

    deliver_again(client, member("producer", info, others[1]), train)
