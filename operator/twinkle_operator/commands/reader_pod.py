"""The pod that reads a run folder: it mounts the claim read-only, can do nothing else, and does not live long."""

from __future__ import annotations

from typing import Any

from twinkle_operator import pod_template
from twinkle_operator.errors import OperatorError
from twinkle_operator.observed import Stack
from twinkle_operator.resources import Manifest
from twinkle_operator.words import API_VERSION, KIND

CONTAINER = "reader"
NOBODY = 65534
PLACE = ("imagePullSecrets", "nodeSelector", "tolerations", "priorityClassName", "runtimeClassName", "schedulerName")
"""Of the head's pod, so that it finds a node and its image."""
IMAGE = ("image", "imagePullPolicy")
"""Of the head's container: what a node has and no registry knows is not pulled."""


def reader_pod(stack: Stack, head: Manifest | None, *, deadline: int) -> Manifest:
    """Its manifest, for Pod Security "restricted". A claim that only one node may mount is read beside the `head` pod.

    Raises:
        OperatorError: the stack has no claim, or no image is known.
    """
    spec = stack.spec
    if spec is None or spec.run.volume is None:
        raise OperatorError(
            f"{stack.namespace}/{stack.name} has no run.volume, so no pod but its head can read the run"
        )
    model = pod_template.head(spec, stack.name)["spec"]
    image = {key: model["containers"][0][key] for key in IMAGE if key in model["containers"][0]}
    if "image" not in image:
        raise OperatorError(f"{stack.namespace}/{stack.name} names no image for its head")
    pod: dict[str, Any] = {key: model[key] for key in PLACE if key in model}
    if head is not None and head.get("spec", {}).get("nodeName"):
        pod["affinity"] = _beside(head)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{stack.name}-fetch-",
            "namespace": stack.namespace,
            "labels": {"app.kubernetes.io/managed-by": "twinkle-fetch"},
            "ownerReferences": [{"apiVersion": API_VERSION, "kind": KIND, "name": stack.name, "uid": stack.uid}],
        },
        "spec": {
            **pod,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": deadline,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _security(model),
            "containers": [_container(image, spec.run.volume.path, deadline)],
            # Read-only where it is mounted: a read-only claim cannot be attached where the head has it for writing.
            "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": spec.run.volume.claim_name}}],
        },
    }


def _security(model: Manifest) -> Manifest:
    """Who reads: the head's user, or nobody; never root."""
    given = model.get("securityContext") or {}
    user = (model["containers"][0].get("securityContext") or {}).get("runAsUser") or given.get("runAsUser") or NOBODY
    group = {"fsGroup": given["fsGroup"], "fsGroupChangePolicy": "OnRootMismatch"} if "fsGroup" in given else {}
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": given.get("runAsGroup") or user,
        **group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container(image: Manifest, path: str, deadline: int) -> Manifest:
    return {
        "name": CONTAINER,
        **image,
        "command": ["sleep", str(deadline)],
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "runs", "mountPath": path, "readOnly": True}],
    }


def _beside(head: Manifest) -> Manifest:
    host = {"key": "kubernetes.io/hostname", "operator": "In", "values": [head["spec"]["nodeName"]]}
    wish = {"weight": 100, "preference": {"matchExpressions": [host]}}
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}
