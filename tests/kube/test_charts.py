"""The charts on a real API server: installed, upgraded, rolled back, uninstalled; Pod Security; what is left behind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.render import OPERATOR, STACK, HelmError, Values, only, rendered, run
from tests.charts.test_operator_chart import COMBINATIONS
from tests.charts.test_stack_chart import COMBINATIONS as STACKS
from tests.charts.test_stack_chart import EXAMPLE
from tests.kube import monitoring
from tests.kube.cluster import ApiServer

CRD = "trainingstacks.twinkle.dev"
OURS = "app.kubernetes.io/name in (twinkle-operator, training-stack)"
Helm = Callable[..., str]


@pytest.fixture
def on_server(helm: Path, api_server: ApiServer) -> Helm:
    """Runs helm against the API server."""
    return lambda *arguments, values=None: run(helm, *arguments, values=values, kubeconfig=api_server.admin)


@pytest.fixture
def crd(api_server: ApiServer) -> None:
    """The CRD, as it is before the charts come: the release of the operator may take it over."""
    api_server.install_crds(OPERATOR / "files" / f"{CRD}.yaml")


@pytest.fixture(scope="session")
def monitoring_crds(api_server: ApiServer) -> None:
    """Those of Prometheus' operator, Established."""
    files = monitoring.crds()
    if files is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "no Go to fetch the CRDs of Prometheus' operator"
        )
    for file in files:
        api_server.install_crds(file)


def left(api_server: ApiServer) -> set[str]:
    """What has our labels or is a record of helm, as Kind/name; not what is being deleted."""
    kinds = api_server.kubectl("api-resources", "--verbs=list", "--output=name").split()
    wanted = ",".join(kind for kind in kinds if not kind.startswith(("events", "componentstatuses", "endpoints")))
    return {
        f"{each['kind']}/{each['metadata']['name']}"
        for what, selector in ((wanted, OURS), ("secrets", "owner=helm"))
        for each in json.loads(
            api_server.kubectl("get", what, "--all-namespaces", f"--selector={selector}", "--output=json")
        )["items"]
        if "deletionTimestamp" not in each["metadata"]
    }


def found(api_server: ApiServer, what: str, namespace: str) -> Any:
    return json.loads(api_server.kubectl("get", what, f"--namespace={namespace}", "--output=json"))


