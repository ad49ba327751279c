"""The controller as a Ray actor: the same queue, the same client, samplers as actor arguments."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.transfer_queue.ray_actors import kill, made
from tests.transfer_queue.test_listen import as_from_afar
from tests.transfer_queue.test_process import gone
from transfer_queue import (
    BaseSampler,
    ConfigurationError,
    DPSampler,
    GroupError,
    GRPOSampler,
    SequentialSampler,
    TransferQueueClient,
    TransferQueueController,
)

Begin = Callable[..., Any]


@pytest.fixture
def remote(ray_cluster: Any) -> Iterator[Begin]:
    """Starts controllers as actors that are stopped with the test."""
    handles = []

    def begin(**arguments: Any) -> Any:
        handles.append(TransferQueueController.remote(**arguments))
        return handles[-1]

    yield begin
    for handle in handles:
        ray_cluster.get(handle.stop.remote())
        ray_cluster.kill(handle)


def test_the_documented_way(ray_cluster: Any, remote: Begin) -> None:
    controller = remote(global_batch_size=8, num_global_batch=1, num_n_samples=4)
    ray_cluster.get(controller.register_sampler.remote(task_name="grpo_task", sampler=GRPOSampler(num_n_samples=4)))
    ray_cluster.get(controller.register_sampler.remote(task_name="dp_task", sampler=DPSampler(dp_rank=0, dp_size=2)))
    info = ray_cluster.get(controller.get_info.remote())
    with TransferQueueClient(client_id="my_client", controller_info=info) as client:
        client.put({"prompts": [str(i) for i in range(8)]}, global_step=0)
        meta = client.get_meta(["prompts"], 8, 0, "grpo_task", get_n_samples=True)
        assert list(client.get_data(meta)["prompts"]) == [str(i) for i in range(8)]
        assert client.get_meta(["prompts"], 4, 0, "dp_task").global_indexes == [0, 1, 2, 3]
        assert client.get_meta(["prompts"], 1, 0, "other").global_indexes == [0]
    folder = os.path.dirname(info["endpoint"].removeprefix("unix://"))
    ray_cluster.get(controller.stop.remote())

    assert gone(0, folder)


def test_a_lambda_and_a_local_class_travel_as_actor_arguments(ray_cluster: Any, remote: Begin) -> None:
    class Backwards(BaseSampler):
        def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
            return ready_indices[::-1][:batch_size]

        def filter_ready_indices(self, all_indices: list[int], *args: Any, **kwargs: Any) -> list[int]:
            return all_indices

    controller = remote(global_batch_size=2, num_n_samples=4, sampler=lambda: GRPOSampler(num_n_samples=4))
    ray_cluster.get(controller.register_sampler.remote(task_name="back", sampler=Backwards()))
    with TransferQueueClient("me", ray_cluster.get(controller.get_info.remote())) as client:
        client.put({"x": ["1"] * 8}, global_step=0)

        assert client.get_meta(["x"], 4, 0, "any").global_indexes == [0, 1, 2, 3]
        assert client.get_meta(["x"], 3, 0, "back", timeout_s=60).global_indexes == [7, 6, 5]


def test_a_wrong_sampler_is_told_to_who_registers_it(ray_cluster: Any, remote: Begin) -> None:
    controller = remote(global_batch_size=2, num_n_samples=4, sampler=SequentialSampler())
    with pytest.raises(GroupError, match=r"GRPOSampler\(3\) does not fit"):
        ray_cluster.get(controller.register_sampler.remote(task_name="t", sampler=GRPOSampler(3)))


def test_wrong_arguments_raise_before_any_actor_is_made() -> None:
    with pytest.raises(GroupError, match=r"GRPOSampler\(3\)"):
        TransferQueueController.remote(global_batch_size=2, num_n_samples=4, sampler=lambda: GRPOSampler(3))
    with pytest.raises(ConfigurationError, match="did you mean 'global_batch_size'"):
        TransferQueueController.remote(global_batch_size=2, globl_batch_size=3)


def test_a_killed_actor_with_a_journal_comes_back_to_its_sockets_and_arenas(
    ray_cluster: Any, remote: Begin, tmp_path: Path
) -> None:
    controller = remote(global_batch_size=8, journal_dir=str(tmp_path), listen="tcp://127.0.0.1:0")
    info = ray_cluster.get(controller.get_info.remote())
    values = made(8, 64 << 10)
    with TransferQueueClient("me", info) as client:
        client.put({"p": ["p"] * 8}, global_step=0)
        rollout = client.get_meta(["p"], 8, 0, "rollout", lease_s=60)
        client.put({"x": values}, rollout)
        kill(info["pid"])
        client.ack(rollout)
        meta = client.get_meta(["x"], 8, 0, "train")
        with TransferQueueClient("afar", as_from_afar(info)) as afar:
            for each in (client, afar):
                assert (np.asarray(each.get_data(meta)["x"]) == values).all()
        again = ray_cluster.get(controller.get_info.remote())

    assert Path(info["folder"]).is_dir()
    assert {**again, "pid": 0} == {**info, "pid": 0}
    assert again["pid"] != info["pid"]
