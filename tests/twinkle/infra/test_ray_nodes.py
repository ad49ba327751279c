"""Device groups on a Ray of nodes of several sizes, with GPUs that only Ray's schedule knows."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import twinkle
from tests.conftest import begin_ray
from tests.twinkle.infra.ray_classes import Ranks, Replicas
from twinkle import DeviceGroup, DeviceMesh
from twinkle.errors import TRY_AGAIN, ConfigError, InfraError, RanksMissingError
from twinkle.infra import cluster


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A Ray of a head without and three nodes with 3, 1 and 2 GPUs, the last of another pool; see `three_nodes`."""
    import ray
    from ray.cluster_utils import Cluster

    paused = ray.is_initialized()
    ray.shutdown()
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as at,
    ):
        patch.setenv("RAY_TMPDIR", at)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        for gpus, pool in ((3, "a"), (1, "a"), (2, "b")):
            cluster.add_node(num_cpus=3, num_gpus=gpus, labels={"pool": pool}, wait=False)
        cluster.wait_for_nodes()
        begin_ray(cluster.address)
        yield cluster
        twinkle.initialize("local")
        ray.shutdown()
        cluster.shutdown()
    if paused:
        begin_ray()


def pools() -> dict[str, str]:
    """The pool of each node."""
    import ray

    return {node["NodeID"]: node["Labels"].get("pool", "") for node in ray.nodes()}


def nodes_of(handle: Any) -> list[str]:
    """The node of each rank."""
    return [machine.node_id for machine in handle._actors.machines]


def test_a_replica_has_its_devices_on_one_node(nodes: Any) -> None:
    twinkle.initialize("ray", [DeviceGroup("sampler", 4, "cuda", cpus_per_rank=1)])
    mesh = DeviceMesh.from_sizes(dp_size=2, tp_size=2)
    with Replicas(device_mesh=mesh, remote_group="sampler") as handle:
        found = handle.whoami()

        assert [each["ranks"] for each in found] == [[0, 1], [2, 3]]
        assert [len(set(each["devices"])) for each in found] == [2, 2]
        assert found[0]["node"] != found[1]["node"]
        assert [each["environ"]["CUDA_VISIBLE_DEVICES"] for each in found] == [",".join(e["devices"]) for e in found]
        assert handle.double(list(range(7))) == [0, 2, 4, 6, 8, 10, 12]


def test_replicas_that_fit_no_node_are_told_with_what_is_free(nodes: Any) -> None:
    twinkle.initialize("ray", [DeviceGroup("sampler", 6, "cuda")], timeout_s=5)
    with pytest.raises(
        ConfigError,
        match=r"'sampler' asks for 6 ranks as 3 x {GPU: 2}; the Ray cluster could not give that within 5 s; free: node "
        r".*{CPU: 3 of 3, GPU: 3 of 3} with labels {pool: a}",
    ):
        Replicas(device_mesh=DeviceMesh.from_sizes(dp_size=3, tp_size=2), remote_group="sampler")


def test_ranks_of_one_model_are_neighbours_where_there_is_room(nodes: Any) -> None:
    twinkle.initialize("ray", [DeviceGroup("trainer", 6, "cuda")])
    mesh = DeviceMesh.from_sizes(dp_size=3, tp_size=2)
    with Ranks(device_mesh=mesh, remote_group="trainer") as handle:
        where = nodes_of(handle)

    assert sorted(Counter(where).values()) == [1, 2, 3]
    assert [where[first] == where[first + 1] for first in (0, 2, 4)] == [True, True, False]


def test_labels_choose_the_nodes(nodes: Any) -> None:
    twinkle.initialize("ray", [DeviceGroup("reward", 2, "cuda", label_selector={"pool": "b"})])
    with Ranks(remote_group="reward") as handle:
        assert [pools()[each["node"]] for each in handle.whoami()] == ["b", "b"]
    with pytest.raises(ConfigError, match=r"as 1 x {GPU: 1} on nodes with {pool: c}.*with labels {pool: b}"):
        twinkle.initialize("ray", [DeviceGroup("reward", 1, "cuda", label_selector={"pool": "c"})], timeout_s=0.5)


def test_ranks_per_node_spreads_a_group_evenly(nodes: Any) -> None:
    twinkle.initialize("ray", [DeviceGroup("trainer", 3, "cuda", ranks_per_node=1)])
    with Ranks(remote_group="trainer") as handle:
        where = nodes_of(handle)

    assert len(set(where)) == 3


def test_a_connection_that_ended_is_told(nodes: Any) -> None:
    import ray

    twinkle.initialize("ray", [DeviceGroup("sampler", 1, "cuda")])
    handle = Ranks(remote_group="sampler")
    ray.shutdown()
    with pytest.raises(ConfigError, match=r"the connection to Ray that twinkle\.initialize\('ray'\) made has ended"):
        Ranks(remote_group="sampler")
    begin_ray(nodes.address)
    with pytest.raises(InfraError, match="Ranks in group 'sampler' was reached by a connection to Ray that has ended"):
        handle.double([1])
    handle.close()
    twinkle.initialize("ray", [DeviceGroup("sampler", 1, "cuda")])
    with Ranks(remote_group="sampler") as again:
        assert again.double([1]) == [2]


def test_ranks_of_a_node_that_comes_later_are_waited_for_and_told(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    group = DeviceGroup("late", 1, "cpu", label_selector={"pool": "late"})
    with pytest.raises(RanksMissingError, match=r"'late' asks for 1 ranks .* within 0\.2 s; free: node .*pool: a"):
        twinkle.initialize("ray", [group], timeout_s=0.2)
    assert RanksMissingError.exit_code == TRY_AGAIN
    joined: list[Any] = []

    def join(message: str, *arguments: Any) -> None:
        """Once somebody was told that the rank is missing, its node comes."""
        assert "device group 'late' asks for 1 ranks" in message % arguments
        if not joined:
            joined.append(nodes.add_node(num_cpus=1, labels={"pool": "late"}))

    monkeypatch.setattr(cluster, "SAY_S", 0.2)
    monkeypatch.setattr(cluster.log, "warning", join)
    twinkle.initialize("ray", [group], timeout_s=60)

    with Ranks(remote_group="late") as handle:
        assert pools()[handle.whoami()[0]["node"]] == "late"
    nodes.remove_node(joined[0])
