"""Runs that end early, and what a resumed one makes of them: the same bits."""

import random
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.twinkle.entrypoints.cli import Trainer
from twinkle.loop.records import read_rows

LONG = [
    "loop.steps=40",
    "loop.checkpoint_every=5",
    "eval.every=10",
    "data.held_out_prompts=8",
    "metrics.tensorboard=false",
]
TIMES = ("seconds", "tokens_per_s", "version")


def weights(run: Path) -> dict[str, bytes]:
    tensors = load_file(run / "adapter" / "adapter_model.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def figures(run: Path) -> list[dict[str, object]]:
    return [
        {name: value for name, value in row.items() if not name.endswith(TIMES)}
        for row in read_rows(run / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trainer = Trainer(tmp_path_factory.mktemp("undisturbed"))
    outcome = trainer.run(*LONG, fast=False)
    assert outcome.code == 0, outcome
    return trainer.latest


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_first_and_the_resumed_run_ends_with_the_same_bits(
    trainer: Trainer, undisturbed: Path, signum: signal.Signals, code: int
) -> None:
    running = trainer.start(*LONG, fast=False)
    run = wait_for_run(trainer)
    running.until_step(run, 7)
    sent = time.monotonic()
    running.send(signum)
    outcome = running.wait()

    assert outcome.code == code
    assert time.monotonic() - sent < 20
    assert (outcome.err, outcome.left_processes, outcome.left_files) == ("", [], [])
    assert (run / "report.html").exists()
    saved = [int(path.name.removeprefix("step-")) for path in (run / "checkpoints").iterdir()]
    assert max(saved) == len(read_rows(run / "metrics.jsonl"))

    resumed = trainer.run(*LONG, "run.resume=auto", fast=False)
    assert resumed.code == 0, resumed
    assert trainer.latest == run
    assert weights(run) == weights(undisturbed)
    assert figures(run) == figures(undisturbed)


def test_sigkill_at_a_random_moment_and_the_resumed_run_ends_with_the_same_bits(
    trainer: Trainer, undisturbed: Path
) -> None:
    running = trainer.start(*LONG, fast=False)
    run = wait_for_run(trainer)
    running.until_step(run, random.randint(1, 35))
    time.sleep(random.random() * 0.05)
    running.send(signal.SIGKILL)
    outcome = running.wait()

    assert outcome.code == -signal.SIGKILL
    assert (outcome.left_processes, outcome.left_files) == ([], [])
    resumed = trainer.run(*LONG, "run.resume=auto", fast=False)
    assert resumed.code == 0, resumed
    assert weights(run) == weights(undisturbed)
    assert figures(run) == figures(undisturbed)


def test_a_second_run_of_the_same_settings_repeats_every_bit(trainer: Trainer, undisturbed: Path) -> None:
    outcome = trainer.run(*LONG, fast=False)

    assert outcome.code == 0, outcome
    assert weights(trainer.latest) == weights(undisturbed)


def wait_for_run(trainer: Trainer, timeout: float = 60) -> Path:
    deadline = time.monotonic() + timeout
    while not (trainer.folder / "runs" / "latest").exists():
        assert time.monotonic() < deadline, "no run folder"
        time.sleep(0.02)
    return trainer.latest