def test_the_life_of_the_operators_release(
    on_server: Helm, api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    """An older CRD is upgraded; a rollback brings the former values; in the end the CRD and its stacks are left."""
    older = _with_older_crd(tmp_path)
    where = f"--namespace={namespace}"

    on_server(
        "install", "op", str(older), where, "--take-ownership", "--force-conflicts", values={"podLabels": {"try": "1"}}
    )
    before = api_server.kubectl(
        "get", "crd", CRD, "--output=jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}"
    )
    on_server("upgrade", "op", str(OPERATOR), where, values={"podLabels": {"try": "2"}})
    after = api_server.kubectl(
        "get", "crd", CRD, "--output=jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}"
    )
    upgraded = found(api_server, "deployment/op-twinkle-operator", namespace)
    on_server("rollback", "op", "1", where)
    back = found(api_server, "deployment/op-twinkle-operator", namespace)

    assert (before.split(), after.split()) == (["Ready"], ["Ready", "Queue", "Samplers", "Step", "Reason", "Age"])
    assert upgraded["spec"]["template"]["metadata"]["labels"]["try"] == "2"
    assert back["spec"]["template"]["metadata"]["labels"]["try"] == "1"

    on_server("upgrade", "op", str(OPERATOR), where)
    api_server.kubectl("apply", where, "--filename=-", stdin=_a_stack(on_server))
    on_server("uninstall", "op", where)

    assert left(api_server) == {f"CustomResourceDefinition/{CRD}", "TrainingStack/kept"}

    on_server("install", "op", str(OPERATOR), where)
    assert api_server.kubectl("get", "tstack", where, "--output=name").split() == ["trainingstack.twinkle.dev/kept"]
    api_server.kubectl("delete", "tstack", "kept", where)
    on_server("uninstall", "op", where)


def _with_older_crd(folder: Path) -> Path:
    chart = folder / "older"
    shutil.copytree(OPERATOR, chart)
    file = chart / "files" / f"{CRD}.yaml"
    content = yaml.safe_load(file.read_text())
    version = content["spec"]["versions"][0]
    version["additionalPrinterColumns"] = version["additionalPrinterColumns"][:1]
    file.write_text(yaml.safe_dump(content))
    return chart


def _a_stack(on_server: Helm) -> str:
    text = on_server("template", "kept", str(STACK), "--show-only=templates/trainingstack.yaml")
    manifest = yaml.safe_load(text)
    manifest["metadata"].pop("namespace")
    return json.dumps(manifest)


@pytest.mark.parametrize("kind", ["defaults", "namespaces", "monitored", "monitored in namespaces"])
def test_a_release_installs_and_leaves_nothing(
    on_server: Helm,
    api_server: ApiServer,
    crd: None,
    monitoring_crds: None,
    new_namespace: Callable[[], str],
    kind: str,
) -> None:
    values = COMBINATIONS[kind]
    namespace, named = new_namespace(), [new_namespace() for _ in values.get("watchNamespaces", ())]
    values = {**values, "watchNamespaces": named, "crd": {"install": False}}

    notes = on_server("install", "op", str(OPERATOR), f"--namespace={namespace}", values=values)
    made = left(api_server)
    on_server("uninstall", "op", f"--namespace={namespace}")

    assert f"Deployment/{values.get('fullnameOverride', 'op-twinkle-operator')}" in made
    assert f"helm test op --namespace {namespace}" in notes
    assert left(api_server) - {f"CustomResourceDefinition/{CRD}"} == set()


@pytest.mark.parametrize("values", STACKS.values(), ids=STACKS)
def test_the_life_of_a_stacks_release(
    on_server: Helm, api_server: ApiServer, crd: None, monitoring_crds: None, namespace: str, values: Values
) -> None:
    where = f"--namespace={namespace}"

    notes = on_server("install", "demo", str(STACK), where, values=values)
    on_server("upgrade", "demo", str(STACK), where, "--set=spec.suspend=true", values=values)
    suspended = found(api_server, "tstack/demo", namespace)["spec"]["suspend"]
    on_server("rollback", "demo", "1", where)
    running = found(api_server, "tstack/demo", namespace)["spec"]["suspend"]
    on_server("uninstall", "demo", where)
    kept = left(api_server) - {f"CustomResourceDefinition/{CRD}"}
    api_server.kubectl("delete", "pvc", "--all", where, "--wait=false")

    assert (suspended, running) == (True, False)
    assert f"kubectl get tstack demo --namespace {namespace} --watch" in notes
    assert ("begins again and its results are gone" in notes) is (values.get("volume") == {"create": False})
    volume = {"create": True, "keep": True} | values.get("volume", {})
    assert kept == ({"PersistentVolumeClaim/demo-runs"} if volume["create"] and volume["keep"] else set())


def test_the_example_of_the_readme_is_taken(
    on_server: Helm, api_server: ApiServer, crd: None, monitoring_crds: None, namespace: str
) -> None:
    on_server("install", "demo", str(STACK), f"--namespace={namespace}", values=EXAMPLE)
    spec = found(api_server, "tstack/demo", namespace)["spec"]
    on_server("uninstall", "demo", f"--namespace={namespace}")

    assert spec["deviceGroups"][0]["mesh"].items() >= {"dp": 2, "tp": 2}.items()
    assert spec["run"]["volume"]["claimName"] == "demo-runs"


def test_what_the_crd_refuses_the_chart_does_not_hide(on_server: Helm, crd: None, namespace: str) -> None:
    with pytest.raises(HelmError, match="trainer"):
        on_server(
            "install", "demo", str(STACK), f"--namespace={namespace}",
            values={"spec": {"deviceGroups": [{"name": name, "role": "trainer"} for name in "ab"]}},
        )  # fmt: skip


@pytest.mark.parametrize("chart", [OPERATOR, STACK])
def test_every_pod_is_restricted(helm: Path, api_server: ApiServer, namespace: str, chart: Path) -> None:
    """By the real admission plugin; the same pod without one of the settings is refused."""
    api_server.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    manifests = rendered(helm, chart)
    specs = [only(manifests, "Pod")["spec"]]
    if chart == OPERATOR:
        specs.append(only(manifests, "Deployment")["spec"]["template"]["spec"])

    for spec in specs:
        assert "created" in _dry_run(api_server, namespace, spec)
        (container,) = spec["containers"]
        loose = {**container, "securityContext": container["securityContext"] | {"allowPrivilegeEscalation": True}}
        assert "violates PodSecurity" in _dry_run(api_server, namespace, {**spec, "containers": [loose]}, fails=True)


def _dry_run(api_server: ApiServer, namespace: str, spec: dict[str, Any], *, fails: bool = False) -> str:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "try"},
        "spec": {**spec, "serviceAccountName": "default"},
    }
    arguments = ("create", f"--namespace={namespace}", "--dry-run=server", "--filename=-")
    return api_server.kubectl(*arguments, stdin=json.dumps(pod), fails=fails)


def test_the_roles_for_people(on_server: Helm, api_server: ApiServer, crd: None, namespace: str) -> None:
    on_server("install", "op", str(OPERATOR), f"--namespace={namespace}", "--set=crd.install=false")
    may: dict[str, set[str]] = {}
    for role in ("viewer", "editor", "admin"):
        name = f"{namespace}:op-twinkle-operator-{role}"
        api_server.kubectl(
            "create", "rolebinding", role, f"--namespace={namespace}", f"--clusterrole={name}", f"--user={role}"
        )
        may[role] = {verb for verb in ("get", "create", "deletecollection") if _may(api_server, namespace, role, verb)}
    on_server("uninstall", "op", f"--namespace={namespace}")

    assert may == {
        "viewer": {"get"},
        "editor": {"get", "create"},
        "admin": {"get", "create", "deletecollection"},
    }


def _may(api_server: ApiServer, namespace: str, user: str, verb: str) -> bool:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "resourceAttributes": {
                "namespace": namespace, "verb": verb, "group": "twinkle.dev", "resource": "trainingstacks",
            },
        },
    }  # fmt: skip
    answer = api_server.kubectl("create", "--filename=-", "--output=json", stdin=json.dumps(review))
    return bool(json.loads(answer)["status"]["allowed"])
