"""What a plan reads of objects."""

from __future__ import annotations

import pytest

from tests.twinkle_operator import raw
from twinkle_operator import strip
from twinkle_operator.observed import Observed
from twinkle_operator.verdict import verdict
from twinkle_operator.words import ATTEMPT_LABEL, HEAD_ANNOTATION, NOTE_ANNOTATION, RESTARTS_ANNOTATION, TEMPLATE


def test_a_stack_that_cannot_be_decoded_says_where() -> None:
    stack = strip.stack(raw.stack(1, spec={"run": 3}))

    assert stack.spec is None
    assert "run" in stack.spec_text or "deviceGroups" in stack.spec_text


def test_a_status_of_another_version_counts_as_none() -> None:
    stack = strip.stack(raw.stack(1, status={"attempts": "many"}))

    assert stack.status.attempts == 0
    assert stack.spec is not None


def test_a_job_is_bound_by_its_annotations() -> None:
    notes = {TEMPLATE: "t", HEAD_ANNOTATION: "h", RESTARTS_ANNOTATION: "2", NOTE_ANNOTATION: "{}"}
    metadata = {"labels": {ATTEMPT_LABEL: "3"}, "annotations": notes, "creationTimestamp": "2026-01-01T00:00:01Z"}
    text = "Job entrypoint command failed with exit code 75, last available logs: " + "x" * 20_000
    status = {"jobStatus": "FAILED", "jobDeploymentStatus": "Complete", "message": text}
    job = strip.job(raw.child("RayJob", 1, name="s-3", metadata=metadata, status=status))

    assert (job.attempt, job.head_uid, job.head_restarts, job.template, job.note) == (3, "h", 2, "t", "{}")
    assert (job.status, job.deployment, job.exit_code) == ("FAILED", "Complete", 75)
    assert len(job.message) == strip.LINE
    assert job.message.endswith("x…")
    assert job.created == 1767225601.0


@pytest.mark.parametrize("code", [1, 2, 75])
def test_of_a_jobs_message_the_last_line_is_kept_however_long_the_log_before_it_is(code: int) -> None:
    error = "twinkle-train: There is no setting 'loop.step'; did you mean loop.steps?"
    log = "Running entrypoint for job s-1-x: twinkle-train experiment=quickstart\r\n" + "100%\r" * 3000
    text = f"Job entrypoint command failed with exit code {code}, last available logs:\n{log}{error}\n \n"
    job = strip.job(raw.child("RayJob", 1, status={"jobStatus": "FAILED", "message": text}))

    ended = verdict(1, job, Observed())

    assert ended is not None
    assert ended.message == f"attempt 1 ended with exit code {code}: {error}"


def test_a_job_whose_annotations_were_taken_away_is_bound_to_nothing() -> None:
    job = strip.job(raw.child("RayJob", 1, metadata={"labels": {}}))

    assert (job.attempt, job.head_uid, job.exit_code) == (0, "", None)


def test_an_annotation_that_is_no_number_of_ours_counts_as_none() -> None:
    """Anybody may write one, and Python refuses to read 4301 digits."""
    for text in ("9" * 5000, "-1", "x", ""):
        job = strip.job(raw.child("RayJob", 1, metadata={"annotations": {RESTARTS_ANNOTATION: text}}))
        assert job.head_restarts == 0


def test_restarts_are_those_of_container_0_whatever_the_order_of_statuses() -> None:
    statuses = [{"name": "sidecar", "restartCount": 9}, {"name": "ray", "restartCount": 2}]
    pod = strip.pod(raw.pod(1, containerStatuses=statuses))

    assert pod is not None
    assert (pod.restarts, pod.group, pod.template) == (2, "head", "abc")


def test_the_group_of_a_worker_is_its_device_group() -> None:
    pod = strip.pod(raw.pod(1, node="worker"))

    assert pod is not None
    assert pod.group == "sampler"


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}
                ]
            },
            "Unschedulable: no GPU",
        ),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}, "ImagePullBackOff"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, ""),
        ({"containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled"}}}]}, "OOMKilled"),
        ({"initContainerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}, "CrashLoopBackOff"),
        ({"reason": "Evicted"}, "Evicted"),
        ({}, ""),
    ],
)
def test_why_a_pod_is_not_ready(status: dict[str, object], why: str) -> None:
    pod = strip.pod(raw.pod(1, **status))

    assert pod is not None
    assert pod.why == why


@pytest.mark.parametrize(
    ("status", "lost"),
    [
        ({"phase": "Failed", "reason": "Evicted"}, True),
        ({"phase": "Unknown"}, True),
        ({"phase": "Failed", "conditions": [
            {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}, True),
        ({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"reason": "Error"}}}]}, False),
        ({"phase": "Running"}, False),
    ],
)  # fmt: skip
def test_which_pods_were_lost(status: dict[str, object], lost: bool) -> None:
    pod = strip.pod(raw.pod(1, **status))

    assert pod is not None
    assert pod.lost is lost


def test_the_first_trouble_of_a_cluster_is_told() -> None:
    conditions = [
        {"type": "HeadPodReady", "status": "False", "reason": "HeadPodNotFound", "message": "none"},
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"},
    ]
    cluster = strip.cluster(raw.child("RayCluster", 1, status={"conditions": conditions, "state": ""}))

    assert (cluster.reason, cluster.message) == ("FailedCreate", "quota")


def test_exit_codes_are_read_and_nothing_is_taken_for_one() -> None:
    assert strip.exit_code("Job entrypoint command failed with exit code 1, last available logs") == 1
    assert strip.exit_code("exit code: 75") == 75
    assert strip.exit_code("Job entrypoint command failed with exit code -9. No logs available.") == 137
    assert strip.exit_code("Job entrypoint command failed with exit code -15, last available logs") == 143
    assert strip.exit_code("exit code 12345") is None
    assert strip.exit_code("") is None
