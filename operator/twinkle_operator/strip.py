"""Objects of the API server cut down to what a plan reads: a stack, a RayCluster, a RayJob, a pod, a warning."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from twinkle_operator import clock
from twinkle_operator.observed import Cluster, Job, Pod, Stack
from twinkle_operator.resources import Manifest
from twinkle_operator.spec import Spec
from twinkle_operator.state import Status
from twinkle_operator.text import last_line
from twinkle_operator.words import (
    ATTEMPT_LABEL,
    GROUP_LABEL,
    HEAD,
    HEAD_ANNOTATION,
    NOTE_ANNOTATION,
    RESTARTS_ANNOTATION,
    TEMPLATE,
)

TEXT = 1024
"""Characters of a message of others that are kept."""
LINE = 256
"""Of a RayJob's message, which ends with the tail of the driver's log: its last line, the error."""
WORD = 128
"""Characters of a reason."""
MOST_DIGITS = 9

LOST = frozenset({"Evicted", "Preempting", "Preempted", "NodeLost", "NodeShutdown", "Terminated", "Shutdown"})
"""Reasons of a failed pod that are not its program's."""
LOST_REASONS = frozenset({"PreemptionByScheduler", "DeletionByTaintManager", "EvictionByEvictionAPI",
                          "DeletionByPodGC", "TerminationByKubelet"})  # fmt: skip
"""Reasons of the condition DisruptionTarget."""


class Warned(NamedTuple):
    """A warning event: about whom, when (seconds), why, and in which words."""

    kind: str
    name: str
    uid: str
    at: float
    reason: str
    message: str


def stack(raw: Manifest) -> Stack:
    """A TrainingStack; one whose spec or status cannot be decoded says so in `spec_text` or starts with no status."""
    metadata = raw["metadata"]
    spec, why = _spec(raw.get("spec"))
    return Stack(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata.get("resourceVersion", ""),
        labels=metadata.get("labels") or {},
        created=seconds(metadata.get("creationTimestamp")),
        deleting="deletionTimestamp" in metadata,
        spec=spec,
        spec_text=why,
        status=_status(raw.get("status")),
    )


def cluster(raw: Manifest) -> Cluster:
    """A RayCluster."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    failed, head = _condition(status, "ReplicaFailure"), _condition(status, "HeadPodReady")
    trouble = failed if failed.get("status") == "True" else head if head.get("status") == "False" else {}
    return Cluster(
        uid=metadata["uid"],
        template=(metadata.get("annotations") or {}).get(TEMPLATE, ""),
        state=status.get("state") or "",
        reason=(trouble.get("reason") or "")[:WORD],
        message=(trouble.get("message") or "")[:TEXT],
        deleting="deletionTimestamp" in metadata,
    )


def job(raw: Manifest) -> Job:
    """A RayJob; one whose annotations were taken away is bound to no head."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    labels, notes = metadata.get("labels") or {}, metadata.get("annotations") or {}
    message = status.get("message") or ""
    return Job(
        name=metadata["name"],
        uid=metadata["uid"],
        attempt=_number(labels.get(ATTEMPT_LABEL)),
        head_uid=notes.get(HEAD_ANNOTATION, ""),
        head_restarts=_number(notes.get(RESTARTS_ANNOTATION)),
        template=notes.get(TEMPLATE, ""),
        note=notes.get(NOTE_ANNOTATION, ""),
        status=status.get("jobStatus") or "",
        deployment=status.get("jobDeploymentStatus") or "",
        message=last_line(message, LINE),
        exit_code=exit_code(message),
        deleting="deletionTimestamp" in metadata,
        created=seconds(metadata.get("creationTimestamp")),
    )


def owner(raw: Manifest) -> tuple[str, str]:
    """Kind and uid of what controls an object; empty if nothing does."""
    for reference in raw["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return reference.get("kind", ""), reference.get("uid", "")
    return "", ""


def pod(raw: Manifest) -> Pod | None:
    """A pod of a RayCluster; None for others, such as the one that submits a job."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    labels = metadata.get("labels") or {}
    node_type = labels.get("ray.io/node-type")
    if node_type not in (HEAD, "worker"):
        return None
    containers = status.get("containerStatuses") or []
    first = raw.get("spec", {}).get("containers", [{}])[0].get("name")
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        group=HEAD if node_type == HEAD else labels.get(GROUP_LABEL) or labels.get("ray.io/group", ""),
        template=labels.get(TEMPLATE, ""),
        ready=_condition(status, "Ready").get("status") == "True",
        deleting="deletionTimestamp" in metadata,
        restarts=next((each.get("restartCount", 0) for each in containers if each.get("name") == first), 0),
        why=_why(status, containers)[:TEXT],
        lost=_lost(status),
    )


def warned(raw: Manifest) -> Warned:
    """A warning event of core/v1."""
    about = raw.get("involvedObject") or {}
    at = raw.get("lastTimestamp") or raw.get("eventTime") or raw["metadata"].get("creationTimestamp")
    return Warned(
        kind=about.get("kind", ""),
        name=about.get("name", ""),
        uid=about.get("uid", ""),
        at=seconds(at),
        reason=(raw.get("reason") or "")[:WORD],
        message=(raw.get("message") or "")[:TEXT],
    )


def seconds(text: str | None) -> float:
    """Of a time of Kubernetes, since 1970; 0 for none."""
    return clock.seconds(text) or 0.0


def exit_code(message: str) -> int | None:
    """Of the driver, from Ray's sentence about a job that failed; 128 and the signal if one ended it, as shells say.

    Ray starts the entrypoint by /bin/sh and tells Python's return code: -9 where that shell replaces itself by its one
    command (bash, newer dash), 137 where it waits for it.
    """
    found = re.search(r"exit code:? (-?\d{1,3})\b", message)
    code = int(found[1]) if found else None
    return code if code is None or code >= 0 else 128 - code


def _number(text: str | None) -> int:
    """Anybody may write an annotation: one that is no number of ours counts as 0."""
    return int(text) if text and text.isdecimal() and len(text) <= MOST_DIGITS else 0


def _spec(raw: Any) -> tuple[Spec | None, str]:
    try:
        return msgspec.convert(raw, Spec), ""
    except msgspec.ValidationError as error:
        return None, str(error)


def _status(raw: Any) -> Status:
    try:
        return msgspec.convert(raw or {}, Status)
    except msgspec.ValidationError:
        return Status()  # of another version of the operator: written anew


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((each for each in status.get("conditions") or () if each.get("type") == kind), {})


def _why(status: dict[str, Any], containers: list[dict[str, Any]]) -> str:
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason', 'Unschedulable')}: {scheduled.get('message', '')}".rstrip(": ")
    for each in [*(status.get("initContainerStatuses") or []), *containers]:
        state = each.get("state") or {}
        found = state.get("waiting") or state.get("terminated")
        if found and found.get("reason") not in (None, "Completed", "PodInitializing", "ContainerCreating"):
            return f"{found['reason']}: {found.get('message', '')}".rstrip(": ")
    return str(status.get("reason") or "")


def _lost(status: dict[str, Any]) -> bool:
    disrupted = _condition(status, "DisruptionTarget")
    return (
        status.get("reason") in LOST
        or status.get("phase") == "Unknown"
        or (disrupted.get("status") == "True" and disrupted.get("reason") in LOST_REASONS)
    )
