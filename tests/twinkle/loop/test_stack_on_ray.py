"""The settings that the operator makes of a stack, on a Ray that looks like its RayCluster: a head without CPUs, and a
node with a label for each pod of a device group."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import ray
import yaml

from tests.conftest import begin_ray
from tests.runs import configured
from tests.twinkle.infra.ray_classes import ended, placement_groups, until
from twinkle.entrypoints.shell import exit_code
from twinkle.loop.checkpoint import Boundary
from twinkle.loop.records import read_rows
from twinkle.loop.run_folder import checkpoints_in
from twinkle.loop.session import train
from twinkle.loop.stop import StopSignals
from twinkle.loop.sync import SyncLoop
from twinkle_operator.overrides import overrides
from twinkle_operator.spec import Spec
from twinkle_operator.words import GROUP_LABEL

EXAMPLE = Path(__file__).parents[3] / "examples" / "quickstart.yaml"
HERE = ("run.folder", "metrics.port", "metrics.host", "queue.journal", "loop.steps", "loop.checkpoint_every")
SHORT = ["loop.steps=4", "loop.checkpoint_every=0", "data.held_out_prompts=4", "metrics.tensorboard=false"]


@pytest.fixture
def pods() -> Iterator[dict[str, Any]]:
    """The nodes of the device groups."""
    from ray.cluster_utils import Cluster

    paused = ray.is_initialized()
    ray.shutdown()
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as at,
    ):
        patch.setenv("RAY_TMPDIR", at)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        names = ("sampler", "trainer")
        nodes = {name: cluster.add_node(num_cpus=1, labels={GROUP_LABEL: name}, wait=False) for name in names}
        cluster.wait_for_nodes()
        begin_ray(cluster.address)
        yield {"cluster": cluster, **nodes}
        ray.shutdown()
        cluster.shutdown()
    if paused:
        begin_ray()


def attempt(folder: Path) -> Path | None:
    """One RayJob of the quickstart, but for the places that a pod has and a test has not."""
    spec = msgspec.convert(yaml.safe_load(EXAMPLE.read_text())["spec"], Spec)
    made = overrides(spec, namespace="default", name="quickstart", uid="1")
    kept = [each for each in made if each.partition("=")[0] not in HERE]
    assert len(made) - len(kept) == len(HERE)
    config, resolved = configured(*kept, *SHORT, f"run.folder={folder}", f"queue.journal={folder}-journal")
    with StopSignals() as stop:
        return train(config, resolved, stop)


def group_of(handle: Any) -> set[str]:
    """The label of the nodes on which an object's ranks run."""
    labels = {node["NodeID"]: node["Labels"].get(GROUP_LABEL, "") for node in ray.nodes()}
    return {labels[machine.node_id] for machine in handle._actors.machines}


def test_each_rank_runs_in_a_pod_of_its_group(
    pods: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[str], set[str]]] = []
    step = SyncLoop.step

    def stepped(self: SyncLoop, *arguments: Any) -> Any:
        seen.append((group_of(self.rollout), group_of(self.trainer)))
        return step(self, *arguments)

    monkeypatch.setattr(SyncLoop, "step", stepped)

    assert attempt(tmp_path / "run") is not None
    assert seen == [({"sampler"}, {"trainer"})] * 4


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_lost_node_is_worth_another_attempt_which_goes_on(
    pods: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do = SyncLoop.step

    def stepped(self: SyncLoop, boundary: Boundary, *arguments: Any) -> Any:
        if boundary.step == 2:
            rank: Any = self.rollout
            pods["cluster"].remove_node(pods["sampler"], allow_graceful=False)
            until(lambda: ended(rank._actors.machines[0].pid))  # in the middle of a sync nothing would be whole
        return do(self, boundary, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SyncLoop, "step", stepped)
        with pytest.raises(Exception, match="lost") as error:
            attempt(tmp_path / "run")
    assert exit_code(error.value) == 75, repr(error.value)
    assert [path.name for path in checkpoints_in(tmp_path / "run")] == ["step-000002"]
    until(lambda: placement_groups() == 0)
    pods["cluster"].add_node(num_cpus=1, labels={GROUP_LABEL: "sampler"})

    assert attempt(tmp_path / "run") is not None
    assert [row["version"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")] == ["0.1", "0.2", "1.3", "1.4"]
