"""How an attempt ended, told from its RayJob, the head pod and the RayCluster."""

from __future__ import annotations

from typing import Literal

import msgspec

from twinkle_operator.observed import Job, Observed, Pod
from twinkle_operator.words import HEAD

ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
INVALID_RUN, LOST_WORKER, TERMINATED = 2, 75, 143
"""Exit codes of `twinkle-train`: bad input, a lost process or machine, SIGTERM."""
KILLED = 137
"""SIGKILL: others', no word of the program's."""
NO_WORDS = "no reason given"


class Ended(msgspec.Struct, frozen=True):
    """`failure` counts against run.backoffLimit, `restart` does not; after the others none begins again."""

    kind: Literal["complete", "invalid", "deadline", "failure", "restart"]
    reason: str
    message: str


def verdict(attempt: int, job: Job | None, observed: Observed) -> Ended | None:
    """How the attempt ended; None while it goes on.

    What Ray says of the entrypoint counts before what became of the head since: that it ended well, or with which code.
    One that was killed may have been so with its head.
    """
    if job is None:
        return Ended("restart", "RayJobLost", f"the RayJob of attempt {attempt} is gone")
    if job.status == "SUCCEEDED":
        return Ended("complete", "Completed", f"attempt {attempt} has trained to its end")
    if job.status == "FAILED" and job.exit_code not in (None, KILLED):
        return _by_code(attempt, job)
    if (lost := _lost(attempt, job, observed)) is not None:
        return lost
    if job.status == "FAILED":
        return _by_code(attempt, job)
    if job.status == "STOPPED":
        return Ended("restart", "Stopped", f"attempt {attempt} was stopped through Ray")
    if job.deployment in ("Failed", "ValidationFailed"):
        return Ended("restart", "SubmissionFailed", f"attempt {attempt} was not followed: {job.message or NO_WORDS}")
    if job.deleting:
        return Ended("restart", "RayJobLost", f"the RayJob of attempt {attempt} was deleted")
    return None


def is_over(job: Job) -> bool:
    """Its driver ended by itself: nothing of it runs."""
    return job.status in ENDED


def head_of(pods: tuple[Pod, ...]) -> Pod | None:
    """The head pod; of several the one that stays."""
    heads = sorted((pod for pod in pods if pod.group == HEAD), key=lambda pod: (pod.deleting, pod.lost, pod.uid))
    return heads[0] if heads else None


def _by_code(attempt: int, job: Job) -> Ended:
    code = job.exit_code
    how = "failed" if code is None else f"ended with exit code {code}"
    said = f"attempt {attempt} {how}: {job.message or NO_WORDS}"
    if code == INVALID_RUN:
        return Ended("invalid", "InvalidRun", said)
    if code == LOST_WORKER:
        return Ended("restart", "WorkerLost", said)
    if code == TERMINATED:
        return Ended("restart", "Stopped", said)
    return Ended("failure", "EntrypointFailed", said)


def _lost(attempt: int, job: Job, observed: Observed) -> Ended | None:
    if observed.cluster is None or observed.cluster.deleting:
        return Ended("restart", "ClusterLost", f"the RayCluster of attempt {attempt} is gone")
    bound = next((pod for pod in observed.pods if pod.group == HEAD and pod.uid == job.head_uid), None)
    if bound is None:
        return Ended("restart", "HeadLost", f"the head pod of attempt {attempt} is gone")
    if bound.lost:
        return Ended("restart", "HeadEvicted", f"the head pod of attempt {attempt} was taken: {bound.why or 'evicted'}")
    if bound.restarts != job.head_restarts:
        return Ended("restart", "HeadRestarted", f"the head's container of attempt {attempt} was started again")
    return None
