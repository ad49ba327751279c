"""Spec -> manifests: RayCluster, RayJob of an attempt, NetworkPolicy; `twinkle render` prints them."""

from __future__ import annotations

import hashlib
import shlex
from typing import Any

import msgspec

from twinkle_operator import pod_template
from twinkle_operator.merging import Object, part
from twinkle_operator.observed import Pod, Stack
from twinkle_operator.overrides import overrides, pods, ranks_per_pod
from twinkle_operator.settings import Settings
from twinkle_operator.spec import Group, Spec
from twinkle_operator.words import (
    API_VERSION,
    ATTEMPT_LABEL,
    DASHBOARD_PORT,
    GROUP_LABEL,
    HEAD_ANNOTATION,
    KIND,
    KUEUE_LABEL,
    NOTE_ANNOTATION,
    RAY_API_VERSION,
    RESTARTS_ANNOTATION,
    STACK_LABEL,
    STATUS_PORT,
    TEMPLATE,
)

NAMESPACE_LABEL = "kubernetes.io/metadata.name"


def cluster(stack: Stack, spec: Spec) -> Object:
    """The RayCluster. TEMPLATE on it and on its pods is a hash of the spec: other pods belong to another spec."""
    made: Object = {
        "rayVersion": spec.ray_version,
        "authOptions": {"mode": "token"},
        "upgradeStrategy": {"type": "Recreate"},
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": pod_template.head(spec, stack.name),
        },
        "workerGroupSpecs": [_worker_group(stack, spec, group) for group in spec.device_groups],
    }
    template = digest(made)
    for group in (made["headGroupSpec"], *made["workerGroupSpecs"]):
        metadata = part(group["template"], "metadata")
        labels = None if metadata is None else part(metadata, "labels")
        if labels is not None:
            labels[TEMPLATE] = template
    queue = {KUEUE_LABEL: stack.labels[KUEUE_LABEL]} if KUEUE_LABEL in stack.labels else {}
    metadata = _metadata(stack, stack.name, queue)
    return {
        "apiVersion": RAY_API_VERSION,
        "kind": "RayCluster",
        "metadata": metadata | {"annotations": {TEMPLATE: template}},
        "spec": made,
    }


def job(stack: Stack, spec: Spec, attempt: int, head: Pod, note: str) -> Object:
    """The RayJob of an attempt, bound to a head pod and the restarts of its container."""
    made: Object = {
        "clusterSelector": {"ray.io/cluster": stack.name},
        "submissionMode": "K8sJobMode",
        "entrypoint": entrypoint(stack, spec),
        "entrypointNumCpus": 0,
        "shutdownAfterJobFinishes": False,
        "submitterConfig": {"backoffLimit": 0},
        "submitterPodTemplate": pod_template.submitter(spec, stack.name),
    }
    annotations = {
        TEMPLATE: digest(made["entrypoint"]),
        HEAD_ANNOTATION: head.uid,
        RESTARTS_ANNOTATION: str(head.restarts),
        NOTE_ANNOTATION: note,
    }
    metadata = _metadata(stack, f"{stack.name}-{attempt}", {ATTEMPT_LABEL: str(attempt)})
    return {
        "apiVersion": RAY_API_VERSION,
        "kind": "RayJob",
        "metadata": metadata | {"annotations": annotations},
        "spec": made,
    }


def network_policy(stack: Stack, spec: Spec, settings: Settings) -> Object:
    """Who reaches the pods: their own, KubeRay the dashboard, the operator and Prometheus the status port.

    With egress rules the pods still reach each other and DNS: without those there is no cluster.
    """
    own = {"podSelector": {"matchLabels": {STACK_LABEL: stack.name}}}
    made: Object = {
        "podSelector": own["podSelector"],
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [own]},
            {"from": [_namespace(settings.kuberay_namespace)], "ports": [_tcp(DASHBOARD_PORT)]},
            {
                "from": [_namespace(name) for name in (settings.operator_namespace, settings.prometheus_namespace)],
                "ports": [_tcp(STATUS_PORT)],
            },
        ],
    }
    if spec.network_policy.egress is not None:
        dns = {"ports": [{"protocol": "UDP", "port": 53}, _tcp(53)]}
        made |= {
            "policyTypes": ["Ingress", "Egress"],
            "egress": [{"to": [own]}, dns, *spec.network_policy.egress],
        }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(stack, stack.name, {}),
        "spec": made,
    }


def entrypoint(stack: Stack, spec: Spec) -> str:
    """The driver's command as KubeRay takes it: one line for bash, in which the kubelet expands $(...) first."""
    made = overrides(spec, namespace=stack.namespace, name=stack.name, uid=stack.uid)
    return shlex.join(["twinkle-train", *made]).replace("$", "$$")


def entrypoint_digest(stack: Stack, spec: Spec) -> str:
    """Of the RayJob that the spec asks for: a running attempt with another one is over."""
    return digest(entrypoint(stack, spec))


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits, equal for equal JSON in any order of keys."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:16]


def _worker_group(stack: Stack, spec: Spec, group: Group) -> Object:
    ranks = ranks_per_pod(group)
    start = {"num-cpus": str(ranks * group.cpus_per_rank)}
    if group.device_type == "cuda":
        start["num-gpus"] = str(ranks)
    elif group.device_type == "npu":
        start["resources"] = f"'{{\"NPU\":{ranks}}}'"
    size = pods(group)
    return {
        "groupName": group.name,
        "replicas": size,
        "minReplicas": size,
        "maxReplicas": size,
        "numOfHosts": 1,
        "labels": {GROUP_LABEL: group.name},
        "rayStartParams": start,
        "template": pod_template.worker(spec, group, stack.name),
    }


def _metadata(stack: Stack, name: str, labels: dict[str, str]) -> Object:
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": stack.name,
        "uid": stack.uid,
        "controller": True,
        "blockOwnerDeletion": False,  # true needs a right on the finalizers of stacks where that is enforced
    }
    return {
        "name": name,
        "namespace": stack.namespace,
        "labels": {"app.kubernetes.io/managed-by": "twinkle-operator", STACK_LABEL: stack.name, **labels},
        "ownerReferences": [owner],
    }


def _namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: name}}}


def _tcp(port: int) -> Object:
    return {"protocol": "TCP", "port": port}
