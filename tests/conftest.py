"""Fixtures that more than one folder of tests uses."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

QUIET = {"logging_level": "ERROR", "log_to_driver": False}


def begin_ray(**arguments: Any) -> Any:
    """Connect this process to a Ray: a new local one without a dashboard, or that of an `address`."""
    import ray

    begins = arguments.get("address", "local") == "local"
    local = {"num_cpus": 2, "include_dashboard": False} if begins else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's start-up warns about its own future
        ray.init(**local, **QUIET, **arguments)
    return ray


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """One Ray of our own for the session, whichever else runs on the machine."""
    ray = begin_ray(address="local")
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Any]:
    """A Ray of three nodes on this machine, for one module; the local one, if there is one, pauses meanwhile."""
    import ray
    from ray.cluster_utils import Cluster

    paused = ray.is_initialized()
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1, wait=False)
    cluster.wait_for_nodes()
    begin_ray(address=cluster.address)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    if paused:
        begin_ray()
