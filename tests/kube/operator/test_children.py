"""From a stack to its children, read back from a real API server under the operator's own rights."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kubernetes import client

from tests.kube.cluster import ApiServer
from tests.kube.kuberay import KubeRay, stack
from tests.kube.process import OperatorProcess, eventually
from tests.kube.proxy import Proxy

Object = dict[str, Any]


def made(kuberay: KubeRay, namespace: str, kind: str, name: str) -> Object:
    return eventually(f"{kind} {namespace}/{name}", lambda: kuberay.get(kind, namespace, name))


def reason(kuberay: KubeRay, namespace: str, wanted: str, kind: str = "Ready") -> Object:
    def found() -> Object | None:
        condition = kuberay.condition(namespace, "s", kind)
        return condition if condition.get("reason") == wanted else None

    return eventually(f"{kind} for the reason {wanted}", found)


def test_a_stack_gets_its_children_and_then_its_first_attempt(
    kuberay: KubeRay, namespace: str, operator: OperatorProcess
) -> None:
    mine = kuberay.create(stack("s", namespace))
    cluster = made(kuberay, namespace, "RayCluster", "s")
    made(kuberay, namespace, "NetworkPolicy", "s")
    assert kuberay.list("RayJob", namespace) == []

    kuberay.run_cluster(namespace, "s")
    job = made(kuberay, namespace, "RayJob", "s-1")

    for child in (cluster, job):
        owner = child["metadata"]["ownerReferences"][0]
        assert (owner["uid"], owner["controller"]) == (mine["metadata"]["uid"], True)
    reason(kuberay, namespace, "PodsReady", "ClusterReady")

    def status() -> Object:
        found = kuberay.get("TrainingStack", namespace, "s")
        return dict(found["status"]) if found else {}

    eventually("the status names the job", lambda: status().get("rayJob") == "s-1")
    assert (status()["rayCluster"], status()["samplers"], status()["attempts"]) == ("s", "1/1", 1)
    found = kuberay.get("TrainingStack", namespace, "s")
    assert found is not None
    assert "finalizers" not in found["metadata"]
    assert "annotations" not in found["metadata"]


def test_what_somebody_changes_or_deletes_is_put_right(
    kuberay: KubeRay, namespace: str, operator: OperatorProcess, proxy: Proxy
) -> None:
    kuberay.create(stack("s", namespace))
    cluster = made(kuberay, namespace, "RayCluster", "s")
    policy = made(kuberay, namespace, "NetworkPolicy", "s")

    kuberay.patch("RayCluster", namespace, "s", {"spec": {"rayVersion": "1.0.0", "authOptions": None}})
    eventually(
        "the RayCluster is as it was", lambda: made(kuberay, namespace, "RayCluster", "s")["spec"] == cluster["spec"]
    )
    kuberay.patch("NetworkPolicy", namespace, "s", {"spec": {"ingress": [{}]}, "metadata": {"labels": None}})
    eventually(
        "the NetworkPolicy is as it was",
        lambda: made(kuberay, namespace, "NetworkPolicy", "s")["spec"] == policy["spec"],
    )
    kuberay.delete("NetworkPolicy", namespace, "s")
    again = made(kuberay, namespace, "NetworkPolicy", "s")
    assert again["metadata"]["labels"] == policy["metadata"]["labels"]

    kuberay.patch("RayCluster", namespace, "s", {"metadata": {"annotations": {"of": "others"}}})
    eventually(
        "the pass over what others own is done", lambda: operator.metric("trainingstack_reconcile_seconds_count")
    )
    assert made(kuberay, namespace, "RayCluster", "s")["metadata"]["annotations"]["of"] == "others"


def test_when_nothing_changes_nothing_is_written(
    kuberay: KubeRay, namespace: str, operator: OperatorProcess, proxy: Proxy
) -> None:
    kuberay.create(stack("s", namespace, run={"experiment": "quickstart", "volume": {"claimName": "runs"}}))
    made(kuberay, namespace, "RayCluster", "s")
    eventually("a status", lambda: kuberay.condition(namespace, "s"))
    time.sleep(0.5)
    before = len(proxy.writes())
    for number in range(5):
        kuberay.set_status("RayCluster", namespace, "s", desiredMemory=f"{number + 1}Gi")
    time.sleep(1)

    assert proxy.writes()[before:] == []


def test_a_typo_in_a_pod_template_is_told_once_and_mended_by_the_next_spec(
    kuberay: KubeRay, namespace: str, operator: OperatorProcess, proxy: Proxy
) -> None:
    wrong = {"podTemplate": {"spec": {"containers": [{"name": "ray", "livenessProbe": {"httpGett": {}}}]}}}
    kuberay.create(stack("s", namespace, head=wrong))
    told = reason(kuberay, namespace, "InvalidPodTemplate")
    assert "httpGett" in told["message"]

    sent = [call for call in proxy.calls if call.method == "PATCH" and "/rayclusters/" in call.path]
    time.sleep(2)
    assert [call for call in proxy.calls if call.method == "PATCH" and "/rayclusters/" in call.path] == sent
    assert kuberay.get("RayCluster", namespace, "s") is None

    kuberay.patch("TrainingStack", namespace, "s", {"spec": {"head": None}})
    made(kuberay, namespace, "RayCluster", "s")


def test_a_bad_template_is_refused_before_the_running_attempt_is_touched(
    kuberay: KubeRay, namespace: str, operator: OperatorProcess
) -> None:
    kuberay.create(stack("s", namespace))
    before = made(kuberay, namespace, "RayCluster", "s")
    kuberay.run_cluster(namespace, "s")
    made(kuberay, namespace, "RayJob", "s-1")

    wrong = {"podTemplate": {"spec": {"containers": [{"name": "ray", "livenessProbe": {"httpGett": {}}}]}}}
    kuberay.patch("TrainingStack", namespace, "s", {"spec": {"head": wrong}})
    reason(kuberay, namespace, "InvalidPodTemplate")

    assert "deletionTimestamp" not in made(kuberay, namespace, "RayJob", "s-1")["metadata"]
    assert made(kuberay, namespace, "RayCluster", "s")["metadata"]["generation"] == before["metadata"]["generation"]


def test_a_quota_is_told_and_tried_again(
    kuberay: KubeRay, api_server: ApiServer, namespace: str, operator: OperatorProcess
) -> None:
    core = client.CoreV1Api(api_server.client())
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/rayclusters.ray.io": "0"}}}
    core.create_namespaced_resource_quota(namespace, quota)
    core.patch_namespaced_resource_quota_status(
        "none",
        namespace,
        {"status": {"hard": {"count/rayclusters.ray.io": "0"}, "used": {"count/rayclusters.ray.io": "0"}}},
    )
    kuberay.create(stack("s", namespace))
    assert "quota" in reason(kuberay, namespace, "Forbidden")["message"]

    core.delete_namespaced_resource_quota("none", namespace)
    made(kuberay, namespace, "RayCluster", "s")


THEIRS: dict[str, tuple[str, Object]] = {
    "RayCluster": (
        "ray.io/v1",
        {
            "headGroupSpec": {
                "rayStartParams": {},
                "template": {"spec": {"containers": [{"name": "ray", "image": "theirs"}]}},
            }
        },
    ),
    "NetworkPolicy": ("networking.k8s.io/v1", {"podSelector": {}, "ingress": [{}]}),
    # No field in common with ours: nothing conflicts when it is applied to.
    "NetworkPolicy that conflicts with nothing": ("networking.k8s.io/v1", {"podSelector": {}}),
}


@pytest.mark.parametrize("what", THEIRS)
def test_an_object_of_somebody_else_is_never_taken_over(
    kuberay: KubeRay, namespace: str, operator: OperatorProcess, what: str
) -> None:
    kind, (version, spec) = what.partition(" ")[0], THEIRS[what]
    theirs = kuberay.create(
        {"apiVersion": version, "kind": kind, "metadata": {"name": "s", "namespace": namespace}, "spec": spec}
    )
    kuberay.create(stack("s", namespace))

    assert f"{kind} s" in reason(kuberay, namespace, "NameTaken")["message"]
    after = made(kuberay, namespace, kind, "s")
    assert after["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]

    kuberay.delete(kind, namespace, "s")
    made(kuberay, namespace, "RayCluster", "s")


def test_a_stack_touches_nothing_of_another_namespace(
    kuberay: KubeRay, namespace: str, new_namespace: Any, operator: OperatorProcess, proxy: Proxy
) -> None:
    other = new_namespace()
    kuberay.create(stack("s", other))
    kuberay.create(stack("s", namespace))
    made(kuberay, namespace, "RayCluster", "s")
    kuberay.run_cluster(namespace, "s")
    made(kuberay, namespace, "RayJob", "s-1")

    assert kuberay.get("RayCluster", other, "s") is None
    assert {call.path.split("/namespaces/")[1].split("/")[0] for call in proxy.writes()} == {namespace}


def test_kuberays_refusal_is_told(kuberay: KubeRay, namespace: str, operator: OperatorProcess) -> None:
    kuberay.create(stack("s", namespace))
    made(kuberay, namespace, "RayCluster", "s")
    kuberay.warn(namespace, "RayCluster", "s", "InvalidRayClusterSpec", "KubeRay does not like it")

    def told() -> bool:
        found = kuberay.get("TrainingStack", namespace, "s") or {}
        return any("does not like it" in each["message"] for each in found.get("status", {}).get("conditions", []))

    eventually("KubeRay's words in a condition", told)


def test_a_stack_that_goes_takes_its_series_with_it(
    kuberay: KubeRay, namespace: str, operator: OperatorProcess
) -> None:
    kuberay.create(stack("s", namespace))
    series = f'trainingstack_condition{{name="s",namespace="{namespace}"'
    eventually("series of the stack", lambda: series in operator.metrics())
    kuberay.delete("TrainingStack", namespace, "s")
    eventually("no series of the stack", lambda: series not in operator.metrics())


def test_suspending_deletes_the_job_and_then_the_cluster_and_resuming_makes_them_anew(
    kuberay: KubeRay, namespace: str, operator: OperatorProcess
) -> None:
    kuberay.create(stack("s", namespace, run={"experiment": "quickstart", "volume": {"claimName": "runs"}}))
    made(kuberay, namespace, "RayCluster", "s")
    pods = kuberay.run_cluster(namespace, "s")
    made(kuberay, namespace, "RayJob", "s-1")

    kuberay.patch("TrainingStack", namespace, "s", {"spec": {"suspend": True}})
    eventually("the RayJob is deleted", lambda: kuberay.get("RayJob", namespace, "s-1") is None)
    for pod in pods:
        kuberay.set_pod(namespace, pod["metadata"]["name"], ready=False)
    eventually("the RayCluster is deleted", lambda: kuberay.get("RayCluster", namespace, "s") is None)
    for pod in pods:
        kuberay.delete_pod(namespace, pod["metadata"]["name"])
    reason(kuberay, namespace, "Suspended")

    kuberay.patch("TrainingStack", namespace, "s", {"spec": {"suspend": False}})
    made(kuberay, namespace, "RayCluster", "s")
    kuberay.run_cluster(namespace, "s")
    made(kuberay, namespace, "RayJob", "s-2")
