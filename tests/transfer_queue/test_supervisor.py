"""A controller that dies is brought back, whatever it dies of and whenever."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.soak.points import arm, hits
from transfer_queue import TransferQueueClient, TransferQueueController, supervisor

Start = Callable[..., TransferQueueController]
Connect = Callable[..., TransferQueueClient]


def until(condition: Callable[[], Any], within_s: float = 30.0) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("point", ["in_replay", "before_answer"])
def test_one_that_is_killed_while_it_comes_back_is_brought_back_again(
    armed: Path, point: str, start: Start, connect: Connect, tmp_path: Path
) -> None:
    controller = start(journal_dir=tmp_path / "journal")
    client = connect(controller)
    client.put({"x": ["kept"]})
    arm(armed, point)
    os.kill(controller.pid, 9)

    assert list(client.get_data(client.get_meta(["x"], 1, task_name="train"))["x"]) == ["kept"]
    assert hits(armed)[point] == 1


def test_one_whose_journal_another_has_comes_back_when_that_is_gone(
    start: Start, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the death of one and its return the folder is free, and somebody may take it."""
    spawning = supervisor.Supervisor._spawn
    taken: list[TransferQueueController] = []

    def late(again: supervisor.Supervisor) -> Any:
        monkeypatch.setattr(supervisor.Supervisor, "_spawn", spawning)
        taken.append(TransferQueueController.start(global_batch_size=8, journal_dir=tmp_path / "journal"))
        return spawning(again)

    controller = start(journal_dir=tmp_path / "journal")
    client = connect(controller)
    client.put({"x": ["kept"]})
    monkeypatch.setattr(supervisor.Supervisor, "_spawn", late)
    os.kill(controller.pid, 9)
    until(lambda: taken)
    with connect(taken[0]) as other:
        assert other.stats().rows_put_total == 1
    taken[0].stop()

    assert client.stats().rows_put_total == 1
