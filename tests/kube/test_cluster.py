"""The API server that the other tests stand on: it keeps its objects, refuses strangers, leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes import client, dynamic, watch
from kubernetes.dynamic.exceptions import UnprocessibleEntityError
from urllib3.exceptions import HTTPError

from tests.kube.cluster import ApiServer

HAPPENS_WITHIN_S = 20
STARTS_AND_IS_KILLED = """
import os, signal
from tests.kube.cluster import ApiServer
server = ApiServer().start()
print(server.folder, *(file.read_text().strip() for file in server.folder.glob('*.pid')), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def ray_cluster(name: str, **spec: object) -> dict[str, object]:
    pod = {"spec": {"containers": [{"name": "ray", "image": "localhost/ray:1"}]}}
    head = {"headGroupSpec": {"rayStartParams": {}, "template": pod}}
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": name}, "spec": {**head, **spec}}


@pytest.fixture
def ray_clusters(api_server: ApiServer, kuberay_crds: None) -> dynamic.Resource:
    return api_server.dynamic().resources.get(api_version="ray.io/v1", kind="RayCluster")


def test_an_object_of_kuberays_survives_a_restart_of_the_server(
    api_server: ApiServer, ray_clusters: dynamic.Resource, namespace: str
) -> None:
    ray_clusters.create(ray_cluster("kept"), namespace=namespace)
    before = ray_clusters.get("kept", namespace)

    api_server.restart()

    after = ray_clusters.get("kept", namespace)
    assert after.metadata.uid == before.metadata.uid


def test_kuberays_schema_is_the_real_one(ray_clusters: dynamic.Resource, namespace: str) -> None:
    with pytest.raises(UnprocessibleEntityError, match="suspend"):
        ray_clusters.create(ray_cluster("bad", suspend="yes"), namespace=namespace)


def test_who_has_no_rights_gets_403(api_server: ApiServer, namespace: str) -> None:
    stranger = client.CoreV1Api(api_server.client(api_server.kubeconfig("stranger")))
    robot = client.CoreV1Api(api_server.client(api_server.kubeconfig(service_account=f"{namespace}/default")))

    with pytest.raises(client.ApiException, match="stranger") as refused:
        stranger.list_namespaced_pod(namespace)
    assert refused.value.status == 403
    with pytest.raises(client.ApiException, match=f"system:serviceaccount:{namespace}:default") as refused:
        robot.list_namespaced_pod(namespace)
    assert refused.value.status == 403


def test_rights_come_with_a_group(api_server: ApiServer, namespace: str) -> None:
    api_server.kubectl("-n", namespace, "create", "role", "lists", "--verb=list", "--resource=pods")
    api_server.kubectl("-n", namespace, "create", "rolebinding", "lists", "--role=lists", "--group=team")
    member = client.CoreV1Api(api_server.client(api_server.kubeconfig("member", groups=["team"])))

    end = time.monotonic() + HAPPENS_WITHIN_S  # RBAC hears of a new binding through a watch
    while not sees_pods(member, namespace) and time.monotonic() < end:
        time.sleep(0.05)
    assert sees_pods(member, namespace)


def test_pod_security_is_enforced(api_server: ApiServer, namespace: str) -> None:
    core = client.CoreV1Api(api_server.client())
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.patch_namespace(namespace, {"metadata": {"labels": enforce}})
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "localhost/c:1"}]}}

    with pytest.raises(client.ApiException, match="violates PodSecurity"):
        core.create_namespaced_pod(namespace, pod)


def test_each_namespace_is_a_new_one(new_namespace: Callable[[], str]) -> None:
    assert new_namespace() != new_namespace()


def test_a_watch_from_before_the_forgotten_history_ends_with_410(api_server: ApiServer, namespace: str) -> None:
    core = client.CoreV1Api(api_server.client())
    old = core.create_namespaced_config_map(namespace, {"metadata": {"name": "m"}}).metadata.resource_version
    for number in range(3):
        core.patch_namespaced_config_map("m", namespace, {"data": {"number": str(number)}})

    api_server.forget_history()

    with pytest.raises(client.ApiException) as gone:
        list(watch.Watch().stream(core.list_namespaced_config_map, namespace, resource_version=old, timeout_seconds=5))
    assert gone.value.status == 410


def test_a_frozen_server_is_silent_and_then_goes_on(api_server: ApiServer) -> None:
    core = client.CoreV1Api(api_server.client())
    core.list_namespace()
    with api_server.frozen(), pytest.raises(HTTPError, match="timed out"):
        core.list_namespace(_request_timeout=0.3)

    assert core.list_namespace(_request_timeout=30).items


def test_nothing_is_left_when_the_tests_are_killed(api_server: ApiServer) -> None:
    command = [sys.executable, "-c", STARTS_AND_IS_KILLED]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    folder, *pids = ended.stdout.split()

    end = time.monotonic() + HAPPENS_WITHIN_S
    while (Path(folder).exists() or any(runs(int(pid)) for pid in pids)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(folder).exists()
    assert not [pid for pid in pids if runs(int(pid))]


def sees_pods(core: client.CoreV1Api, namespace: str) -> bool:
    try:
        core.list_namespaced_pod(namespace)
    except client.exceptions.ForbiddenException:
        return False
    return True


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
