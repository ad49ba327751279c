"""Task ``reward``: responses become numbers."""

from dataclasses import dataclass

import torch

from transfer_queue import TransferQueueClient
from twinkle.rl.reward import Reward


@dataclass(frozen=True)
class RewardWorker:
    """Scores responses. A reward that raises ends the run with its name and sample; it never becomes a 0."""

    client: TransferQueueClient
    reward: Reward
    lease_s: float
    timeout_s: float

    def work(self, step: int, rows: int) -> None:
        """Score ``rows`` rows of partition ``step``."""
        meta = self.client.get_meta(
            ["prompt", "response", "answer"],
            batch_size=rows,
            global_step=step,
            task_name="reward",
            lease_s=self.lease_s,
            timeout_s=self.timeout_s,
        )
        data = self.client.get_data(meta)
        rewards = self.reward.score(list(data["prompt"]), list(data["response"]), list(data["answer"]))
        self.client.put({"reward": torch.tensor(rewards)}, metadata=meta)
        self.client.ack(meta)
