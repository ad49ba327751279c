"""What twinkle-operator renders for many values: valid for each Kubernetes, no right too many, typos refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.render import OPERATOR, HelmError, Values, kinds, only, rendered, run, validate
from twinkle_operator import main, permissions
from twinkle_operator.crd import definition
from twinkle_operator.pod_template import HEAD_PORTS
from twinkle_operator.settings import Settings
from twinkle_operator.words import STATUS_PORT

pytestmark = pytest.mark.kube

MONITORED = {
    "monitor": "PodMonitor",
    "stacks": True,
    "labels": {"release": "prometheus"},
    "alerts": {"enabled": True},
    "dashboards": {"enabled": True, "annotations": {"folder": "Twinkle"}},
}
COMBINATIONS: dict[str, Values] = {
    "defaults": {},
    "namespaces": {"watchNamespaces": ["a", "b", "a"], "rbac": {"aggregate": False}, "crd": {"install": False}},
    "monitored": {"monitoring": MONITORED},
    "monitored in namespaces": {"watchNamespaces": ["a"], "monitoring": MONITORED | {"monitor": "ServiceMonitor"}},
    "placed": {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "podLabels": {"team": "rl"},
        "podAnnotations": {"note": "1"},
    },
    "own account": {
        "serviceAccount": {"create": False, "name": "given"},
        "rbac": {"create": False},
        "networkPolicy": {"enabled": False},
        "imagePullSecrets": [{"name": "registry"}],
        "image": {"repository": "registry.example/twinkle", "digest": f"sha256:{'0' * 64}", "pullPolicy": "Always"},
    },
    "drains wait": {"podDisruptionBudget": {"enabled": True, "maxUnavailable": 0}, "fullnameOverride": "op"},
}


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_manifests_are_valid_for_every_kubernetes(helm: Path, values: Values) -> None:
    validate(rendered(helm, OPERATOR, values))


def test_lint_finds_nothing(helm: Path) -> None:
    run(helm, "lint", "--strict", str(OPERATOR))


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"watchNamespace": ["a"]}, "watchNamespace"),
        ({"watchNamespaces": "a"}, "watchNamespaces"),
        ({"watchNamespaces": ["A_b"]}, "watchNamespaces/0"),
        ({"image": {"tags": "1"}}, "tags"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"resources": {"request": {}}}, "request"),
        ({"monitoring": {"monitor": "podmonitor"}}, "monitor"),
        ({"monitoring": {"interval": "30"}}, "interval"),
        ({"monitoring": {"alerts": {"for": {"StackFailled": "1h"}}}}, "StackFailled"),
        ({"monitoring": {"alerts": {"disabled": ["Nothing"]}}}, "disabled/0"),
        ({"networkPolicy": {"apiServerPorts": []}}, "apiServerPorts"),
        ({"tolerations": [{"keys": "a"}]}, "keys"),
    ],
)
def test_typos_are_refused(helm: Path, values: Values, word: str) -> None:
    with pytest.raises(HelmError, match=word):
        rendered(helm, OPERATOR, values)


def test_an_account_that_is_not_made_needs_a_name(helm: Path) -> None:
    with pytest.raises(HelmError, match=r"serviceAccount\.name must be given"):
        rendered(helm, OPERATOR, {"serviceAccount": {"create": False}})


def test_older_kubernetes_is_refused(helm: Path) -> None:
    with pytest.raises(HelmError, match=r">=1\.31"):
        rendered(helm, OPERATOR, None, "--kube-version=1.30.9")

    assert rendered(helm, OPERATOR, None, "--kube-version=1.31.0-eks-1")


def test_the_crd_is_the_file_and_stays(helm: Path) -> None:
    made = only(rendered(helm, OPERATOR), "CustomResourceDefinition")

    assert made["spec"] == definition()["spec"]
    assert made["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "CustomResourceDefinition" not in kinds(rendered(helm, OPERATOR, {"crd": {"install": False}}))


def test_rights_are_those_of_the_operator_in_the_cluster_or_in_the_namespaces_named(helm: Path) -> None:
    everywhere = only(rendered(helm, OPERATOR), "ClusterRole", "twinkle-system:twinkle-twinkle-operator")
    named = rendered(helm, OPERATOR, {"watchNamespaces": ["a", "b", "a"], "rbac": {"aggregate": False}})
    roles = [each for each in named if each["kind"] == "Role"]
    bindings = [each for each in named if each["kind"] == "RoleBinding"]

    assert everywhere["rules"] == permissions.manifest()
    assert [each["metadata"]["namespace"] for each in roles] == ["a", "b"]
    assert [each["metadata"]["namespace"] for each in bindings] == ["a", "b"]
    assert all(each["rules"] == permissions.manifest() for each in roles)
    assert {each["subjects"][0]["namespace"] for each in bindings} == {"twinkle-system"}
    assert not kinds(named) & {"ClusterRole", "ClusterRoleBinding"}


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_no_rule_has_a_wildcard_or_reads_secrets(helm: Path, values: Values) -> None:
    for role in rendered(helm, OPERATOR, values):
        for rule in role.get("rules", ()) if "Role" in role["kind"] else ():
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], role["metadata"]["name"]
            assert "secrets" not in rule["resources"], role["metadata"]["name"]


def test_people_get_rights_through_the_clusters_own_roles(helm: Path) -> None:
    manifests = rendered(helm, OPERATOR)
    verbs = {}
    for role, name in {"view": "viewer", "edit": "editor", "admin": "admin"}.items():
        found = only(manifests, "ClusterRole", f"twinkle-system:twinkle-twinkle-operator-{name}")
        assert found["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{role}"] == "true"
        verbs[role] = set(found["rules"][0]["verbs"])

    assert verbs["view"] == {"get", "list", "watch"}
    assert verbs["edit"] == verbs["view"] | {"create", "update", "patch", "delete"}
    assert verbs["admin"] == verbs["edit"] | {"deletecollection"}


def test_the_operator_reaches_and_is_reached_by_what_it_needs_alone(helm: Path) -> None:
    values = {
        "watchNamespaces": ["a"],
        "monitoring": {"namespace": "prom"},
        "networkPolicy": {"apiServerPorts": [8443]},
    }
    manifests = rendered(helm, OPERATOR, values)
    policy = only(manifests, "NetworkPolicy")["spec"]
    pod = only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    test = only(manifests, "Pod")["metadata"]["labels"]
    (ingress,), (_, api, stacks) = policy["ingress"], policy["egress"]

    assert policy["podSelector"]["matchLabels"].items() <= pod.items()
    assert ingress["from"][0]["podSelector"]["matchLabels"].items() <= test.items()
    assert ingress["from"][1] == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "prom"}}}
    assert api == {"ports": [{"port": 8443, "protocol": "TCP"}]}
    assert stacks["ports"] == [{"port": 9400, "protocol": "TCP"}]
    assert stacks["to"][0]["namespaceSelector"]["matchExpressions"][0]["values"] == ["a"]


def test_the_process_gets_the_arguments_that_it_takes(helm: Path) -> None:
    values = {"watchNamespaces": ["a", "b"], "kuberay": {"namespace": "k"}, "monitoring": {"namespace": "p"}}
    manifests = rendered(helm, OPERATOR, values)
    (container,) = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    chosen, said = main.options(container["args"])

    assert chosen.namespaces == ("a", "b")
    assert chosen.settings == Settings(
        kuberay_namespace="k", operator_namespace="twinkle-system", prometheus_namespace="p"
    )
    assert (said.log_format, said.log_level) == ("json", "INFO")
    assert container["ports"] == [{"name": "http", "containerPort": chosen.port}]
    assert only(manifests, "Service")["spec"]["ports"][0]["port"] == chosen.port


def test_the_port_of_stacks_is_the_heads(helm: Path) -> None:
    """Its number in the operator's NetworkPolicy, its name in the monitors."""
    (port,) = [each for each in HEAD_PORTS if each["containerPort"] == STATUS_PORT]
    monitor = only(rendered(helm, OPERATOR, {"monitoring": {"stacks": True}}), "PodMonitor")
    policy = only(rendered(helm, OPERATOR), "NetworkPolicy")

    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == port["name"]
    assert policy["spec"]["egress"][2]["ports"] == [{"port": STATUS_PORT, "protocol": "TCP"}]


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget", "PodMonitor", "NetworkPolicy"])
def test_selectors_find_the_operators_pod_and_not_the_tests(helm: Path, kind: str) -> None:
    values = {"monitoring": {"monitor": "PodMonitor"}, "podDisruptionBudget": {"enabled": True}}
    manifests = rendered(helm, OPERATOR, values)
    spec = only(manifests, kind)["spec"]
    wanted = spec.get("podSelector") or spec["selector"]
    wanted = wanted.get("matchLabels", wanted)

    assert wanted.items() <= only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    assert not wanted.items() <= only(manifests, "Pod")["metadata"]["labels"].items()


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
def test_a_monitor_keeps_the_namespaces_of_the_stacks(helm: Path, kind: str) -> None:
    manifests = rendered(helm, OPERATOR, {"monitoring": {"monitor": kind, "labels": {"release": "p"}}})
    monitor = only(manifests, kind)
    (endpoint,) = monitor["spec"].get("podMetricsEndpoints") or monitor["spec"]["endpoints"]

    assert endpoint["honorLabels"]
    assert monitor["metadata"]["labels"]["release"] == "p"
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= only(manifests, "Service")["metadata"]["labels"].items()
    )


