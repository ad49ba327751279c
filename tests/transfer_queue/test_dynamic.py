"""Dynamic sampling: groups that teach nothing are dropped, and their places may be filled again."""

import time
from collections.abc import Iterator

import pytest
import torch

from tests.transfer_queue.test_client import in_background, wait_for_waiting
from transfer_queue import (
    ConfigurationError,
    ExhaustedError,
    FieldError,
    GroupError,
    LeaseError,
    NotReadyError,
    TransferQueueClient,
    TransferQueueController,
)
from transfer_queue.dynamic import GroupBatch, informative_groups


@pytest.fixture(scope="module")
def controller() -> Iterator[TransferQueueController]:
    with TransferQueueController.start(global_batch_size=4, num_n_samples=2, num_global_batch=2) as running:
        yield running


@pytest.fixture
def client(controller: TransferQueueController) -> Iterator[TransferQueueClient]:
    with TransferQueueClient("me", controller.get_info()) as one:
        for step in one.stats().partitions:
            one.clear(step, force=True)
        yield one


def put(client: TransferQueueClient, *rewards: float) -> None:
    client.put(
        {"reward": torch.tensor(rewards, dtype=torch.float32), "x": [f"{i}" for i in range(len(rewards))]},
        global_step=0,
    )


def take(client: TransferQueueClient, batch_size: int = 4, **more: float) -> GroupBatch:
    arguments = {"timeout_s": 10.0, **more}
    return informative_groups(
        client,
        ["x", "reward"],
        batch_size,
        "train",
        num_n_samples=2,
        global_step=0,
        **arguments,  # type: ignore[arg-type]
    )


def test_groups_of_equal_rewards_are_dropped_and_the_others_make_the_batch(client: TransferQueueClient) -> None:
    put(client, 1, 1, 0, 1, 0, 0, 1, 0)
    batch = take(client)
    stand = client.stats().tasks["train"]

    assert (len(batch), batch.dropped) == (4, 2)
    assert list(batch.data()["x"]) == ["2", "3", "6", "7"]
    assert batch.data(["reward"])["reward"].tolist() == [0, 1, 1, 0]
    assert (stand.leased, stand.consumed, stand.dropped) == (4, 0, {"zero_variance": 4})
    batch.ack_all()
    assert client.stats().tasks["train"].consumed == 4


def test_a_place_that_was_dropped_is_filled_again(client: TransferQueueClient) -> None:
    put(client, 1, 1, 0, 1, 0, 0, 0, 1)
    first = take(client, refill=True)
    asked = in_background(lambda: take(client, refill=True))
    wait_for_waiting(client, "train")
    put(client, 0, 1, 1, 1)
    while client.stats().tasks["train"].dropped["zero_variance"] < 6:
        time.sleep(0.01)
    put(client, 1, 0)
    second = asked()

    assert (first.dropped, second.dropped) == (2, 1)
    first.ack_all()
    second.ack_all()
    assert client.stats().tasks["train"].consumed == 8


def test_rewards_that_are_nearly_equal_teach_nothing_either(client: TransferQueueClient) -> None:
    put(client, 0.5, 0.51, 0, 1)

    assert list(take(client, 2, tolerance=0.1).data()["x"]) == ["2", "3"]


def test_where_the_step_cannot_fill_the_batch_the_groups_go_back(client: TransferQueueClient) -> None:
    put(client, 0, 1, 0, 0, 0, 0, 0, 0)
    with pytest.raises(ExhaustedError):
        take(client)
    stand = client.stats().tasks["train"]

    assert (stand.ready, stand.leased, stand.dropped) == (2, 0, {"zero_variance": 6})


def test_at_the_deadline_the_groups_go_back_and_the_error_counts_them(client: TransferQueueClient) -> None:
    put(client, 0, 1, 1, 1)
    with pytest.raises(NotReadyError, match=r"not put.*; 2 rows at hand went back to the task; 1 groups were dropped"):
        take(client, timeout_s=0.3)

    assert client.stats().tasks["train"].ready == 2


def test_groups_at_hand_are_kept_while_the_batch_fills(client: TransferQueueClient) -> None:
    put(client, 0, 1)
    asked = in_background(lambda: take(client, lease_s=0.6))
    time.sleep(1.5)
    put(client, 1, 0)
    batch = asked()

    assert list(batch.data()["x"]) == ["0", "1", "0", "1"]
    batch.ack_all()


def test_a_batch_with_a_lease_that_is_over_consumes_nothing(client: TransferQueueClient) -> None:
    put(client, 0, 1, 1, 0)
    batch = take(client)
    client.release(batch.metas[1])
    with pytest.raises(LeaseError, match="was released"):
        batch.ack_all()
    assert client.stats().tasks["train"].consumed == 0
    batch.release_all()

    assert client.stats().tasks["train"].ready == 4
    assert batch.metas == []


def test_rewards_that_are_no_numbers_are_named_and_nothing_is_kept(client: TransferQueueClient) -> None:
    put(client, 0, 1, float("nan"), 1)
    with pytest.raises(FieldError, match=r"field 'reward' of group .* holds \[nan, 1\.0\], not one finite number"):
        take(client)

    assert client.stats().tasks["train"].ready == 4


def test_arguments_that_cannot_work_are_refused(client: TransferQueueClient) -> None:
    with pytest.raises(GroupError, match="batch_size=3 is no multiple of num_n_samples=2"):
        take(client, 3)
    with pytest.raises(ConfigurationError, match="reward_field='reward' is not in"):
        informative_groups(client, ["x"], 2, "train", num_n_samples=2)
