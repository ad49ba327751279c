"""What a run on Ray makes of a process that is killed: the queue comes back, a lost rank ends the run."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import trained
from tests.twinkle.infra.ray_classes import ended, placement_groups, until
from tests.twinkle.loop.test_on_ray import SHORT, STEPS, untimed
from tests.twinkle.loop.test_sync import weights
from transfer_queue.errors import ControllerLostError
from twinkle.entrypoints.shell import exit_code
from twinkle.errors import RankLostError
from twinkle.loop.records import read_rows
from twinkle.loop.rollout import PromptFeeder
from twinkle.loop.run_folder import checkpoints_in
from twinkle.loop.sync import SyncLoop

ON_RAY = [*SHORT, "infra=ray", "infra.trainer.cpus_per_rank=0", "infra.sampler.cpus_per_rank=0"]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    return trained(tmp_path_factory.mktemp("local"), *SHORT)


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[SyncLoop], int]], None]:
    """Kill the process of that id when the prompts of a step are in the queue, and return when it is gone."""

    def arrange(step: int, pid_of: Callable[[SyncLoop], int]) -> None:
        loops: list[SyncLoop] = []
        do, feed = SyncLoop.step, PromptFeeder.feed

        def doing(self: SyncLoop, *arguments: Any) -> Any:
            loops[:] = [self]
            return do(self, *arguments)

        def fed(self: PromptFeeder, at: int, cursor: int, count: int) -> int:
            behind = feed(self, at, cursor, count)
            if at == step:
                pid = pid_of(loops[0])
                os.kill(pid, signal.SIGKILL)
                until(lambda: ended(pid))
            return behind

        monkeypatch.setattr(SyncLoop, "step", doing)
        monkeypatch.setattr(PromptFeeder, "feed", fed)

    return arrange


def controller(loop: SyncLoop) -> int:
    """The process of the queue."""
    return int(loop.feeder.client._info["pid"])


def rank(kind: str, index: int) -> Callable[[SyncLoop], int]:
    """The process of a rank."""
    return lambda loop: int(getattr(loop, kind)._actors.machines[index].pid)


def test_the_queue_of_a_run_comes_back_from_its_journal_and_nobody_notices(
    ray_cluster: Any, tmp_path: Path, local: Path, at_step: Callable[..., None]
) -> None:
    at_step(3, controller)
    run = trained(tmp_path / "runs", *ON_RAY, f"queue.journal={tmp_path / 'journal'}")

    assert untimed(run) == untimed(local)
    assert weights(run) == weights(local)
    assert list((tmp_path / "journal").iterdir()) == []


@pytest.mark.slow
def test_without_a_journal_the_end_of_the_queue_is_that_of_the_run(
    ray_cluster: Any, tmp_path: Path, at_step: Callable[..., None]
) -> None:
    at_step(3, controller)
    with pytest.raises(ControllerLostError) as error:
        trained(tmp_path, *ON_RAY)

    assert exit_code(error.value) == 75
    assert [path.name for path in checkpoints_in(tmp_path / "latest")] == ["step-000002"]
    until(lambda: placement_groups() == 0)


@pytest.mark.parametrize(
    ("kind", "index", "ranks", "saved"),
    [
        ("trainer", 1, 2, 2),
        pytest.param("trainer", 0, 2, None, marks=pytest.mark.slow),
        pytest.param("rollout", 0, 1, 2, marks=pytest.mark.slow),
    ],
)
def test_a_lost_rank_ends_the_run_after_what_is_whole_is_saved_and_the_next_goes_on(
    ray_cluster: Any, tmp_path: Path, local: Path, at_step: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
    kind: str, index: int, ranks: int, saved: int | None,
) -> None:  # fmt: skip
    there = [*SHORT, f"run.folder={tmp_path / 'run'}", "run.resume=auto"]
    at_step(3, rank(kind, index))
    with pytest.raises(RankLostError, match=rf"rank {index} of .* was lost") as error:
        trained(tmp_path, *ON_RAY, *there, f"mesh.trainer_dp={ranks}")
    monkeypatch.undo()

    assert exit_code(error.value) == 75
    assert [path.name for path in checkpoints_in(tmp_path / "run")] == ([f"step-{saved:06d}"] if saved else [])
    trained(tmp_path, *there)
    assert [row["step"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")] == list(range(1, STEPS + 1))
    for ours, theirs in zip(untimed(tmp_path / "run"), untimed(local), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
