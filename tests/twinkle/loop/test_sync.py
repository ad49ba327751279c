"""The synchronous loop with its real parts, interrupted where it hurts."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.runs import trained
from twinkle.errors import CheckpointError, RewardError
from twinkle.loop.records import read_rows
from twinkle.loop.rollout import RolloutWorker
from twinkle.loop.stop import StopRequested
from twinkle.loop.trainer import Trainer
from twinkle.model.policy import Policy

SHORT = ["loop.steps=5", "loop.checkpoint_every=0", "data.held_out_prompts=4"]


def weights(run: Path) -> dict[str, bytes]:
    tensors = load_file(run / "adapter" / "adapter_model.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def interrupted_once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *, call: int) -> None:
    """Send SIGINT to this process after the ``call``-th call of ``owner.name``."""
    real: Callable[..., Any] = getattr(owner, name)
    calls = []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        calls.append(None)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(owner, name, wrapped)


@pytest.mark.parametrize(
    ("owner", "name", "saved"),
    [
        (Policy, "finish_step", 3),  # the parameters have moved: the step is finished first
        (Trainer, "prepare", 2),  # nothing has moved yet: the step is given up
        (Policy, "begin_step", 2),
        (RolloutWorker, "work", 2),
    ],
)
def test_a_signal_at_any_point_saves_a_step_boundary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, saved: int
) -> None:
    expected = weights(trained(tmp_path / "undisturbed", *SHORT))
    with monkeypatch.context() as patch:
        interrupted_once(patch, owner, name, call=3)
        with pytest.raises(StopRequested):
            trained(tmp_path / "runs", *SHORT)
    run = (tmp_path / "runs" / "latest").resolve()

    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{saved:06d}"]
    assert [row["step"] for row in read_rows(run / "metrics.jsonl")] == list(range(1, saved + 1))
    assert trained(tmp_path / "runs", *SHORT, "run.resume=auto") == run
    assert weights(run) == expected


def test_a_failure_before_the_optimizer_moves_keeps_the_steps_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Trainer.prepare

    def fail(self: Trainer, step: int, count: int) -> Any:
        if step == 3:
            raise RewardError("the judge is away")
        return real(self, step, count)

    monkeypatch.setattr(Trainer, "prepare", fail)
    with pytest.raises(RewardError, match="the judge is away"):
        trained(tmp_path, *SHORT)

    assert (tmp_path / "latest" / "checkpoints" / "step-000002").is_dir()


def test_a_checkpoint_with_rows_in_the_queue_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfer_queue.TransferQueueClient.ack", lambda self, meta: None)

    with pytest.raises(CheckpointError, match=r"still holds partitions \[1\]"):
        trained(tmp_path, "loop.steps=1", "data.held_out_prompts=4")
