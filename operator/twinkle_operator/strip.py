"""Objects of the API server cut down to what a plan reads: a stack, a pod, a job, a child, a warning."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from twinkle_operator.observed import Pod, Stack
from twinkle_operator.resources import Manifest
from twinkle_operator.spec import Spec
from twinkle_operator.state import Status
from twinkle_operator.words import GROUP_LABEL, KIND

HEAD = "head"
TEXT = 1024
"""Characters of a message of others that are kept."""

LOST = frozenset({"Evicted", "Preempting", "Preempted", "NodeLost", "NodeShutdown", "Terminated", "Shutdown"})
"""Reasons of a failed pod that are not its program's."""
LOST_REASONS = frozenset({"PreemptionByScheduler", "DeletionByTaintManager", "EvictionByEvictionAPI",
                          "DeletionByPodGC", "TerminationByKubelet"})  # fmt: skip
"""Reasons of the condition DisruptionTarget."""

KEPT = ("name", "namespace", "uid", "labels", "annotations", "generation", "creationTimestamp", "deletionTimestamp")


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


def child(raw: Manifest) -> Manifest:
    """A child without what the API server keeps for itself."""
    metadata = {name: raw["metadata"][name] for name in KEPT if name in raw["metadata"]}
    rest = {name: raw[name] for name in ("apiVersion", "kind", "spec", "status") if name in raw}
    return {**rest, "metadata": metadata}


def owner(raw: Manifest) -> tuple[str, str]:
    """Name and uid of the TrainingStack that controls an object; empty if none does."""
    for reference in raw["metadata"].get("ownerReferences") or ():
        if reference.get("kind") == KIND and reference.get("controller"):
            return reference.get("name", ""), reference.get("uid", "")
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
        reason=(raw.get("reason") or "")[:128],
        message=(raw.get("message") or "")[:TEXT],
    )


def seconds(text: str | None) -> float:
    """Of a time of Kubernetes, since 1970; 0 for none."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else 0.0


def exit_code(message: str) -> int | None:
    """Of the driver, from Ray's sentence about a job that failed."""
    found = re.search(r"exit code:? (\d{1,3})\b", message)
    return int(found[1]) if found else None


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
