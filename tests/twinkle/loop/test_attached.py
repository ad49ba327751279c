"""A run that waits for samplers of others: what ends its waits."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.runs import configured
from transfer_queue import TransferQueueController
from twinkle.errors import DataError
from twinkle.loop.attached import AttachedSamplers
from twinkle.loop.config import TASKS
from twinkle.loop.queue_time import TimedClient
from twinkle.loop.weight_board import WeightFile

N, PROMPTS = 4, 2


@pytest.fixture
def client() -> Iterator[TimedClient]:
    with (
        TransferQueueController.start(global_batch_size=PROMPTS, num_n_samples=N, tasks=TASKS) as queue,
        TimedClient("test", queue.get_info()) as client,
    ):
        yield client


@pytest.fixture
def samplers(client: TimedClient, tmp_path: Path) -> AttachedSamplers:
    config, _ = configured()
    loop = replace(config.loop, prompts_per_step=PROMPTS, samples_per_prompt=N)
    board = WeightFile(tmp_path / "weights")
    return AttachedSamplers(client, board, loop, config.queue, None, tmp_path / "queue.json")


def drop(client: TimedClient, groups: int, why: str) -> None:
    meta = client.get_meta(["prompt"], groups * N, 1, "rollout", get_n_samples=True, lease_s=60)
    client.drop(meta, why)


def test_a_prompt_that_a_sampler_dropped_ends_the_wait_with_its_reason(
    client: TimedClient, samplers: AttachedSamplers
) -> None:
    client.put({"prompt": ["1"] * PROMPTS * N, "seed": torch.arange(PROMPTS * N)}, global_step=1)
    drop(client, 1, "the prompt '1' is odd")

    with pytest.raises(DataError, match=r"^No sampler can answer step 1: the prompt '1' is odd$"):
        samplers.work(1, PROMPTS)


def test_a_step_of_which_nothing_is_left_sends_a_person_to_the_samplers(
    client: TimedClient, samplers: AttachedSamplers
) -> None:
    """Rows that no task wants are freed, and their reasons with them."""
    client.put({"prompt": ["1"] * PROMPTS * N, "seed": torch.arange(PROMPTS * N)}, global_step=1)
    drop(client, PROMPTS, "the prompt '1' is odd")

    with pytest.raises(DataError, match="have dropped every prompt of step 1; twinkle-sampler says why"):
        samplers.work(1, PROMPTS)


def test_a_held_out_prompt_that_a_sampler_dropped_ends_the_wait_too(
    client: TimedClient, samplers: AttachedSamplers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its partition is not full, so the queue would wait for more until the deadline."""
    monkeypatch.setattr("twinkle.loop.attached.LOOK_S", 0.05)
    client.put({"prompt": ["1"] * N, "seed": torch.arange(N)}, global_step=1)
    drop(client, 1, "the prompt '1' is odd")

    with pytest.raises(DataError, match=r"^No sampler can answer step 1: the prompt '1' is odd$"):
        samplers.work(1, 1)
