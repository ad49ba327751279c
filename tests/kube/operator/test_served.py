"""KubeRay is not there, then it is; then its CRD is too old."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e import assets
from tests.kube.cluster import ApiServer
from tests.kube.conftest import STACK_CRD, need
from tests.kube.kuberay import KubeRay, stack
from tests.kube.process import OperatorProcess, eventually
from tests.kube.rights import operator_user

NAMESPACE = "bare"
ASKS_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def bare() -> Iterator[ApiServer]:
    """An API server without any CustomResourceDefinition."""
    need("etcd", "kube-apiserver", "kubectl", assets.KUBERAY_MANIFESTS)
    with ApiServer() as server:
        server.kubectl("create", "namespace", NAMESPACE)
        yield server


def crd(name: str) -> Any:
    return yaml.safe_load((assets.kuberay() / "crd" / "bases" / f"ray.io_{name}.yaml").read_text())


def older(name: str) -> Any:
    """As KubeRay's CRD was before it knew of authOptions."""
    made = copy.deepcopy(crd(name))
    for version in made["spec"]["versions"]:
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        spec.pop("authOptions", None)
    return made


def install(server: ApiServer, folder: Path, *manifests: Any) -> None:
    for manifest in manifests:
        file = folder / f"{manifest['metadata']['name']}.yaml"
        file.write_text(yaml.safe_dump(manifest))
        server.install_crds(file)


def test_the_operator_waits_for_crds_and_says_what_is_missing(bare: ApiServer, tmp_path: Path) -> None:
    process = OperatorProcess(
        operator_user(bare, "twinkle-operator"),
        tmp_path,
        "--namespace",
        NAMESPACE,
        "--status-address",
        "http://127.0.0.1:9",
    ).start()
    try:
        eventually("the operator runs", lambda: process.ask("/readyz") == 503)
        bare.install_crds(STACK_CRD)
        eventually("the operator is ready", lambda: process.ask("/readyz") == 200, ASKS_WITHIN_S)
        kuberay = KubeRay(bare)
        kuberay.create(stack("s", NAMESPACE))
        told(kuberay, "install KubeRay")

        install(bare, tmp_path, older("rayclusters"), crd("rayjobs"))
        told(kuberay, "authOptions")
        kuberay = KubeRay(bare)
        assert kuberay.get("RayCluster", NAMESPACE, "s") is None

        install(bare, tmp_path, crd("rayclusters"))
        eventually("the RayCluster", lambda: kuberay.get("RayCluster", NAMESPACE, "s"), ASKS_WITHIN_S)
        assert process.runs()
    finally:
        assert process.stop() == 0


def told(kuberay: KubeRay, text: str) -> None:
    def found() -> bool:
        return text in kuberay.condition(NAMESPACE, "s").get("message", "")

    eventually(f"a condition that says {text!r}", found, ASKS_WITHIN_S)
