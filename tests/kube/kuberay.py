"""KubeRay's part, played through the API server: pods of a RayCluster, and the statuses that only KubeRay writes."""

from __future__ import annotations

import itertools
from typing import Any

from kubernetes import client, dynamic
from kubernetes.client import ApiException

from tests.kube.cluster import ApiServer
from twinkle_operator.words import API_VERSION, GROUP_LABEL, KIND, RAY_VERSION, STACK_LABEL, TEMPLATE

MERGE = "application/merge-patch+json"
Object = dict[str, Any]


def stack(name: str, namespace: str, **spec: Any) -> Object:
    """A TrainingStack of one sampler and one trainer pod."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "image": "twinkle:0.1.0",
            "controller": {"globalBatchSize": 8},
            "deviceGroups": [
                {"name": "sampler", "role": "sampler", "engine": "torch"},
                {"name": "trainer", "role": "trainer"},
            ],
            "run": {"experiment": "quickstart"},
            **spec,
        },
    }


def ray_pod(cluster: Object, group: str, node: str, name: str) -> Object:
    """A pod of a RayCluster with the labels that KubeRay and the group's template give it; `node` is head or worker."""
    metadata = cluster["metadata"]
    owner = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "name": metadata["name"], "uid": metadata["uid"]}
    labels = {
        "ray.io/cluster": metadata["name"],
        "ray.io/group": group,
        "ray.io/node-type": node,
        STACK_LABEL: metadata["labels"][STACK_LABEL],
        GROUP_LABEL: group,
        TEMPLATE: metadata["annotations"][TEMPLATE],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "ownerReferences": [{**owner, "controller": True}]},
        "spec": {
            "containers": [{"name": "ray", "image": f"ray:{RAY_VERSION}"}],
            "automountServiceAccountToken": False,
        },
    }


class KubeRay:
    """An administrator who does what KubeRay and the kubelet would do."""

    def __init__(self, server: ApiServer) -> None:
        self._api = server.client()
        self._core = client.CoreV1Api(self._api)
        self._dynamic = dynamic.DynamicClient(self._api)
        self._numbers = itertools.count(1)

    def resource(self, kind: str) -> Any:
        group = {KIND: API_VERSION, "NetworkPolicy": "networking.k8s.io/v1"}.get(kind, "ray.io/v1")
        return self._dynamic.resources.get(api_version=group, kind=kind)

    def create(self, manifest: Object) -> Object:
        made = self.resource(manifest["kind"]).create(manifest, namespace=manifest["metadata"]["namespace"])
        return dict(made.to_dict())

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        try:
            return dict(self.resource(kind).get(name, namespace).to_dict())
        except ApiException as error:
            if error.status != 404:
                raise
            return None

    def list(self, kind: str, namespace: str) -> list[Object]:
        return [each.to_dict() for each in self.resource(kind).get(namespace=namespace).items]

    def patch(self, kind: str, namespace: str, name: str, body: Object) -> Object:
        made = self.resource(kind).patch(body, name=name, namespace=namespace, content_type=MERGE)
        return dict(made.to_dict())

    def delete(self, kind: str, namespace: str, name: str) -> None:
        self.resource(kind).delete(name, namespace)

    def set_status(self, kind: str, namespace: str, name: str, **status: Any) -> None:
        self.resource(kind).status.patch({"status": status}, name=name, namespace=namespace, content_type=MERGE)

    def run_cluster(self, namespace: str, name: str, *, ready: bool = True) -> list[Object]:
        """Make the pods of a RayCluster, and let it be ready."""
        cluster = self.get("RayCluster", namespace, name)
        assert cluster is not None, f"there is no RayCluster {namespace}/{name}"
        groups = [("headgroup", "head", 1)]
        groups += [(each["groupName"], "worker", each["replicas"]) for each in cluster["spec"]["workerGroupSpecs"]]
        pods = [
            self.make_pod(cluster, group, node, ready=ready)
            for group, node, replicas in groups
            for _ in range(replicas)
        ]
        self.set_status("RayCluster", namespace, name, state="ready" if ready else "")
        return pods

    def make_pod(self, cluster: Object, group: str, node: str, *, ready: bool = True) -> Object:
        metadata = cluster["metadata"]
        namespace, name = metadata["namespace"], f"{metadata['name']}-{group}-{next(self._numbers)}"
        manifest = ray_pod(cluster, group, node, name)
        self._core.create_namespaced_pod(namespace, manifest)
        self.set_pod(namespace, name, ready=ready)
        return manifest

    def set_pod(self, namespace: str, name: str, *, ready: bool, restarts: int = 0) -> None:
        answer = "True" if ready else "False"
        status = {
            "phase": "Running" if ready else "Pending",
            "conditions": [{"type": "Ready", "status": answer}],
            "containerStatuses": [
                {
                    "name": "ray",
                    "image": "ray",
                    "imageID": "",
                    "ready": ready,
                    "restartCount": restarts,
                    "state": {"running": {}} if ready else {"waiting": {"reason": "ContainerCreating"}},
                }
            ],
        }
        self._core.patch_namespaced_pod_status(name, namespace, {"status": status})

    def delete_pod(self, namespace: str, name: str) -> None:
        self._core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)

    def warn(self, namespace: str, kind: str, name: str, reason: str, message: str) -> None:
        """A warning event of KubeRay's about one of its objects."""
        about = self.get(kind, namespace, name)
        assert about is not None
        at = client.V1ObjectMeta(name=f"{name}.{next(self._numbers)}")
        event = client.CoreV1Event(
            metadata=at,
            involved_object=client.V1ObjectReference(
                api_version="ray.io/v1", kind=kind, name=name, namespace=namespace, uid=about["metadata"]["uid"]
            ),
            type="Warning",
            reason=reason,
            message=message,
            first_timestamp="2026-01-01T00:00:00Z",
            last_timestamp="2026-01-01T00:00:00Z",
        )
        self._core.create_namespaced_event(namespace, event)

    def events(self, namespace: str) -> list[Object]:
        found = self._core.list_namespaced_event(namespace, field_selector=f"involvedObject.kind={KIND}")
        return [self._api.sanitize_for_serialization(each) for each in found.items]

    def condition(self, namespace: str, name: str, kind: str = "Ready") -> Object:
        """A condition of a stack; empty while it has none."""
        stack = self.get(KIND, namespace, name) or {}
        conditions = stack.get("status", {}).get("conditions", [])
        return next((dict(each) for each in conditions if each["type"] == kind), {})
