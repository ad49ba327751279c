"""The jobs of a sweep, and what is said of them at its end."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from twinkle.entrypoints.sweep import Sweep, sweep_of


@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [
        (["-m", "experiment=quickstart", "run.seed=0,1"], ["run.seed=0", "run.seed=1"]),
        (["run.seed=range(2)", "--multirun", "a.b=x,y"], [f"run.seed={n} a.b={x}" for n in (0, 1) for x in "xy"]),
        (["-m", "a=[1,2]"], [""]),
    ],
)
def test_the_jobs_are_those_that_hydra_makes(arguments: list[str], jobs: list[str]) -> None:
    sweep = sweep_of(arguments)

    assert sweep is not None
    assert sweep.jobs == jobs


@pytest.mark.parametrize("arguments", [["run.seed=0,1"], ["-m", "a=[1"]])
def test_what_is_no_sweep_has_no_jobs(arguments: list[str]) -> None:
    assert sweep_of(arguments) is None


def test_the_end_says_of_each_job_what_came_of_it(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"eval_reward_before": 0.1, "eval_reward_after": 0.95}))
    sweep, file = Sweep(["a=1", "a=2", "a=3", "a=4"]), io.StringIO()
    console = Console(file=file, width=300)
    for ended in ((0, tmp_path), (1, None)):
        sweep.begin(console)
        sweep.ended.append(ended)
    sweep.begin(console)  # a signal ends it
    sweep.show(console)

    lines = [" ".join(line.split()) for line in file.getvalue().splitlines()]
    assert lines[:3] == ["Job 1 of 4: a=1", "Job 2 of 4: a=2", "Job 3 of 4: a=3"]
    assert lines[-4:] == [
        f"a=1 0.100 -> 0.950 {tmp_path}",
        "a=2 failed (exit code 1)",
        "a=3 ended early",
        "a=4 not run",
    ]
