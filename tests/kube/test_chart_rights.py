"""The operator as the chart installs it: its account has every right that it needs, and none that it does not use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.charts.render import OPERATOR, only, rendered, run
from tests.kube.cluster import ApiServer
from tests.kube.kuberay import KubeRay, Object, stack
from tests.kube.process import OperatorProcess, eventually
from twinkle_operator.permissions import RULES
from twinkle_operator.words import KIND, RAY_API_VERSION

Right = tuple[str, str, str]
"""API group, resource and verb."""
RUN = {"experiment": "quickstart", "volume": {"claimName": "runs"}}
POD = {"spec": {"containers": [{"name": "ray", "image": "theirs"}]}}
TYPO = {"spec": {"containers": [{"name": "ray", "livenessProbe": {"httpGett": {}}}]}}
THEIRS: dict[str, tuple[str, str, Object]] = {
    "NetworkPolicy": ("networking.k8s.io/v1", "s", {"podSelector": {}, "ingress": [{}]}),
    "RayCluster": (RAY_API_VERSION, "s", {"headGroupSpec": {"rayStartParams": {}, "template": POD}}),
    "RayJob": (RAY_API_VERSION, "s-1", {"entrypoint": "true", "clusterSelector": {"ray.io/cluster": "other"}}),
}


@pytest.fixture(params=["cluster", "namespaces"])
def account(
    request: pytest.FixtureRequest,
    helm: Path,
    api_server: ApiServer,
    stack_crd: None,
    kuberay_crds: None,
    namespace: str,
) -> Iterator[str]:
    """The chart is installed for the cluster or for the namespace; the account of its operator as NAMESPACE/NAME."""
    values = {"watchNamespaces": [namespace] if request.param == "namespaces" else [], "crd": {"install": False}}
    where = f"--namespace={namespace}"
    run(helm, "install", "op", str(OPERATOR), where, values=values, kubeconfig=api_server.admin)
    yield f"{namespace}/op-twinkle-operator"
    run(helm, "uninstall", "op", where, kubeconfig=api_server.admin)


@pytest.fixture
def operator(account: str, helm: Path, api_server: ApiServer, namespace: str, tmp_path: Path) -> Iterator[str]:
    """The process that the Deployment describes, for the one namespace; its user."""
    manifest = only(rendered(helm, OPERATOR), "Deployment")
    arguments = manifest["spec"]["template"]["spec"]["containers"][0]["args"]
    kubeconfig = api_server.kubeconfig(service_account=account)
    process = OperatorProcess(kubeconfig, tmp_path, *arguments, f"--namespace={namespace}").start().ready()
    yield f"system:serviceaccount:{account.replace('/', ':')}"
    assert process.stop() == 0, process.tail()


@pytest.mark.timeout(400)
def test_every_right_is_used_and_no_other_is_missed(operator: str, api_server: ApiServer, namespace: str) -> None:
    kuberay = KubeRay(api_server)

    _live(kuberay, namespace)
    granted = {(rule.group, resource, verb) for rule in RULES for resource in rule.resources for verb in rule.verbs}

    def asked() -> list[dict[str, Any]]:
        """What the API server has written down; of a call only when it has answered."""
        whole, _, _ = api_server.audit.read_text().rpartition("\n")
        entries = map(json.loads, whole.splitlines())
        return [each for each in entries if _by(each, operator)]

    def used() -> set[Right]:
        return {right for each in asked() for right in _rights(each)}

    assert [each["requestURI"] for each in asked() if _decision(each) == "forbid"] == []
    eventually("every right is used", lambda: granted <= used())
    assert used() == granted


def _live(kuberay: KubeRay, namespace: str) -> None:
    """A stack that finds every name taken, twice gets a template with the same typo, and is suspended."""
    for kind, (version, name, spec) in THEIRS.items():
        metadata = {"name": name, "namespace": namespace}
        kuberay.create({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
    kuberay.create(stack("s", namespace, run=RUN))
    for kind in ("NetworkPolicy", "RayCluster"):
        _free(kuberay, namespace, kind)
    eventually("a RayCluster of the stack", lambda: _ours(kuberay, namespace, "RayCluster", "s"))
    pods = kuberay.run_cluster(namespace, "s")
    _free(kuberay, namespace, "RayJob")
    eventually("a RayJob of the stack", lambda: _ours(kuberay, namespace, "RayJob", "s-1"))
    for _ in range(2):
        kuberay.patch(KIND, namespace, "s", {"spec": {"head": {"podTemplate": TYPO}}})
        eventually("the typo is told", lambda: _reason(kuberay, namespace) == "InvalidPodTemplate")
        kuberay.patch(KIND, namespace, "s", {"spec": {"head": None}})
        eventually("the typo is mended", lambda: _reason(kuberay, namespace) != "InvalidPodTemplate")
    kuberay.patch(KIND, namespace, "s", {"spec": {"suspend": True}})
    eventually("the RayJob is deleted", lambda: kuberay.get("RayJob", namespace, "s-1") is None)
    for pod in pods:
        kuberay.delete_pod(namespace, pod["metadata"]["name"])
    eventually("the RayCluster is deleted", lambda: kuberay.get("RayCluster", namespace, "s") is None)


def _free(kuberay: KubeRay, namespace: str, kind: str) -> None:
    """Wait until the operator says that the name is taken, and give it free."""
    name = THEIRS[kind][1]

    def said() -> bool:
        ready = _ready(kuberay, namespace)
        return ready.get("reason") == "NameTaken" and f"{kind} {name}" in ready["message"]

    eventually(f"{kind} {name} is in the way", said)
    kuberay.delete(kind, namespace, name)


def _reason(kuberay: KubeRay, namespace: str) -> str:
    return str(_ready(kuberay, namespace).get("reason"))


def _ready(kuberay: KubeRay, namespace: str) -> Object:
    status = (kuberay.get(KIND, namespace, "s") or {}).get("status") or {}
    return next((each for each in status.get("conditions", ()) if each["type"] == "Ready"), {})


def _ours(kuberay: KubeRay, namespace: str, kind: str, name: str) -> Object | None:
    found = kuberay.get(kind, namespace, name)
    return found if found and found["metadata"].get("ownerReferences") else None


def _by(entry: dict[str, Any], user: str) -> bool:
    return bool(entry["user"]["username"] == user)


def _decision(entry: dict[str, Any]) -> str:
    return str(entry.get("annotations", {}).get("authorization.k8s.io/decision", ""))


def _rights(entry: dict[str, Any]) -> list[Right]:
    """What the API server asked RBAC for. Server-side apply of what is not there asks for `create`, too."""
    about = entry.get("objectRef")
    if about is None or "resource" not in about:
        return []
    resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
    verbs = [entry["verb"], *(["create"] if entry["responseStatus"]["code"] == 201 else [])]
    return [(about.get("apiGroup", ""), resource, verb) for verb in verbs]
