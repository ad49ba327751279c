"""Hypothesis strategies for everything that a plan reads, as odd as types allow."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from twinkle_operator.observed import Cluster, Job, Observed, Pod, Poll, Refusal, Stack
from twinkle_operator.spec import Spec
from twinkle_operator.state import Condition, Progress, Queue, Status

WORDS = st.sampled_from(
    ["", "a", "Evicted", "InvalidPodTemplate", "Unschedulable: 0/3 nodes", "ImagePullBackOff", "x y"]
)
TIMES = st.sampled_from([None, "", "no time", "1970-01-01T00:00:00Z", "2026-11-26T00:00:00Z", "9999-12-31T23:59:59Z"])
STEPS = st.none() | st.integers(-1, 10**9)
COUNTS = st.integers(0, 5)
ANSWERS = st.sampled_from(["True", "False", "Unknown"])
TYPES = ("Ready", "ClusterReady", "SamplersReady", "QueueReady", "Durable", "Suspended", "Complete", "Failed")

CONDITIONS = st.builds(
    Condition, type=st.sampled_from(TYPES), status=ANSWERS, observed_generation=COUNTS, reason=WORDS, message=WORDS,
    last_transition_time=TIMES.map(lambda text: text or ""),
)  # fmt: skip
PROGRESS = st.builds(Progress, step=STEPS, reward=st.none() | WORDS, version=st.none() | WORDS, checkpoint_step=STEPS)
STATUSES = st.just(Status()) | st.builds(
    Status, conditions=st.lists(CONDITIONS, max_size=8, unique_by=lambda each: each.type),
    progress=st.none() | PROGRESS, attempts=COUNTS, ended=COUNTS, failures=COUNTS, restarts=COUNTS, fruitless=COUNTS,
    checkpoint_at_restart=STEPS, active_since=TIMES, active_seconds=COUNTS, stopping_since=TIMES,
    ray_job=st.none() | WORDS,
)  # fmt: skip
CLUSTERS = st.builds(
    Cluster, uid=WORDS, template=WORDS, state=st.sampled_from(["", "ready", "suspended"]), reason=WORDS, message=WORDS,
    deleting=st.booleans(),
)  # fmt: skip
PODS = st.builds(
    Pod, name=WORDS, uid=WORDS, group=st.sampled_from(["head", "sampler", "trainer", ""]), template=WORDS,
    ready=st.booleans(), deleting=st.booleans(), restarts=COUNTS, why=WORDS, lost=st.booleans(),
)  # fmt: skip
JOBS = st.builds(
    Job, name=WORDS, uid=WORDS, attempt=st.integers(0, 6), head_uid=WORDS, head_restarts=COUNTS, template=WORDS,
    note=st.sampled_from(["", "{}", '{"failures": 3}', '{"failures": "x"}', "[", '{"checkpoint": null}']),
    status=st.sampled_from(["", "PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED", "new word"]),
    deployment=st.sampled_from(["", "Initializing", "Running", "Complete", "Failed", "ValidationFailed"]),
    message=WORDS, exit_code=st.sampled_from([None, 0, 1, 2, 75, 143, 137]), deleting=st.booleans(),
)  # fmt: skip
POLLS = st.builds(
    Poll, at=st.floats(0, 2e9), queue=st.none() | st.builds(Queue, summary=WORDS), progress=st.none() | PROGRESS,
    is_ready=st.booleans(), reason=WORDS, text=WORDS, why=st.sampled_from(["", "Refused", "Timeout"]), message=WORDS,
)  # fmt: skip
REFUSALS = st.builds(
    Refusal, kind=st.sampled_from(["RayCluster", "RayJob", "NetworkPolicy"]), name=WORDS, generation=COUNTS,
    reason=WORDS, message=WORDS,
)  # fmt: skip
OBSERVED = st.builds(
    Observed, cluster=st.none() | CLUSTERS, pods=st.lists(PODS, max_size=6).map(tuple),
    jobs=st.lists(JOBS, max_size=3).map(tuple), poll=st.none() | POLLS,
    refusals=st.lists(REFUSALS, max_size=2).map(tuple),
    warnings=st.lists(st.tuples(WORDS, WORDS), max_size=2).map(tuple), missing=st.sampled_from(["", "", "", "no CRD"]),
)  # fmt: skip
CLOCKS = st.floats(allow_nan=True, allow_infinity=True) | st.floats(1.7e9, 1.9e9)


def read(stack: dict[str, Any], status: Status | None = None) -> Stack:
    """A stack of tests/kube/specs.py as the operator reads it."""
    metadata = stack["metadata"]
    return Stack(
        name=metadata["name"], namespace="team", uid="5e0b7f0e-1111-2222-3333-444444444444", generation=1,
        labels=metadata.get("labels", {}), spec=msgspec.convert(stack["spec"], Spec), status=status or Status(),
    )  # fmt: skip
