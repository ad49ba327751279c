"""A run as a job of a Ray cluster: `ray job stop` reaches it through the job's shell, and the next one goes on."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.twinkle.infra.ray_classes import placement_groups
from tests.twinkle.infra.ray_classes import until as soon
from twinkle.loop.records import read_rows
from twinkle.loop.run_folder import checkpoints_in, read_json

STOP_S = 25
"""As the operator sets it on the head."""
ROOT = Path(__file__).parents[3]
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "operator")])
ENVIRONMENT = {"env_vars": {"PYTHONPATH": PATHS}}
AGENT_S = 120.0


def entrypoint(folder: Path, steps: int) -> str:
    """Behind a `cd`, so that the shell stays and gets the signal, too."""
    program = [sys.executable, "-c", "from twinkle.entrypoints.train import main; main()", "infra=ray"]
    settings = [f"run.folder={folder / 'run'}", "run.resume=auto", f"loop.steps={steps}"]
    short = ["data.held_out_prompts=4", "loop.checkpoint_every=0", "infra.trainer.cpus_per_rank=0"]
    return f"cd {shlex.quote(str(folder))} && {shlex.join([*program, *settings, *short])} && true"


def done(folder: Path) -> int:
    """Steps."""
    return len(read_rows(folder / "run" / "metrics.jsonl"))


def saved(folder: Path) -> list[str]:
    """Checkpoints."""
    return [path.name for path in checkpoints_in(folder / "run")]


def until(holds: Callable[[], bool], what: Callable[[], str] = str, within_s: float = 300) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


@pytest.mark.timeout(400)
def test_sigterm_to_the_shell_and_all_below_it_saves_the_last_whole_step(ray_cluster: Any, tmp_path: Path) -> None:
    """What Ray's JobSupervisor does, which asks for the dashboard that this cluster has not."""
    address = ray_cluster.get_runtime_context().gcs_address
    shell = subprocess.Popen(
        entrypoint(tmp_path, 100000), shell=True, start_new_session=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": PATHS, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    family = [psutil.Process(shell.pid)]
    try:
        until(lambda: done(tmp_path) >= 3 or shell.poll() is not None)
        family += family[0].children(recursive=True)
        assert len(family) >= 2, "no shell in between"
        for each in family:
            each.send_signal(signal.SIGTERM)
        psutil.wait_procs(family, timeout=STOP_S)
        shell.wait(0)
    finally:
        for each in family:
            if each.is_running():
                each.kill()
        assert shell.stdout is not None
        text = shell.stdout.read()
        shell.stdout.close()
        shell.wait()

    assert "Stopped by SIGTERM" in text, text
    assert saved(tmp_path) == [f"step-{done(tmp_path):06d}"]
    soon(lambda: placement_groups() == 0)


@pytest.fixture
def jobs() -> Iterator[Any]:
    """A client of the jobs of a Ray with a dashboard.

    Each of its ports is a free one: Ray's agents want 52365 unless told otherwise, and one that finds it taken, by
    another Ray of this machine, lives on without taking jobs.
    """
    from ray.cluster_utils import Cluster
    from ray.job_submission import JobSubmissionClient

    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as at,
    ):
        patch.setenv("RAY_TMPDIR", at)
        patch.setenv("RAY_JOB_STOP_WAIT_TIME_S", str(STOP_S))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ports = {"dashboard_port": port, "dashboard_agent_listen_port": 0}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": True, **ports})
        yield JobSubmissionClient(f"http://{cluster.webui_url}")
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.timeout(900)
def test_a_stopped_job_has_saved_its_last_whole_step_and_the_next_goes_on(jobs: Any, tmp_path: Path) -> None:
    def submit(steps: int) -> str:
        """Ray takes no job before the agent of a node has told the dashboard that it is there."""
        end = time.monotonic() + AGENT_S
        while True:
            try:
                return str(jobs.submit_job(entrypoint=entrypoint(tmp_path, steps), runtime_env=ENVIRONMENT))
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(1)

    first = submit(100000)
    until(lambda: done(tmp_path) >= 5, lambda: str(jobs.get_job_logs(first)))
    asked = time.monotonic()
    jobs.stop_job(first)
    until(lambda: str(jobs.get_job_status(first)) == "STOPPED", lambda: str(jobs.get_job_logs(first)))

    assert time.monotonic() - asked < STOP_S
    steps = done(tmp_path)
    assert saved(tmp_path) == [f"step-{steps:06d}"]
    assert "Stopped by SIGTERM" in jobs.get_job_logs(first)

    second = submit(steps + 2)
    until(lambda: str(jobs.get_job_status(second)) in ("SUCCEEDED", "FAILED"), lambda: str(jobs.get_job_logs(second)))
    assert str(jobs.get_job_status(second)) == "SUCCEEDED", jobs.get_job_logs(second)
    assert (read_json(tmp_path / "run" / "run.json")["lineage"], done(tmp_path)) == (1, steps + 2)
