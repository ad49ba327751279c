"""The loop on device groups of a real Ray: the same figures as in one process, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runs import configured, trained
from tests.twinkle.infra.ray_classes import ended, placement_groups, until
from tests.twinkle.loop.test_sync import weights
from twinkle.errors import ConfigError
from twinkle.loop.records import read_rows
from twinkle.loop.rollout import PromptFeeder
from twinkle.loop.stop import StopRequested

STEPS, START_S = 5, 110
SHORT = [f"loop.steps={STEPS}", "data.held_out_prompts=4", "loop.checkpoint_every=0"]
NOT_COMPARED = ("seconds", "tokens_per_s", "version")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    return trained(tmp_path_factory.mktemp("local"), *SHORT)


def untimed(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's figures but for what a clock measured, and the lineage."""
    rows = read_rows(run / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.endswith(NOT_COMPARED)} for row in rows]


def test_a_run_goes_on_at_one_rank_of_each_kind_as_it_would_have_in_one_process(
    ray_cluster: Any, tmp_path: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = PromptFeeder.feed

    def interrupted(self: PromptFeeder, step: int, cursor: int, count: int) -> int:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return feed(self, step, cursor, count)

    with monkeypatch.context() as patch:
        patch.setattr(PromptFeeder, "feed", interrupted)
        with pytest.raises(StopRequested):
            trained(tmp_path, *SHORT)
    run = trained(tmp_path, *SHORT, "infra=ray", "run.resume=auto")

    assert [path.name for path in tmp_path.iterdir() if not path.is_symlink()] == [run.name]
    assert [row["version"] for row in read_rows(run / "metrics.jsonl")] == ["0.1", "0.2", "1.3", "1.4", "1.5"]
    assert untimed(run) == untimed(local)
    assert weights(run) == weights(local)
    until(lambda: placement_groups() == 0)


def test_ranks_and_replicas_share_each_step(ray_cluster: Any, tmp_path: Path, local: Path) -> None:
    run = trained(
        tmp_path, *SHORT, "infra=ray", "mesh.trainer_dp=2", "mesh.sampler_dp=2", "mesh.reward_ranks=0",
        "infra.trainer.cpus_per_rank=0", "infra.sampler.cpus_per_rank=0",
    )  # fmt: skip

    for ours, theirs in zip(untimed(run), untimed(local), strict=True):
        assert ours["reward_mean"] == theirs["reward_mean"]
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], abs=1e-6)
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
    until(lambda: placement_groups() == 0)


@pytest.fixture
def started(tmp_path: Path) -> Any:
    """`twinkle-train infra=ray` in a process of its own, with a Ray of its own, that has done some steps."""
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [
            sys.executable, "-c", "from twinkle.entrypoints.train import main; main()",
            "infra=ray", "loop.steps=100000", "data.held_out_prompts=4", f"run.root={tmp_path}",
            "metrics.tensorboard=false", "loop.checkpoint_every=0",
        ],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + START_S
        while len(read_rows(tmp_path / "latest" / "metrics.jsonl")) < STEPS:
            assert process.poll() is None, f"it ended with {process.poll()}"
            assert time.monotonic() < deadline, "it did not get that far"
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def children(pid: int) -> list[int]:
    """Processes that descend from one."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found, wanted = [], [pid]
    while wanted:
        parent = wanted.pop()
        wanted += (mine := [child for child, its in parents.items() if its == parent])
        found += mine
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sigterm_saves_the_run_and_ends_the_ray_that_it_started(started: Any, tmp_path: Path, local: Path) -> None:
    assert untimed(tmp_path / "latest")[:STEPS] == untimed(local)
    family = children(started.pid)
    assert len(family) > 5
    started.send_signal(signal.SIGTERM)

    assert started.wait(60) == 143
    assert len(list((tmp_path / "latest" / "checkpoints").glob("step-*"))) == 1
    until(lambda: all(map(ended, family)))


def test_groups_are_sized_by_the_meshes() -> None:
    config, _ = configured(
        "infra=ray", "sampler=vllm", "mesh.sampler_dp=2", "mesh.sampler_tp=4", "mesh.trainer_dp=2", "model.device=cuda",
        "infra.sampler.ranks_per_node=4", "+infra.sampler.label_selector.pool=a", "infra.trainer.cpus_per_rank=3",
    )  # fmt: skip
    trainer, sampler, reward = config.device_groups()

    assert (trainer.ranks, trainer.device_type, trainer.cpus_per_rank) == (2, "cuda", 3)
    assert (sampler.ranks, sampler.device_type, sampler.ranks_per_node) == (8, "cuda", 4)
    assert dict(sampler.label_selector) == {"pool": "a"}
    assert (reward.ranks, reward.device_type, reward.cpus_per_rank) == (1, "cpu", 0)


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["mesh.sampler_dp=2"], r"mesh\.sampler_dp=2 needs processes of their own: set infra=ray"),
        (["mesh.reward_ranks=1"], r"mesh\.reward_ranks=1 needs processes"),
        (["queue.storage=ray"], r"set infra=ray, or take queue\.storage=shm"),
        (["infra=ray", "mesh.sampler_tp=2"], "needs sampler=vllm"),
        (["infra=ray", "mesh.sampler_dp=9"], r"more than loop\.prompts_per_step=8"),
        (["infra=ray", "infra.sampler.device_type=tpu"], "'tpu'"),
        (["infra=ray", "infra.sampler.ranks_per_node=2"], "ranks_per_node of 'sampler' is 2; it must divide its 1"),
        (["infra.mode=slurm"], "choose one of: local, ray"),
    ],
)
def test_what_cannot_be_is_refused_with_the_setting_named(overrides: list[str], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        configured(*overrides)


def test_ranks_that_ray_has_not_got_leave_no_run_behind(ray_cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"device group 'sampler' asks for 8 ranks|'trainer'"):
        trained(tmp_path, *SHORT, "infra=ray", "mesh.sampler_dp=8", "infra.timeout_s=1")
    assert not list(tmp_path.glob("2*"))
    until(lambda: placement_groups() == 0)
