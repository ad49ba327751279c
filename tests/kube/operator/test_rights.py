"""The operator needs every right of its list, and no other."""

from __future__ import annotations

from kubernetes import client

from tests.kube.cluster import ApiServer
from tests.kube.kuberay import KubeRay, stack
from tests.kube.operator.conftest import Start
from tests.kube.process import eventually
from tests.kube.proxy import Call, Proxy
from twinkle_operator.permissions import RULES

Right = tuple[str, str, str]


def test_every_right_is_used_and_none_is_missing(
    kuberay: KubeRay, api_server: ApiServer, namespace: str, proxy: Proxy, start: Start
) -> None:
    """A life with everything that happens in it; each call that the server took needed one right, or two."""
    foreign(kuberay, namespace)
    operator = start()
    kuberay.create(stack("s", namespace))
    for kind in ("NetworkPolicy", "RayCluster"):
        eventually(
            f"the {kind} of somebody else is in the way",
            lambda kind=kind: kind in kuberay.condition(namespace, "s").get("message", ""),  # type: ignore[misc]
        )
        kuberay.delete(kind, namespace, "s")
    eventually("the RayCluster", lambda: kuberay.get("RayCluster", namespace, "s"))
    pods = kuberay.run_cluster(namespace, "s")
    eventually("the RayJob of somebody else is in the way", lambda: used(proxy, "GET", "/rayjobs/s-1"))
    kuberay.delete("RayJob", namespace, "s-1")
    eventually("the RayJob", lambda: kuberay.get("RayJob", namespace, "s-1"))
    kuberay.warn(namespace, "RayCluster", "s", "Invalid", "KubeRay does not like it")
    operator.kill()
    operator.wait()
    kuberay.patch("TrainingStack", namespace, "s", {"spec": {"suspend": True}})
    kuberay.set_status("TrainingStack", namespace, "s", conditions=[])
    start()
    eventually("the RayJob goes", lambda: kuberay.get("RayJob", namespace, "s-1") is None)
    for pod in pods:
        kuberay.delete_pod(namespace, pod["metadata"]["name"])
    eventually("the RayCluster goes", lambda: kuberay.get("RayCluster", namespace, "s") is None)

    def told_again() -> bool:
        kuberay.set_status("TrainingStack", namespace, "s", conditions=[])
        return used(proxy, "PATCH", "/events/")

    eventually("an event is told a second time", told_again)

    listed = {(rule.group, resource, verb) for rule in RULES for resource in rule.resources for verb in rule.verbs}
    needed = {right for call in proxy.calls for right in rights(call)}
    assert needed - listed == set()
    assert listed - needed == set()


def foreign(kuberay: KubeRay, namespace: str) -> None:
    """Objects of somebody else with the names of the stack's children."""
    pod = {"spec": {"containers": [{"name": "ray", "image": "theirs"}]}}
    metadata = {"name": "s", "namespace": namespace}
    ray = {"headGroupSpec": {"rayStartParams": {}, "template": pod}}
    policy = {"podSelector": {}, "ingress": [{}]}
    job = {"entrypoint": "true", "rayClusterSpec": ray}
    kuberay.create({"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": metadata, "spec": ray})
    kuberay.create(
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": policy}
    )
    named = {**metadata, "name": "s-1"}
    kuberay.create({"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": named, "spec": job})


def used(proxy: Proxy, method: str, part: str) -> bool:
    return any(call.method == method and part in call.path for call in proxy.calls)


def rights(call: Call) -> list[Right]:
    """What RBAC asks for of a call: (group, resource, verb); nothing of discovery."""
    parts = call.path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[3:])
    if rest[:1] == ["namespaces"]:
        rest = rest[2:]
    if not rest:
        return []
    resource = "/".join([rest[0], *rest[2:]])
    if call.method == "GET":
        verb = "watch" if call.is_watch else "get" if len(rest) > 1 else "list"
        return [(group, resource, verb)]
    verb = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}[call.method]
    made = [(group, resource, "create")] if call.created and verb == "patch" else []
    return [(group, resource, verb), *made]


def test_without_a_right_the_operator_says_which_it_lacks(
    api_server: ApiServer, kuberay: KubeRay, namespace: str, start: Start
) -> None:
    rbac = client.RbacAuthorizationV1Api(api_server.client())
    role = rbac.read_cluster_role("twinkle-operator")
    kept = [rule for rule in role.rules if "rayclusters" not in rule.resources]
    rbac.patch_cluster_role("twinkle-operator", {"rules": api_server.client().sanitize_for_serialization(kept)})
    try:
        process = start(ready=False)
        eventually("a log line", lambda: 'cannot list resource "rayclusters"' in process.tail())
        assert process.ask("/readyz") == 503
    finally:
        rules = api_server.client().sanitize_for_serialization(role.rules)
        rbac.patch_cluster_role("twinkle-operator", {"rules": rules})
    process.ready()
