"""Typos inside what the CRD keeps as it is."""

from typing import Any

import pytest
from hypothesis import given

from tests.kube.specs import specs
from twinkle_operator.validate.pod_specs import problems


def said(**spec: Any) -> list[str]:
    return [f"{problem.where.removeprefix('spec.')}: {problem.message}" for problem in problems(spec)]


def in_head(**pod: Any) -> list[str]:
    found = said(head={"podTemplate": {"spec": pod}})
    return [each.removeprefix("head.podTemplate.spec.") for each in found]


@given(specs())
def test_valid_templates_are_valid(spec: dict[str, Any]) -> None:
    assert list(problems(spec)) == []


@pytest.mark.parametrize(
    ("pod", "sentence"),
    [
        ({"contaners": []}, "contaners: unknown field; did you mean containers?"),
        ({"containers": [{"name": "ray", "imagePullPolice": "Always"}]},
         "containers[0].imagePullPolice: unknown field; did you mean imagePullPolicy?"),
        ({"containers": [{"name": "ray", "env": [{"name": "A", "value": 1}]}]},
         "containers[0].env[0].value: must be text (quote it), not 1"),
        ({"containers": [{"name": "ray", "env": {"A": "1"}}]}, "containers[0].env: must be a list, not {'A': '1'}"),
        ({"volumes": [{"emptyDir": {}}]}, "volumes[0].name: Required value. Volume needs it"),
        ({"nodeSelector": {"pool": True}}, "nodeSelector.pool: must be text (quote it), not True"),
        ({"nodeSelector": ["pool"]}, "nodeSelector: must be a mapping, not ['pool']"),
        ({"hostNetwork": "yes"}, "hostNetwork: must be true or false, not 'yes'"),
        ({"terminationGracePeriodSeconds": "30"}, "terminationGracePeriodSeconds: must be an integer, not '30'"),
        ({"securityContext": 3}, "securityContext: must be a mapping, not 3"),
    ],
)  # fmt: skip
def test_one_thing_is_wrong(pod: dict[str, Any], sentence: str) -> None:
    assert in_head(**pod) == [sentence]


@pytest.mark.parametrize(
    ("pod", "sentence"),
    [
        ({"containers": [{"name": "ray", "imagePullPolicy": "Sometimes"}]},
         'containers[0].imagePullPolicy: "Sometimes" is unknown; choose one of: Always, IfNotPresent, Never'),
        ({"containers": [{"name": "ray", "ports": [{"containerPort": 80, "protocol": "HTTP"}]}]},
         'containers[0].ports[0].protocol: "HTTP" is unknown; choose one of: TCP, UDP, SCTP'),
        ({"restartPolicy": "always"}, 'restartPolicy: "always" is unknown; choose one of: Always, OnFailure, Never'),
    ],
)  # fmt: skip
def test_words_that_the_api_server_does_not_know(pod: dict[str, Any], sentence: str) -> None:
    assert in_head(**pod) == [sentence]


def test_defaults_are_words_too() -> None:
    assert said(podDefaults={"imagePullPolicy": "Sometimes", "dnsPolicy": ""}) == [
        'podDefaults.imagePullPolicy: "Sometimes" is unknown; choose one of: Always, IfNotPresent, Never'
    ]


@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_a_mount_needs_its_volume(kind: str) -> None:
    mounted = {kind: [{"name": "ray", "volumeMounts": [{"name": "cach", "mountPath": "/cache"}]}]}
    template = {"podTemplate": {"spec": mounted | {"volumes": [{"name": "cache", "emptyDir": {}}]}}}

    where = f"deviceGroups[0].podTemplate.spec.{kind}[0].volumeMounts[0].name"
    assert said(deviceGroups=[template]) == [f"{where}: no volume is called 'cach'; did you mean cache?"]
    assert said(deviceGroups=[template], podDefaults={"volumes": [{"name": "cach", "emptyDir": {}}]}) == []


def test_a_mount_may_be_of_a_volume_that_the_operator_makes() -> None:
    beside = {"name": "beside", "volumeMounts": [{"name": "twinkle-runs", "mountPath": "/runs", "readOnly": True}]}

    assert in_head(containers=[{"name": "ray"}, beside]) == []


def test_quantities_ports_and_probes_may_be_numbers_or_text() -> None:
    container = {
        "name": "ray",
        "resources": {"limits": {"cpu": 2, "memory": "4Gi"}},
        "ports": [{"containerPort": 80}],
        "livenessProbe": {"exec": {"command": ["true"]}},
        "readinessProbe": {"httpGet": {"port": "http", "path": "/"}},
    }

    assert in_head(containers=[container], volumes=[{"name": "v", "emptyDir": {"sizeLimit": 1024}}]) == []


def test_a_template_may_leave_to_the_operator_what_it_fills_in() -> None:
    assert said(head={"podTemplate": {"metadata": {"labels": {"a": "b"}}}}, deviceGroups=[{"podTemplate": {}}]) == []


def test_groups_defaults_and_egress_are_looked_at() -> None:
    assert said(deviceGroups=[{}, {"podTemplate": {"specs": {}}}]) == [
        "deviceGroups[1].podTemplate.specs: unknown field; did you mean spec?"
    ]
    assert said(networkPolicy={"egress": [{"port": []}]}) == [
        "networkPolicy.egress[0].port: unknown field; did you mean ports?"
    ]
    defaults = {"envFrom": [{"secretRef": {"name": "hub"}}], "env": [{"value": "x"}], "imagePullPolicy": "Never"}
    assert said(podDefaults=defaults) == ["podDefaults.env[0].name: Required value. EnvVar needs it"]


def test_defaults_have_no_containers() -> None:
    (sentence,) = said(podDefaults={"containers": [{"name": "ray"}], "nodeSelector": {"a": "b"}})

    assert sentence.startswith("podDefaults.containers: podDefaults has no containers")
