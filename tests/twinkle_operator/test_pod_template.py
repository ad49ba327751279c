from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from twinkle_operator import pod_template
from twinkle_operator.merging import copy, under
from twinkle_operator.spec import Spec

FIELDS = st.sampled_from(["name", "spec", "containers", "env", "labels", "metadata", "volumeMounts", "volumes",
                          "resources", "limits", "ports", "mountPath"])  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
TEMPLATES = st.none() | st.dictionaries(st.sampled_from(["metadata", "spec"]), JSON)


def spec_of(**parts: Any) -> Spec:
    groups = [
        {"name": "s", "role": "sampler", "deviceType": "cuda", "podTemplate": parts.pop("worker", None)},
        {"name": "t", "role": "trainer"},
    ]
    run = {"experiment": "quickstart", "volume": parts.pop("volume", None)}
    return msgspec.convert({"deviceGroups": groups, "run": run, "image": "twinkle:1", **parts}, Spec)


def head(**parts: Any) -> dict[str, Any]:
    return pod_template.head(spec_of(**parts), "demo")


@settings(max_examples=150, deadline=None)
@given(TEMPLATES, st.none() | st.dictionaries(st.sampled_from(["env", "volumes", "containers", "tolerations"]), JSON))
def test_whatever_a_person_writes_nothing_raises_or_is_changed(
    template: dict[str, Any] | None, defaults: dict[str, Any] | None
) -> None:
    spec = spec_of(head={"podTemplate": template}, worker=template, podDefaults=defaults)
    before = msgspec.json.encode(spec)
    pod_template.head(spec, "demo")
    pod_template.submitter(spec, "demo")
    for group in spec.device_groups:
        pod_template.worker(spec, group, "demo")

    assert msgspec.json.encode(spec) == before


@given(JSON)
def test_nothing_under_a_value_is_the_value(value: Any) -> None:
    assert under(value, copy(value)) == value
    assert under({}, {"a": value}) == {"a": value}


def test_a_template_wins_over_defaults_and_keeps_what_it_lacks() -> None:
    defaults = {
        "env": [{"name": "A", "value": "default"}, {"name": "B", "value": "default"}],
        "nodeSelector": {"pool": "default", "zone": "default"},
        "tolerations": [{"key": "gpu"}],
    }
    container = {"name": "mine", "image": "own:1", "env": [{"name": "A", "value": "own"}]}
    pod = {"containers": [container], "nodeSelector": {"pool": "own"}}
    made = head(podDefaults=defaults, head={"podTemplate": {"spec": pod}})["spec"]
    env = {each["name"]: each["value"] for each in made["containers"][0]["env"]}

    assert (made["containers"][0]["name"], made["containers"][0]["image"]) == ("mine", "own:1")
    assert env == {"A": "own", "B": "default", "RAY_JOB_STOP_WAIT_TIME_S": "25"}
    assert made["nodeSelector"] == {"pool": "own", "zone": "default"}
    assert made["tolerations"] == [{"key": "gpu"}]
    assert "securityContext" not in made


def test_a_pull_policy_of_the_defaults_is_that_of_container_0() -> None:
    made = head(podDefaults={"imagePullPolicy": "Never"}, head={"podTemplate": {"spec": {"containers": [
        {"name": "ray"}, {"name": "beside"}]}}})["spec"]  # fmt: skip

    assert [each.get("imagePullPolicy") for each in made["containers"]] == ["Never", None]
    assert "imagePullPolicy" not in made


def test_the_stop_wait_is_the_operators() -> None:
    container = {"name": "ray", "env": [{"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "600"}]}
    made = head(head={"podTemplate": {"spec": {"containers": [container]}}})

    assert made["spec"]["containers"][0]["env"] == [{"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "25"}]


def test_the_head_alone_mounts_the_runs_unless_they_are_shared() -> None:
    for shared in (False, True):
        spec = spec_of(volume={"claimName": "runs", "path": "/data", "shared": shared})
        mounted = {
            name: [each["mountPath"] for each in template["spec"]["containers"][0].get("volumeMounts", [])]
            for name, template in (
                ("head", pod_template.head(spec, "demo")),
                *((group.name, pod_template.worker(spec, group, "demo")) for group in spec.device_groups),
            )
        }

        assert mounted["head"] == ["/data", "/var/lib/twinkle/journal"]
        assert (mounted["s"], mounted["t"]) == ([], ["/data"] if shared else [])


def test_a_volume_of_ones_own_at_the_place_of_the_runs_is_kept() -> None:
    container = {"name": "ray", "volumeMounts": [{"name": "mine", "mountPath": "/runs"}]}
    pod = {"containers": [container], "volumes": [{"name": "mine", "emptyDir": {}}]}
    made = head(head={"podTemplate": {"spec": pod}})["spec"]

    assert [each["name"] for each in made["volumes"]] == ["mine", "twinkle-journal"]


def test_models_are_mounted_read_only_everywhere() -> None:
    spec = spec_of(modelCache={"claimName": "models", "path": "/cache"})
    for template in (pod_template.head(spec, "demo"), pod_template.worker(spec, spec.device_groups[0], "demo")):
        (container,) = template["spec"]["containers"]

        assert {"name": "twinkle-models", "mountPath": "/cache", "readOnly": True} in container["volumeMounts"]
        assert {"name": "HF_HOME", "value": "/cache/huggingface"} in container["env"]


def test_labels_of_another_stack_are_overwritten() -> None:
    made = head(head={"podTemplate": {"metadata": {"labels": {"twinkle.dev/stack": "other", "team": "rl"}}}})

    assert made["metadata"]["labels"] == {"twinkle.dev/stack": "demo", "team": "rl"}


def test_a_limit_of_nvidias_is_not_doubled() -> None:
    for limits in ({"nvidia.com/gpu": "1"}, {"nvidia.com/mig-1g.5gb": 1}):
        container = {"name": "ray", "resources": {"limits": limits}}
        spec = spec_of(worker={"spec": {"containers": [container]}})
        made = pod_template.worker(spec, spec.device_groups[0], "demo")

        assert made["spec"]["containers"][0]["resources"]["limits"] == limits


def test_the_submitter_has_the_heads_place_and_none_of_its_secrets() -> None:
    defaults = {
        "imagePullSecrets": [{"name": "pull"}],
        "envFrom": [{"secretRef": {"name": "hub"}}],
        "securityContext": {"runAsNonRoot": True},
    }
    made = pod_template.submitter(spec_of(podDefaults=defaults), "demo")["spec"]

    assert (made["imagePullSecrets"], made["securityContext"]) == ([{"name": "pull"}], {"runAsNonRoot": True})
    assert made["containers"][0]["image"] == "twinkle:1"
    assert "envFrom" not in made["containers"][0]
    assert made["automountServiceAccountToken"] is False
