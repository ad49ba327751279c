"""The pods of a stack, group by group: how many are wanted, how many are ready, and what keeps the others."""

from __future__ import annotations

import re

import msgspec

from twinkle_operator.observed import Cluster, Observed, Pod
from twinkle_operator.overrides import pods as wanted_pods
from twinkle_operator.spec import Spec
from twinkle_operator.state import GroupState
from twinkle_operator.verdict import head_of
from twinkle_operator.words import HEAD

_MAKING = re.compile(r"FailedToCreate\w*Pod")
_REFUSED = re.compile(r"\bis invalid: (.+)", re.DOTALL)
"""KubeRay's event of a pod that the API server refuses for what is in it, and what that is."""


class Said(msgspec.Struct, frozen=True):
    """A condition's reason (one word) and message (one sentence)."""

    reason: str
    message: str


def template_of(observed: Observed) -> str:
    """What the live cluster was made from: its annotation, or, where somebody took that away, what its head says."""
    if observed.cluster is None:
        return ""
    head = head_of(observed.pods)
    return observed.cluster.template or (head.template if head else "")


def living(observed: Observed, group: str) -> list[Pod]:
    """Pods of a group that are not about to go: not being deleted, not lost, made from the live cluster's template."""
    template = template_of(observed)
    return [
        pod
        for pod in observed.pods
        if pod.group == group and pod.template == template and not (pod.deleting or pod.lost)
    ]


def states(spec: Spec, observed: Observed) -> list[GroupState]:
    """Of every device group, in the order of the spec."""
    cluster = observed.cluster is not None and not observed.cluster.deleting
    return [
        GroupState(
            name=group.name,
            desired=wanted_pods(group),
            ready=sum(pod.ready for pod in living(observed, group.name)) if cluster else 0,
        )
        for group in spec.device_groups
    ]


def ready_head(observed: Observed) -> Pod | None:
    """The head pod to which an attempt may be bound."""
    heads = [pod for pod in living(observed, HEAD) if pod.ready]
    return heads[0] if len(heads) == 1 else None


def unready(spec: Spec, observed: Observed, cluster: Cluster) -> Said | None:
    """What the cluster waits for; None when its head and all its groups are ready."""
    if cluster.state == "suspended":
        return Said("Queued", "the cluster is held back: Kueue has not admitted it yet, or took its place away")
    if ready_head(observed) is None:
        return _why(observed, HEAD, 0, 1, cluster)
    for state in states(spec, observed):
        if state.ready < state.desired:
            return _why(observed, state.name, state.ready, state.desired, cluster)
    return None


def _why(observed: Observed, group: str, ready: int, desired: int, cluster: Cluster) -> Said:
    """The first of: KubeRay made too few pods and says why, a pod that says why, nothing known."""
    what = f"{ready} of {desired} pods of {group} ready"
    there = living(observed, group)
    if len(there) < desired and observed.warnings:
        reason, message = observed.warnings[0]
        if (refused := _REFUSED.search(message)) and _MAKING.fullmatch(reason):
            return Said("InvalidPodTemplate", f"podTemplate of {group}: {refused[1]}")
        return Said(word(reason, "KubeRayWarning"), f"{what}; KubeRay: {message}")
    stuck = next((pod for pod in there if not pod.ready and pod.why), None)
    if stuck is not None:
        reason = stuck.why.partition(":")[0]
        return Said(word(reason, "PodsNotReady"), f"{what}; {stuck.name}: {stuck.why}")
    if len(there) < desired and cluster.reason:
        return Said(word(cluster.reason, "PodsNotReady"), f"{what}; {cluster.message or cluster.reason}")
    return Said("HeadNotReady" if group == HEAD else "PodsNotReady", what)


def word(text: str, otherwise: str) -> str:
    """A reason that the API server takes for a condition."""
    return text if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,127}", text) else otherwise
