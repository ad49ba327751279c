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
