"""Fixtures that more than one folder of tests uses."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """One Ray of our own for the session, whichever else runs on the machine, without a dashboard."""
    import ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's start-up warns about its own future
        ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield ray
    ray.shutdown()
