"""Does reinforcement learning learn, and only because of the reward? Medians over three seeds, through the real loop.

Written to ``benchmarks/results/learning.{json,md}`` when TWINKLE_WRITE_RESULTS is set (``make bench`` does).
"""

import statistics
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runs import trained
from twinkle.loop.records import read_rows
from twinkle.loop.run_folder import read_json

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Case:
    """One cell of the matrix: the median held-out reward after ``steps`` lies on the right side of ``bound``."""

    name: str
    overrides: tuple[str, ...]
    steps: int
    bound: float
    at_least: bool


REVERSE_FULL = ("experiment=quickstart", "model.lora.enabled=false", "optim.lr=2e-3")
CASES = [
    Case("even digits, all weights", ("experiment=even_digits",), 75, 0.95, True),
    Case("reverse-4, all weights", REVERSE_FULL, 150, 0.95, True),
    Case("reverse-4, LoRA r=8", ("experiment=quickstart",), 200, 0.80, True),
    Case("reverse-4, shuffled advantages", ("experiment=quickstart", "algo.control=shuffled"), 150, 0.20, False),
    Case("reverse-4, flipped advantages", ("experiment=quickstart", "algo.control=flipped"), 150, 0.10, False),
]


@pytest.mark.learning
@pytest.mark.timeout(280)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_median_of_three_seeds(case: Case, tmp_path: Path) -> None:
    rewards, gaps = [], []
    for seed in SEEDS:
        run = trained(
            tmp_path / str(seed),
            *case.overrides,
            f"loop.steps={case.steps}",
            f"run.seed={seed}",
            "data.held_out_prompts=128",
        )
        rewards.append(read_json(run / "result.json")["eval_reward_after"])
        gaps += [row["logp_diff_max"] for row in read_rows(run / "metrics.jsonl")]
    median = statistics.median(rewards)

    assert (median >= case.bound) if case.at_least else (median <= case.bound), rewards
    assert max(gaps) <= 1e-5
