"""The queue of a run and its pages: there before the model is, and right until the end."""

import json
import os
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.runs import configured, trained
from twinkle.errors import ConfigError
from twinkle.loop import assembly, run_queue
from twinkle.loop.records import read_rows
from twinkle.loop.rollout import PromptFeeder
from twinkle.loop.run_folder import checkpoints_in
from twinkle.loop.stop import StopRequested
from twinkle.metrics import TrainingMetrics

SHORT = ["data.held_out_prompts=4", "loop.checkpoint_every=0", "loop.steps=4"]


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def status(port: int) -> dict[str, Any]:
    """What the page says."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status", timeout=5) as reply:
        document: dict[str, Any] = json.load(reply)
    return document


def test_the_page_tells_where_a_run_stands_from_before_the_model_to_after_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    told: list[dict[str, Any]] = []
    load, feed, ended = assembly.base_model, PromptFeeder.feed, run_queue.TrainingMetrics
    kept: list[TrainingMetrics] = []

    def loading(*arguments: Any) -> Path:
        told.append(status(port))
        return load(*arguments)

    def fed(self: PromptFeeder, step: int, cursor: int, count: int) -> int:
        told.append(status(port))
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return feed(self, step, cursor, count)

    def keep(*arguments: Any) -> TrainingMetrics:
        kept.append(ended(*arguments))
        return kept[-1]

    monkeypatch.setattr(assembly, "base_model", loading)
    monkeypatch.setattr(PromptFeeder, "feed", fed)
    monkeypatch.setattr(run_queue, "TrainingMetrics", keep)
    with pytest.raises(StopRequested):
        trained(tmp_path, *SHORT, f"metrics.port={port}")
    before = read_rows(tmp_path / "latest" / "evals.jsonl")[0]["reward_mean"]

    assert [each["step"] for each in told] == [None, 0, 1, 2]
    assert {(each["schema"], each["attempt"], each["lineage"]) for each in told} == {(1, 1, 0)}
    assert [each["eval_reward"] for each in told] == [None, before, before, before]
    assert [each["checkpoint_step"] for each in told] == [None] * 4
    assert kept[0].progress.now.checkpoint_step == kept[0].progress.now.step == 2


def test_an_attempt_knows_its_number_and_what_was_known_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    there = [*SHORT, f"run.folder={tmp_path / 'run'}", "run.resume=auto", "loop.checkpoint_every=1"]
    trained(tmp_path, *there)
    told: list[dict[str, Any]] = []
    feed = PromptFeeder.feed

    def fed(self: PromptFeeder, step: int, cursor: int, count: int) -> int:
        told.append(status(port))
        return feed(self, step, cursor, count)

    monkeypatch.setattr(PromptFeeder, "feed", fed)
    trained(tmp_path, *there, "loop.steps=5", f"metrics.port={port}")

    assert [(each["attempt"], each["version"], each["checkpoint_step"]) for each in told] == [(2, "1.4", 4)]
    assert told[0]["eval_reward"] == read_rows(tmp_path / "run" / "evals.jsonl")[1]["reward_mean"]
    assert len(checkpoints_in(tmp_path / "run")) == 2


def test_a_journal_begins_empty_for_each_attempt_and_goes_with_it(tmp_path: Path) -> None:
    there = [*SHORT, f"run.folder={tmp_path / 'run'}", "run.resume=auto", f"queue.journal={tmp_path / 'journal'}"]
    trained(tmp_path, *there)
    trained(tmp_path, *there, "loop.steps=5")

    assert list((tmp_path / "journal").iterdir()) == []
    with pytest.raises(ConfigError, match=r"queue\.journal='/dev/null/x' cannot be written"):
        trained(tmp_path, *SHORT, "queue.journal=/dev/null/x")


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("queue.sampler=grop", r"queue\.sampler='grop' is no sampler: .*did you mean grpo"),
        ("queue.task_samplers.train=no.such:Thing", r"queue\.task_samplers\.train='no\.such:Thing' cannot be imported"),
        ("+queue.task_samplers.tarin=grpo", r"task of queue\.task_samplers='tarin' is unknown; .*did you mean train"),
        ("queue.num_global_batch=0", r"queue\.num_global_batch=0 must be at least 1"),
        ("run.folder=''", "names no folder"),
        ("run.folder=a run.resume=b", "name two folders"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_starts(override: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        configured(*override.split(" "))


def test_samplers_of_ones_choice_serve_the_tasks(tmp_path: Path) -> None:
    chosen = [
        "queue.sampler=transfer_queue.samplers:SequentialSampler", "queue.task_samplers.train=GRPOSampler",
        "+queue.task_samplers.reward=sequential", "queue.num_global_batch=2", "queue.storage=memory",
    ]  # fmt: skip
    run, usual = trained(tmp_path / "chosen", *SHORT, *chosen), trained(tmp_path / "usual", *SHORT)

    assert [row["loss"] for row in read_rows(run / "metrics.jsonl")] == [
        row["loss"] for row in read_rows(usual / "metrics.jsonl")
    ]
