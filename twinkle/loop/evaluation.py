"""Reward on held-out prompts, written to ``evals.jsonl`` so that a resumed run still knows how it began."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twinkle.data.base import PromptRow, prompt_text
from twinkle.loop.records import JsonLines, read_rows
from twinkle.loop.rollout import Samplers, evaluate
from twinkle.rl.reward import Reward

SAMPLES_KEPT = 32
SEED_OFFSET = 0x65766C  # "evl": held-out prompts never share random numbers with training prompts


class Evaluation:
    """Samples one response for each held-out prompt and scores it. The same seeds every time, so that only the weights
    differ between two evaluations.

    Args:
        samplers: their policy is what is evaluated, at the training temperature.
        rows: the held-out prompts.
        path: the file of results; those after ``keep_through_step`` are cut off.
    """

    def __init__(
        self,
        samplers: Samplers,
        reward: Reward,
        rows: Sequence[PromptRow],
        path: Path,
        seed: int,
        *,
        keep_through_step: int,
    ):
        self.samplers, self.reward, self.rows, self.seed = samplers, reward, rows, seed + SEED_OFFSET
        self.lines = JsonLines(path, keep_through_step=keep_through_step)

    def run(self, step: int) -> dict[str, Any]:
        """The evaluation of ``step``: done now, or read where it was done before."""
        for known in read_rows(self.lines.path):
            if known["step"] == step:
                return known
        texts = evaluate(self.samplers, self.rows, self.seed)
        rewards = self.reward.score([row.prompt for row in self.rows], texts, [row.answer for row in self.rows])
        samples = [
            {
                "prompt": prompt_text(row.prompt),
                "answer": row.expected or row.answer,
                "response": text,
                "reward": reward,
            }
            for row, text, reward in zip(self.rows, texts, rewards, strict=True)
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
