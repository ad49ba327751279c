"""The queue of a run as an actor: for workers on other machines too, and a sentence when it cannot start."""

from pathlib import Path
from typing import Any

import pytest
import ray

from tests.transfer_queue.ray_actors import digest, made, member
from transfer_queue import TransferQueueClient
from twinkle.errors import RunError
from twinkle.loop.on_ray import queue_on_ray

OPTIONS = {"global_batch_size": 4, "storage": "memory"}


def test_values_in_the_controllers_memory_reach_workers_on_other_machines(three_nodes: Any) -> None:
    here = ray.get_runtime_context().get_node_id()
    others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    with queue_on_ray(OPTIONS) as info:
        elsewhere = {**info, "endpoint": info["tcp_endpoint"]}  # nobody else has the unix socket
        producer, consumer = member("producer", elsewhere, others[0]), member("consumer", elsewhere, others[1])
        ray.get(producer.put.remote("x", 4, 1 << 20, 0))
        with TransferQueueClient("me", info) as client:
            meta = client.get_meta(["x"], 4, 0, "train", timeout_s=20)

        assert ray.get(consumer.digest.remote(meta, "x")) == digest(made(4, 1 << 20))


def test_a_controller_that_cannot_start_says_why_in_one_sentence(three_nodes: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with (
        pytest.raises(RunError, match=r"The queue's controller did not start on this machine: .*is open to others"),
        queue_on_ray({**OPTIONS, "journal_dir": tmp_path}),
    ):
        pass