def test_alerts_are_the_files_with_the_wishes_of_the_values(helm: Path) -> None:
    wish = {"enabled": True, "for": {"StackFailed": "9m"}, "disabled": ["StackQueueNotReady"], "labels": {"team": "rl"}}
    spec = only(rendered(helm, OPERATOR, {"monitoring": {"alerts": wish}}), "PrometheusRule")["spec"]
    of_file = yaml.safe_load((OPERATOR / "files" / "alerts.yaml").read_text())

    made = {rule["alert"]: rule for group in spec["groups"] for rule in group["rules"]}
    plain = {rule["alert"]: rule for group in of_file["groups"] for rule in group["rules"]}

    assert made.keys() == plain.keys() - {"StackQueueNotReady"}
    for name, rule in made.items():
        changed: dict[str, Any] = {"labels": plain[name]["labels"] | {"team": "rl"}}
        assert rule == plain[name] | changed | ({"for": "9m"} if name == "StackFailed" else {})


def test_the_schema_knows_every_alert() -> None:
    schema = json.loads((OPERATOR / "values.schema.json").read_text())
    groups = yaml.safe_load((OPERATOR / "files" / "alerts.yaml").read_text())["groups"]

    alerts = [rule["alert"] for group in groups for rule in group["rules"]]

    assert schema["$defs"]["alert"]["enum"] == alerts
    assert list(_properties(schema, "monitoring", "alerts", "for")) == alerts


def _properties(schema: dict[str, Any], *path: str) -> dict[str, Any]:
    for name in path:
        schema = schema["properties"][name]
    return dict(schema["properties"])


def test_dashboards_arrive_whole(helm: Path) -> None:
    manifests = rendered(helm, OPERATOR, {"monitoring": {"dashboards": {"enabled": True}}})
    files = {each.name: each.read_text() for each in (OPERATOR / "files" / "dashboards").iterdir()}
    maps = [each for each in manifests if each["kind"] == "ConfigMap"]

    assert {name: text for each in maps for name, text in each["data"].items()} == {
        name: text.rstrip("\n") for name, text in files.items()
    }
    assert all(each["metadata"]["labels"]["grafana_dashboard"] == "1" for each in maps)


def test_names_fit_whatever_the_release_is_called(helm: Path) -> None:
    long = "a" * 53
    text = run(helm, "template", long, str(OPERATOR), "--set=monitoring.dashboards.enabled=true")

    assert all(
        len(each["metadata"]["name"]) <= 63 for each in yaml.safe_load_all(text) if each["kind"] != "ClusterRole"
    )
