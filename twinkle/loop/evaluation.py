"""Reward on held-out prompts, written to ``evals.jsonl`` so that a resumed run still knows how it began."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twinkle.data.base import PromptRow, prompt_text
from twinkle.loop.records import JsonLines, read_rows
from twinkle.loop.rollout import RolloutWorker, evaluate
from twinkle.rl.reward import Reward

SAMPLES_KEPT = 32
SEED_OFFSET = 0x65766C  # "evl": held-out prompts never share random numbers with training prompts


class Evaluation:
    """Samples one response for each held-out prompt and scores it. The same seeds every time, so that only the weights
    differ between two evaluations.

    Args:
        worker: its policy is what is evaluated, at the training temperature.
        rows: the held-out prompts.
        path: the file of results; those after ``keep_through_step`` are cut off.
    """

    def __init__(
        self,
        worker: RolloutWorker,
        reward: Reward,
        rows: Sequence[PromptRow],
        path: Path,
        seed: int,
        *,
        keep_through_step: int,
    ):
        self.worker, self.reward, self.rows, self.seed = worker, reward, rows, seed + SEED_OFFSET
        self.lines = JsonLines(path, keep_through_step=keep_through_step)

    def run(self, step: int) -> dict[str, Any]:
        """The evaluation of ``step``: done now, or read where it was done before."""
        for known in read_rows(self.lines.path):
            if known["step"] == step:
                return known
        pairs = evaluate(self.worker, self.rows, self.seed)
        texts = [sequence.text for _, sequence in pairs]
        rewards = self.reward.score([row.prompt for row, _ in pairs], texts, [row.answer for row, _ in pairs])
        samples = [
            {"prompt": prompt_text(row.prompt), "answer": row.answer, "response": text, "reward": reward}
            for (row, _), text, reward in zip(pairs, texts, rewards, strict=True)
        ]
        result = {
            "step": step,
            "reward_mean": sum(rewards) / len(rewards),
            "prompts": len(rewards),
            "samples": samples[:SAMPLES_KEPT],
        }
        self.lines.write(result)
        return result

    def sync(self) -> None:
        """Return when every evaluation is on disk."""
        self.lines.sync()

    def close(self) -> None:
        """Close the file."""
        self.lines.close()
