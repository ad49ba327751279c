"""A namespace that is deleted while a stack runs in it."""

from __future__ import annotations

from kubernetes import client

from tests.kube.cluster import ApiServer
from tests.kube.kuberay import KubeRay
from tests.kube.operator.conftest import Start
from tests.kube.operator.test_faults import play
from tests.kube.process import eventually


def test_a_namespace_that_is_deleted_is_nobodys_fault(
    kuberay: KubeRay, api_server: ApiServer, namespace: str, start: Start
) -> None:
    operator = start()
    play(kuberay, namespace)
    core = client.CoreV1Api(api_server.client())
    core.delete_namespace(namespace)
    kuberay.delete("RayJob", namespace, "s-1")
    kuberay.delete("RayCluster", namespace, "s")  # by the controller of namespaces, which does not run here
    core.delete_collection_namespaced_pod(namespace, grace_period_seconds=0)
    eventually("it is tried to make the RayCluster anew", lambda: _is_forbidden(kuberay, namespace))

    assert [line for line in operator.log.read_text().splitlines() if "WARNING" in line] == []


def _is_forbidden(kuberay: KubeRay, namespace: str) -> bool:
    return bool(kuberay.condition(namespace, "s").get("reason") == "Forbidden")
