"""The quickstart as a person runs it, in a process of its own and watched from outside."""

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import echo
from benchmarks.table import Figure, largest_at_most, median_at_least, median_at_most, shown
from twinkle.loop.records import read_rows
from twinkle.loop.run_folder import read_json

RUNS = 3
STEPS = 200


@dataclass(frozen=True)
class Run:
    """What one run took and came to."""

    first_line_s: float
    whole_s: float
    training_s: float
    queue_ms: float
    reward: float
    logp_diff_max: float


def run(seed: int) -> Run:
    """Run the quickstart in an empty folder; every result is read from its run folder and checked."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(Path(sys.executable).with_name("twinkle-train")),
            "experiment=quickstart",
            f"loop.steps={STEPS}",
            f"run.seed={seed}",
        ]
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first_line = next((time.perf_counter() - began for line in process.stdout if line.startswith("step 1/")), None)
        process.stdout.read()
        assert process.wait() == 0, f"{command} ended with {process.returncode}"
        whole = time.perf_counter() - began
        assert first_line is not None, "no progress line was printed"
        latest = Path(folder) / "runs" / "latest"
        rows = read_rows(latest / "metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        return Run(
            first_line_s=first_line,
            whole_s=whole,
            training_s=sum(row["seconds"] for row in rows),
            queue_ms=1000 * statistics.median(row["queue_seconds"] for row in rows),
            reward=read_json(latest / "result.json")["eval_reward_after"],
            logp_diff_max=max(row["logp_diff_max"] for row in rows),
        )


def measure() -> list[Figure]:
    """Three runs, three seeds."""
    echoes, runs = [], []
    for seed in range(RUNS):
        echoes.append(echo.median_ms())
        runs.append(run(seed))
    return [
        median_at_most("quickstart: start to first progress line", [r.first_line_s for r in runs], 15, "s"),
        median_at_most("quickstart: whole command, its processes included", [r.whole_s for r in runs], 30, "s"),
        median_at_most("quickstart: the 200 steps alone", [r.training_s for r in runs], 30, "s"),
        median_at_most(
            "quickstart: time inside queue calls per step (median step)", [r.queue_ms for r in runs], 8, "ms"
        ),
        largest_at_most(
            "quickstart: sampler against trainer log-probs, any step", [r.logp_diff_max for r in runs], 1e-5, "nats"
        ),
        shown("pyzmq echo beside it: how fast the machine was", echoes, "ms"),
        median_at_least("quickstart: reward on held-out prompts after 200 steps", [r.reward for r in runs], 0.80, ""),
    ]
