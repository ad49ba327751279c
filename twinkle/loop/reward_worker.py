"""Task ``reward``: responses become numbers."""

from dataclasses import dataclass

import torch

from transfer_queue import TransferQueueClient
from twinkle.loop.config import QueueConfig
from twinkle.rl.reward import Reward


@dataclass(frozen=True)
class RewardWorker:
    """Scores responses. A reward that raises ends the run with its name and sample; it never becomes a 0."""

    client: TransferQueueClient
    reward: Reward
    queue: QueueConfig

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
