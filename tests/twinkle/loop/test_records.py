from pathlib import Path

import pytest

from twinkle.errors import ConfigError
from twinkle.loop.config import MetricsConfig
from twinkle.loop.records import JsonLines, Records, read_rows


def write(path: Path, *steps: int) -> None:
    lines = JsonLines(path, keep_through_step=10**9)
    for step in steps:
        lines.write({"step": step})
    lines.close()


def steps_in(path: Path) -> list[int]:
    return [row["step"] for row in read_rows(path)]


def test_rows_are_visible_as_soon_as_they_are_written(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "m.jsonl")
    lines.write({"step": 1})

    assert steps_in(tmp_path / "m.jsonl") == [1]
    lines.close()


def test_a_resumed_file_forgets_what_lies_beyond_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "m.jsonl", 1, 2, 3, 4)
    resumed = JsonLines(tmp_path / "m.jsonl", keep_through_step=2)
    resumed.write({"step": 3})
    resumed.close()

    assert steps_in(tmp_path / "m.jsonl") == [1, 2, 3]


def test_a_torn_last_line_is_left_out_and_then_cut(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "rew')

    assert steps_in(path) == [1]
    JsonLines(path, keep_through_step=5).close()
    assert path.read_text() == '{"step": 1}\n'


def test_a_run_without_checkpoint_starts_its_files_anew(tmp_path: Path) -> None:
    write(tmp_path / "m.jsonl", 1, 2)
    JsonLines(tmp_path / "m.jsonl", keep_through_step=0).close()

    assert steps_in(tmp_path / "m.jsonl") == []


def test_tensorboard_gets_the_numbers_of_a_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    records = Records(tmp_path, MetricsConfig(tensorboard=True), {}, resumed_step=0)
    records.step({"step": 1, "reward_mean": 0.25, "version": "0.1"})
    records.evaluated({"step": 1, "reward_mean": 0.5})
    records.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()

    assert sorted(events.Tags()["scalars"]) == ["eval_reward_mean", "reward_mean"]
    assert [event.value for event in events.Scalars("reward_mean")] == [0.25]


def test_wandb_without_its_extra_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"twinkle-rl\[wandb\]"):
        Records(tmp_path, MetricsConfig(tensorboard=False, wandb=True), {}, resumed_step=0)
