"""`twinkle status` and `twinkle fetch` on a real API server; what needs a kubelet is left to end-to-end tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kubernetes import client

from tests.kube.cluster import ApiServer
from tests.kube.kuberay import KubeRay, stack
from tests.kube.process import ROOT, OperatorProcess, eventually
from twinkle_operator import strip
from twinkle_operator.commands.reader_pod import reader_pod

PENDING = {"experiment": "quickstart", "volume": {"claimName": "runs"}}


def twinkle(kubeconfig: Path, *arguments: str) -> tuple[int, str]:
    """Its exit status, and all it printed."""
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "PYTHONPATH": f"{ROOT}:{ROOT}/operator",
        "COLUMNS": "160",
    }
    command = [sys.executable, "-c", "from twinkle.cli import main; main()", *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def reader_pods(api_server: ApiServer, namespace: str) -> list[str]:
    core = client.CoreV1Api(api_server.client())
    found = core.list_namespaced_pod(namespace, label_selector="app.kubernetes.io/managed-by=twinkle-fetch")
    return [pod.metadata.name for pod in found.items]


def test_status_shows_a_stack_and_ends_with_3_while_it_is_not_ready(
    kuberay: KubeRay, api_server: ApiServer, namespace: str, operator: OperatorProcess
) -> None:
    kuberay.create(stack("s", namespace))
    eventually("a condition", lambda: kuberay.condition(namespace, "s"))
    code, text = twinkle(api_server.admin, "status", "s", "-n", namespace)

    assert code == 3
    for part in (f"{namespace}/s", "ClusterReady", "NoVolume", "sampler", "0/1"):
        assert part in text


def test_what_cannot_be_read_is_said_in_one_sentence(
    kuberay: KubeRay, api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    stranger = api_server.kubeconfig("stranger")
    missing = twinkle(api_server.admin, "status", "none", "-n", namespace)
    forbidden = twinkle(stranger, "status", "s", "-n", namespace)
    nowhere = twinkle(tmp_path / "no.kubeconfig", "status", "s")

    assert missing == (2, f"twinkle: TrainingStack {namespace}/none: there is none\n")
    assert forbidden == (2, f"twinkle: TrainingStack {namespace}/s: you may not do that\n")
    assert nowhere[0] == 2
    assert len(nowhere[1].splitlines()) == 1


def test_a_reader_pod_that_does_not_start_in_time_is_deleted(
    kuberay: KubeRay, api_server: ApiServer, namespace: str, operator: OperatorProcess, tmp_path: Path
) -> None:
    """No node takes it here; its deadline passes."""
    kuberay.create(stack("s", namespace, run=PENDING))
    eventually("a condition", lambda: kuberay.condition(namespace, "s"))
    arguments = ("fetch", "s", "-n", namespace, "--to", str(tmp_path / "runs"), "--deadline", "2")
    code, text = twinkle(api_server.admin, *arguments)

    assert code == 2
    assert "did not start in time" in text
    assert reader_pods(api_server, namespace) == []
    assert not (tmp_path / "runs").exists()


def test_a_reader_pod_is_deleted_on_ctrl_c(
    kuberay: KubeRay, api_server: ApiServer, namespace: str, operator: OperatorProcess, tmp_path: Path
) -> None:
    kuberay.create(stack("s", namespace, run=PENDING))
    eventually("a condition", lambda: kuberay.condition(namespace, "s"))
    environment = {**os.environ, "KUBECONFIG": str(api_server.admin), "PYTHONPATH": f"{ROOT}:{ROOT}/operator"}
    command = [sys.executable, "-c", "from twinkle.cli import main; main()", "fetch", "s", "-n", namespace]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        eventually("a reader pod", lambda: reader_pods(api_server, namespace))
    finally:
        process.send_signal(2)
        process.communicate(timeout=30)

    assert process.returncode == 130
    assert reader_pods(api_server, namespace) == []


def test_a_run_that_lay_on_its_head_is_gone_with_it(
    kuberay: KubeRay, api_server: ApiServer, namespace: str, operator: OperatorProcess
) -> None:
    kuberay.create(stack("s", namespace))
    eventually("a condition", lambda: kuberay.condition(namespace, "s"))
    code, text = twinkle(api_server.admin, "fetch", "s", "-n", namespace)

    assert code == 2
    assert "its run lies on its head pod; there is none" in text

    kuberay.run_cluster(namespace, "s", ready=False)
    code, text = twinkle(api_server.admin, "fetch", "s", "-n", namespace)

    assert code == 2
    assert "its run lies on its head pod; it is not ready yet: it starts" in text


def test_an_exec_that_the_api_server_refuses_is_one_sentence(
    kuberay: KubeRay, api_server: ApiServer, namespace: str, operator: OperatorProcess, tmp_path: Path
) -> None:
    """No node has the head here."""
    kuberay.create(stack("s", namespace))
    eventually("a cluster", lambda: kuberay.get("RayCluster", namespace, "s"))
    kuberay.run_cluster(namespace, "s")
    eventually("a run folder", lambda: (kuberay.get("TrainingStack", namespace, "s") or {})["status"].get("runFolder"))
    code, text = twinkle(api_server.admin, "fetch", "s", "-n", namespace, "--to", str(tmp_path / "runs"))

    assert (code, text.count("\n")) == (2, 1)
    assert text.startswith(f"twinkle: tar in pod {namespace}/s-headgroup-")
    assert text.endswith(": the API server answered 400 Bad Request\n")
    assert not (tmp_path / "runs").exists()


def test_pod_security_restricted_lets_the_reader_in(kuberay: KubeRay, api_server: ApiServer, namespace: str) -> None:
    core = client.CoreV1Api(api_server.client())
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.patch_namespace(namespace, {"metadata": {"labels": labels}})
    made = kuberay.create(stack("s", namespace, run=PENDING))
    pod = reader_pod(strip.stack(made), None, deadline=60)

    core.create_namespaced_pod(namespace, pod, dry_run="All")
    pod["spec"]["securityContext"]["runAsNonRoot"] = False
    with pytest.raises(client.ApiException, match="restricted"):
        core.create_namespaced_pod(namespace, pod, dry_run="All")
