"""The page that a run leaves."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.runs import configured
from twinkle.data import DataConfig, make_source
from twinkle.loop.plan import plan_lines
from twinkle.loop.report import write_report

FIGURES = {
    "reward_mean": 0.5, "reward_std": 0.1, "loss": 0.0, "grad_norm": 1.0, "clip_fraction": 0.0, "logp_diff_max": 1e-6,
    "tokens_per_s": 10.0, "seconds": 1.0,
}  # fmt: skip


def evaluation(step: int, rewards: list[float]) -> dict[str, Any]:
    samples = [{"prompt": "12", "answer": "21", "response": "x", "reward": reward} for reward in rewards]
    return {"step": step, "reward_mean": sum(rewards) / len(rewards), "prompts": len(rewards), "samples": samples}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of two steps that has written all but its result."""
    rows = {
        "metrics.jsonl": [{"step": step, **FIGURES} for step in (1, 2)],
        "evals.jsonl": [evaluation(0, [0.0, 0.0, 0.0]), evaluation(2, [1.0, 0.5, 0.0])],
    }
    for name, lines in rows.items():
        (tmp_path / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "run.json").write_text("{}")
    return tmp_path


def written(folder: Path, steps: int = 2) -> str:
    plan = plan_lines(configured()[0], model="some parameters", run_folder="runs/x")
    return write_report(folder, title="toy", plan=plan, steps=steps).read_text()


def test_it_says_what_the_task_is_and_each_part_of_the_plan_by_itself(folder: Path) -> None:
    page = written(folder)

    assert "<dt>task</dt><dd>write the digits of the prompt in reverse order</dd>" in page
    assert "<dt>run folder</dt><dd>runs/x</dd>" in page


def test_only_the_best_reward_is_green(folder: Path) -> None:
    page = written(folder)

    for kind, value in (("good", "1.00"), ("better", "0.50"), ("bad", "0.00")):
        assert f'<td class="number {kind}">{value}</td></tr>' in page


def test_it_lists_the_result_of_a_run_that_is_finished(folder: Path) -> None:
    assert '<td class="text">result.json</td>' in written(folder)
    assert '<td class="text">run.json</td>' in written(folder)
    assert '<td class="text">result.json</td>' not in written(folder, steps=9)


def test_an_answer_that_is_one_of_many_is_not_shown_as_the_one() -> None:
    held_out = make_source(DataConfig(name="even_digits"), 0).held_out()

    assert {row.expected for row in held_out} == {"any even digits"}
    assert {row.expected for row in make_source(DataConfig(), 0).held_out()} == {""}
