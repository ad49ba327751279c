"""What is left when a driver is killed: nothing."""

import os
import pickle
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.twinkle.infra.ray_classes import ended, placement_groups, until
from twinkle.errors import RankLostError

START_S = 60


@pytest.fixture
def driver(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, list[int]]]:
    """A driver of the session's Ray (parameter "attached") or of one that it starts ("its own"), and its actors."""
    address = ""
    if request.param == "attached":
        address = request.getfixturevalue("ray_cluster").get_runtime_context().gcs_address
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.twinkle.infra.driver", address, str(tmp_path / "handles")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_S)
    line = process.stdout.readline() if readable else b""
    try:
        assert line, f"the driver said nothing: {process.poll()}"
        yield process, [int(word) for word in line.split()]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("driver", ["attached"], indirect=True)
def test_a_killed_driver_takes_its_actors_and_placement_groups_along(
    driver: tuple[Any, list[int]], tmp_path: Path
) -> None:
    process, pids = driver
    ranks, replicas = pickle.loads((tmp_path / "handles").read_bytes())
    assert ranks.double([1, 2]) == replicas.double([1, 2]) == [2, 4]  # in another process of the cluster
    assert len(pids) == 3
    process.kill()

    until(lambda: all(map(ended, pids)))
    until(lambda: placement_groups() == 0)
    with pytest.raises(RankLostError, match=r"rank \d of Ranks in group 'ranks' was lost.* its owner has died"):
        ranks.double([1])


@pytest.mark.parametrize("driver", ["its own"], indirect=True)
def test_a_killed_driver_takes_the_ray_that_it_started_along(driver: tuple[Any, list[int]]) -> None:
    process, pids = driver
    raylet = int(Path(f"/proc/{pids[0]}/stat").read_text().rsplit(")", 1)[1].split()[1])
    process.kill()

    until(lambda: all(map(ended, [*pids, raylet])))
