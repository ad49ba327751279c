"""Fixtures of the tests against a real API server, all of them marked `kube`: `make test-kube` runs them."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes import client

from e2e import assets
from tests.kube.cluster import ApiServer

HERE = Path(__file__).parent
STACK_CRD = HERE.parents[1] / "charts/twinkle-operator/files/trainingstacks.twinkle.dev.yaml"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.kube)


def need(*names: str) -> None:
    """Skip the test if these programs are not there; under CI they must be."""
    missing = [name for name in assets.missing(names) if name in names]
    if missing:
        sentence = f"no {', '.join(missing)} (run 'make kube-assets', which needs Go, or set KUBEBUILDER_ASSETS)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(sentence)


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """The API server of this test process. A test that hurts it leaves it running and ready."""
    need("etcd", "kube-apiserver", "kubectl")
    with ApiServer() as server:
        yield server


@pytest.fixture(scope="session")
def kuberay_crds(api_server: ApiServer) -> None:
    """KubeRay's real CustomResourceDefinitions, Established on the API server."""
    need(assets.KUBERAY_MANIFESTS)
    api_server.install_crds(assets.kuberay() / "crd" / "bases")


@pytest.fixture(scope="session")
def stack_crd(api_server: ApiServer) -> None:
    """Our own CustomResourceDefinition, the committed file, Established on the API server."""
    api_server.install_crds(STACK_CRD)


@pytest.fixture(scope="session")
def helm() -> Path:
    """The program helm."""
    need("helm")
    return assets.program("helm")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus's checker of rules."""
    need(assets.PROMTOOL)
    return assets.program(assets.PROMTOOL)


@pytest.fixture(scope="session")
def new_namespace(api_server: ApiServer) -> Callable[[], str]:
    """Makes a namespace with a service account `default` at each call; returns its name."""
    core, numbers = client.CoreV1Api(api_server.client()), itertools.count()

    def make() -> str:
        name = f"test-{next(numbers)}"
        core.create_namespace({"metadata": {"name": name}})
        core.create_namespaced_service_account(name, {"metadata": {"name": "default"}})
        return name

    return make


@pytest.fixture
def namespace(new_namespace: Callable[[], str]) -> str:
    """A namespace that no other test uses."""
    return new_namespace()
