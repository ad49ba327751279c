"""Objects as the API server shows them, for tests."""

from __future__ import annotations

from typing import Any

from twinkle_operator.words import GROUP_LABEL, STACK_LABEL, TEMPLATE

Raw = dict[str, Any]


def stack(version: int, *, name: str = "s", namespace: str = "n", uid: str = "stack-1", **changes: Any) -> Raw:
    spec = {
        "image": "twinkle:1",
        "deviceGroups": [
            {"name": "sampler", "role": "sampler", "engine": "torch"},
            {"name": "trainer", "role": "trainer"},
        ],
        "run": {"experiment": "quickstart"},
    }
    metadata = {"name": name, "namespace": namespace, "uid": uid, "generation": 1, "resourceVersion": str(version)}
    return {
        "apiVersion": "twinkle.dev/v1alpha1",
        "kind": "TrainingStack",
        "metadata": metadata,
        "spec": spec,
        **changes,
    }


def child(
    kind: str, version: int, *, name: str = "s", uid: str = "child-1", owner: str = "stack-1", **changes: Any
) -> Raw:
    metadata: Raw = {
        "name": name,
        "namespace": "n",
        "uid": uid,
        "generation": 1,
        "resourceVersion": str(version),
        "labels": {STACK_LABEL: "s"},
        "ownerReferences": [{"kind": "TrainingStack", "name": "s", "uid": owner, "controller": True}],
    }
    metadata |= changes.pop("metadata", {})
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": metadata, "spec": {}, **changes}


def pod(version: int, *, name: str = "p", owner: str = "child-1", node: str = "head", **status: Any) -> Raw:
    labels = {STACK_LABEL: "s", "ray.io/node-type": node, GROUP_LABEL: "sampler", TEMPLATE: "abc"}
    metadata = {
        "name": name,
        "namespace": "n",
        "uid": f"pod-{name}",
        "resourceVersion": str(version),
        "labels": labels,
        "ownerReferences": [{"kind": "RayCluster", "uid": owner, "controller": True}],
    }
    spec = {"containers": [{"name": "ray"}, {"name": "sidecar"}]}
    return {"metadata": metadata, "spec": spec, "status": status}


def warning(
    *, uid: str = "child-1", reason: str = "Invalid", message: str = "bad", at: str = "2026-01-01T00:00:00Z"
) -> Raw:
    about = {"kind": "RayCluster", "namespace": "n", "name": "s", "uid": uid}
    metadata = {"name": "e", "namespace": "n", "resourceVersion": "1"}
    return {"metadata": metadata, "involvedObject": about, "reason": reason, "message": message, "lastTimestamp": at}
