"""The operator on a real API server: each test has a namespace, an operator for it, and a proxy between the two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e import assets
from tests.kube.cluster import ApiServer
from tests.kube.conftest import need
from tests.kube.kuberay import KubeRay
from tests.kube.process import OperatorProcess
from tests.kube.proxy import Proxy
from tests.kube.rights import operator_user

INACTIVITY_S = 6

NOBODY = "http://127.0.0.1:9"
"""Where nothing listens, as on a head without a driver."""

Start = Callable[..., OperatorProcess]


@pytest.fixture(scope="session")
def kuberay(api_server: ApiServer, stack_crd: None) -> KubeRay:
    """Who plays KubeRay, and the administrator. Of KubeRay's CRDs the two that the operator uses: they are large."""
    need(assets.KUBERAY_MANIFESTS)
    for name in ("rayclusters", "rayjobs"):
        api_server.install_crds(assets.kuberay() / "crd" / "bases" / f"ray.io_{name}.yaml")
    return KubeRay(api_server)


@pytest.fixture(scope="session")
def operator_kubeconfig(api_server: ApiServer) -> Path:
    """Of a user with the operator's rights in the whole cluster, and no others."""
    return operator_user(api_server, "twinkle-operator")


@pytest.fixture
def proxy(operator_kubeconfig: Path, tmp_path: Path) -> Iterator[Proxy]:
    """Between the operator and the API server."""
    with Proxy(operator_kubeconfig, tmp_path) as between:
        yield between


@pytest.fixture
def start(proxy: Proxy, namespace: str, tmp_path: Path) -> Iterator[Start]:
    """Starts an operator for the namespace, with these further arguments; all end with the test."""
    processes: list[OperatorProcess] = []

    def begin(*arguments: str, ready: bool = True) -> OperatorProcess:
        given = ("--namespace", namespace, "--inactivity", str(INACTIVITY_S), "--status-address", NOBODY, *arguments)
        processes.append(OperatorProcess(proxy.kubeconfig, tmp_path, *given))
        process = processes[-1].start()
        return process.ready() if ready else process

    yield begin
    for process in processes:
        if process.runs():
            assert process.stop() == 0, process.tail()


@pytest.fixture
def operator(start: Start, kuberay: KubeRay) -> OperatorProcess:
    """One operator, ready."""
    return start()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first of these tests brings up an API server, and some start a dozen processes."""
    for item in items:
        if "tests/kube/operator" in str(item.path):
            item.add_marker(pytest.mark.timeout(400))
