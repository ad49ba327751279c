"""Task ``reward``: responses become numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from twinkle.config import TrainConfig
from twinkle.infra import DeviceMesh, current_rank, remote_class, remote_function
from twinkle.loop.config import QueueConfig
from twinkle.loop.queue_time import TimedClient
from twinkle.loop.sharing import shared_out
from twinkle.rl.reward import Reward
from twinkle.rl.reward import resolve as reward_named


@dataclass
class RewardWorker:
    """Scores responses. A reward that raises ends the run with its name and sample; it never becomes a 0."""

    client: TimedClient
    reward: Reward
    queue: QueueConfig

    @remote_function(dispatch=shared_out, collect=lambda results, offsets: None)
    def work(self, step: int, rows: int) -> None:
        """Score ``rows`` rows of partition ``step``."""
        meta, data = self.client.get(
            ["prompt", "response", "answer"],
            batch_size=rows,
            global_step=step,
            task_name="reward",
            lease_s=self.queue.lease_s,
            timeout_s=self.queue.timeout_s,
            plain=True,
        )
        rewards = self.reward.score(data["prompt"], data["response"], data["answer"])
        self.client.put({"reward": torch.tensor(rewards)}, metadata=meta, ack=True)

    @property
    @remote_function(collect="mean")
    def queue_seconds(self) -> float:
        """Wall time inside calls of the queue so far."""
        return self.client.seconds

    def close(self) -> None:
        """Leave the queue."""
        self.client.close()


@remote_class
class RewardRank(RewardWorker):
    """A reward worker with its own reward function, found by name."""

    def __init__(
        self,
        config: TrainConfig,
        queue: Mapping[str, Any],
        device_mesh: DeviceMesh | None = None,
        remote_group: str | None = None,
    ):
        client = TimedClient(f"reward-{current_rank().data_rank}", queue)
        super().__init__(client, reward_named(config.data.reward), config.queue)
