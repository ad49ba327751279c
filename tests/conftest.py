"""Fixtures that more than one folder of tests uses."""

import signal
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("untimed")

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # by a shell that runs the tests with "&": programs would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def begin_ray(address: str = "local") -> Any:
    """Connect this process to the Ray of that address, or to a new one on this machine, without a dashboard."""
    import ray

    new = {"num_cpus": 2, "include_dashboard": False} if address == "local" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's start-up warns about its own future
        ray.init(address=address, logging_level="ERROR", log_to_driver=False, **new)
    return ray


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """One local Ray for the session."""
    ray = begin_ray()
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Any]:
    """A Ray of three nodes on this machine, for one module; the local one, if there is one, pauses meanwhile.

    It lies in a folder of its own: Ray leaves the address of a cluster where everybody's `ray.init()` would find it.
    """
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
        for _ in range(2):
            cluster.add_node(num_cpus=1, wait=False)
        cluster.wait_for_nodes()
        begin_ray(cluster.address)
        yield cluster
        ray.shutdown()
        cluster.shutdown()
    if paused:
        begin_ray()
