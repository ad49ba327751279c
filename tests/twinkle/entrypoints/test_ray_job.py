"""A run as a job of a Ray cluster: `ray job stop` reaches it through the job's shell, and the next one goes on."""

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from twinkle.loop.records import read_rows
from twinkle.loop.run_folder import checkpoints_in, read_json

pytestmark = pytest.mark.slow
STOP_S = 25
"""As the operator sets it on the head."""


@pytest.fixture
def jobs() -> Iterator[Any]:
    """A client of the jobs of a Ray with a dashboard."""
    import ray
    from ray.job_submission import JobSubmissionClient

    ray.shutdown()
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as at,
    ):
        patch.setenv("RAY_TMPDIR", at)
        patch.setenv("RAY_JOB_STOP_WAIT_TIME_S", str(STOP_S))
        context = ray.init(num_cpus=2, include_dashboard=True, dashboard_port=0, log_to_driver=False)
        yield JobSubmissionClient(f"http://{context.address_info['webui_url']}")
        ray.shutdown()


def until(holds: Callable[[], bool], what: Callable[[], str], within_s: float = 100) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.timeout(400)
def test_a_stopped_job_has_saved_its_last_whole_step_and_the_next_goes_on(jobs: Any, tmp_path: Path) -> None:
    run, root = tmp_path / "run", Path(__file__).parents[3]
    program = [sys.executable, "-c", "from twinkle.entrypoints.train import main; main()", "infra=ray"]
    command = [*program, f"run.folder={run}", "run.resume=auto", "data.held_out_prompts=4", "loop.checkpoint_every=0"]

    def submit(steps: int) -> str:
        """Behind a `cd`, so that the shell stays and gets the signal, too."""
        text = f"cd {shlex.quote(str(tmp_path))} && {shlex.join([*command, f'loop.steps={steps}'])} && true"
        paths = os.pathsep.join([str(root), str(root / "operator")])
        return str(jobs.submit_job(entrypoint=text, runtime_env={"env_vars": {"PYTHONPATH": paths}}))

    def done() -> int:
        return len(read_rows(run / "metrics.jsonl"))

    first = submit(100000)
    until(lambda: done() >= 5, lambda: str(jobs.get_job_logs(first)))
    asked = time.monotonic()
    jobs.stop_job(first)
    until(lambda: str(jobs.get_job_status(first)) == "STOPPED", lambda: str(jobs.get_job_logs(first)))

    assert time.monotonic() - asked < STOP_S
    steps = done()
    assert [path.name for path in checkpoints_in(run)] == [f"step-{steps:06d}"]
    assert "Stopped by SIGTERM" in jobs.get_job_logs(first)

    second = submit(steps + 2)
    until(lambda: str(jobs.get_job_status(second)) in ("SUCCEEDED", "FAILED"), lambda: str(jobs.get_job_logs(second)))
    assert str(jobs.get_job_status(second)) == "SUCCEEDED", jobs.get_job_logs(second)
    assert (read_json(run / "run.json")["lineage"], done()) == (1, steps + 2)
