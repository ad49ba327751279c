"""Does reinforcement learning learn, and only because of the reward? Three seeds of every case, through the real loop.

``make test-learning`` asserts these figures, ``make bench`` writes them to ``benchmarks/results/learning.{json,md}``.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.table import Figure, largest_at_most, median_at_least, median_at_most
from tests.runs import trained
from twinkle.loop.records import read_rows
from twinkle.loop.run_folder import read_json

SEEDS = (0, 1, 2)
HELD_OUT = 128
LARGEST_GAP = 1e-5


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
    Case("even digits, all weights", ("experiment=even_digits",), 75, 0.95, at_least=True),
    Case("reverse-4, all weights", REVERSE_FULL, 150, 0.95, at_least=True),
    Case("reverse-4, LoRA r=8", ("experiment=quickstart",), 200, 0.80, at_least=True),
    Case(
        "reverse-4, shuffled advantages", ("experiment=quickstart", "algo.control=shuffled"), 150, 0.20, at_least=False
    ),
    Case("reverse-4, flipped advantages", ("experiment=quickstart", "algo.control=flipped"), 150, 0.10, at_least=False),
]


def run(case: Case, folder: Path) -> tuple[Figure, list[float]]:
    """The case's held-out reward over the seeds, and the largest log-prob gap of each run."""
    rewards, gaps = [], []
    for seed in SEEDS:
        sizes = [f"loop.steps={case.steps}", f"run.seed={seed}", f"data.held_out_prompts={HELD_OUT}"]
        path = trained(folder / str(seed), *case.overrides, *sizes)
        rewards.append(read_json(path / "result.json")["eval_reward_after"])
        gaps.append(max(row["logp_diff_max"] for row in read_rows(path / "metrics.jsonl")))
    figure = median_at_least if case.at_least else median_at_most
    return figure(f"{case.name}: held-out reward at step {case.steps}", rewards, case.bound, ""), gaps


def measure() -> list[Figure]:
    """Every case, and the largest log-prob gap over all of their steps."""
    figures, gaps = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(CASES):
            figure, its_gaps = run(case, Path(folder) / str(number))
            figures.append(figure)
            gaps += its_gaps
    return [
        *figures,
        largest_at_most("sampler against trainer log-probs, any step of any run", gaps, LARGEST_GAP, "nats"),
    ]
