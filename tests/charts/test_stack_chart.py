"""What training-stack renders: one TrainingStack as written in `spec`, its volume and its monitoring; typos refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml

from tests.charts.render import STACK, HelmError, Values, kinds, only, rendered, run, validate
from twinkle.entrypoints.stack_overrides import refused
from twinkle_operator.commands.validate import validate as validate_files
from twinkle_operator.pod_template import HEAD_PORTS, head, submitter, worker
from twinkle_operator.spec import Spec
from twinkle_operator.words import STATUS_PORT

pytestmark = pytest.mark.kube

GPU = {
    "image": "registry.example/twinkle:1",
    "model": "hf://org/name",
    "deviceGroups": [
        {"name": "s", "role": "sampler", "engine": "vllm", "deviceType": "cuda", "mesh": {"dp": 2, "tp": 2}},
        {
            "name": "t",
            "role": "trainer",
            "deviceType": "cuda",
            "podTemplate": {"spec": {"nodeSelector": {"gpu": "yes"}}},
        },
    ],
    "run": {"experiment": "jsonl", "overrides": ["loop.steps=5"], "volume": {"path": "/out"}},
}
EXAMPLE = yaml.safe_load((STACK / "README.md").read_text().partition("```yaml\n")[2].partition("```")[0])
COMBINATIONS: dict[str, Values] = {
    "defaults": {},
    "gpu": {"spec": GPU, "volume": {"storageClassName": "fast", "accessModes": ["ReadWriteMany"], "keep": False}},
    "no volume": {"volume": {"create": False}, "kueue": {"queueName": "gpus"}, "labels": {"team": "rl"}},
    "monitored": {"serviceMonitor": {"enabled": True, "labels": {"release": "p"}}, "annotations": {"note": "1"}},
}


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_manifests_are_valid_for_every_kubernetes(helm: Path, values: Values) -> None:
    validate(rendered(helm, STACK, values))


def test_lint_finds_nothing(helm: Path) -> None:
    run(helm, "lint", "--strict", str(STACK))


def test_the_spec_is_what_was_written_and_the_claim(helm: Path) -> None:
    stack = only(rendered(helm, STACK, {"spec": GPU}), "TrainingStack")

    assert stack["metadata"]["name"] == "twinkle"
    assert stack["spec"]["deviceGroups"] == GPU["deviceGroups"]
    assert stack["spec"]["image"] == "registry.example/twinkle:1"
    assert stack["spec"]["run"] == GPU["run"] | {"volume": {"path": "/out", "claimName": "twinkle-runs"}}


@pytest.mark.parametrize("values", [{}, EXAMPLE], ids=["defaults", "README"])
def test_twinkle_validate_finds_nothing(helm: Path, tmp_path: Path, values: Values) -> None:
    file = tmp_path / "stack.yaml"
    file.write_text(yaml.safe_dump(only(rendered(helm, STACK, values), "TrainingStack")))

    assert validate_files([str(file)], None, refused) == 0


def test_the_image_is_the_charts_version_of_the_repository(helm: Path) -> None:
    for image, made in (({}, "twinkle:0.1.0"), ({"repository": "r.example/t", "tag": "x"}, "r.example/t:x")):
        assert only(rendered(helm, STACK, {"image": image}), "TrainingStack")["spec"]["image"] == made


def test_a_pull_policy_reaches_every_pod_and_the_test(helm: Path) -> None:
    manifests = rendered(helm, STACK, {"imagePullPolicy": "Never"})
    spec = msgspec.convert(only(manifests, "TrainingStack")["spec"], Spec)
    pods = [head(spec, "t"), submitter(spec, "t"), *(worker(spec, group, "t") for group in spec.device_groups)]

    assert spec.pod_defaults == {"securityContext": {"fsGroup": 1000}, "imagePullPolicy": "Never"}
    assert {each["spec"]["containers"][0]["imagePullPolicy"] for each in pods} == {"Never"}
    assert only(manifests, "Pod")["spec"]["containers"][0]["imagePullPolicy"] == "Never"
    assert "imagePullPolicy" not in yaml.safe_dump(rendered(helm, STACK))


def test_the_volume_is_made_kept_or_left_to_others(helm: Path) -> None:
    made = rendered(helm, STACK)
    without = rendered(helm, STACK, {"volume": {"create": False}, "spec": {"run": {"volume": {"claimName": "mine"}}}})
    fleeting = rendered(helm, STACK, {"volume": {"keep": False}})

    assert only(made, "PersistentVolumeClaim")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in only(fleeting, "PersistentVolumeClaim")["metadata"]
    assert "PersistentVolumeClaim" not in kinds(without)
    assert only(without, "TrainingStack")["spec"]["run"]["volume"] == {"claimName": "mine"}


def test_two_claims_for_one_run_are_refused(helm: Path) -> None:
    with pytest.raises(HelmError, match=r"volume\.create=true makes another"):
        rendered(helm, STACK, {"spec": {"run": {"volume": {"claimName": "mine"}}}})


def test_kueue_reads_its_label(helm: Path) -> None:
    labels = only(rendered(helm, STACK, {"kueue": {"queueName": "gpus"}}), "TrainingStack")["metadata"]["labels"]

    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "kueue.x-k8s.io/queue-name" not in only(rendered(helm, STACK), "TrainingStack")["metadata"]["labels"]


def test_the_tests_account_reads_this_stack_alone(helm: Path) -> None:
    manifests = rendered(helm, STACK)

    assert only(manifests, "Role")["rules"] == [
        {"apiGroups": ["twinkle.dev"], "resources": ["trainingstacks"], "resourceNames": ["twinkle"], "verbs": ["get"]}
    ]
    assert only(manifests, "Pod")["spec"]["serviceAccountName"] == only(manifests, "ServiceAccount")["metadata"]["name"]
    assert (
        only(manifests, "RoleBinding")["subjects"][0]["name"] == only(manifests, "ServiceAccount")["metadata"]["name"]
    )


def test_the_monitor_finds_the_heads_service(helm: Path) -> None:
    """KubeRay labels the head's Service with the cluster, which is called as the stack is."""
    monitor = only(rendered(helm, STACK, {"serviceMonitor": {"enabled": True}}), "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]

    assert monitor["spec"]["selector"]["matchLabels"] == {"ray.io/cluster": "twinkle", "ray.io/node-type": "head"}
    assert endpoint["port"] in {each["name"] for each in HEAD_PORTS if each["containerPort"] == STATUS_PORT}
    assert endpoint["relabelings"] == [{"targetLabel": "stack", "replacement": "twinkle"}]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"specs": {}}, "specs"),
        ({"spec": {"deviceGroup": []}}, "deviceGroup"),
        ({"spec": {"deviceGroups": [{"name": "a", "roll": "sampler"}]}}, "roll"),
        ({"spec": {"deviceGroups": [{"name": "a", "role": "sampler"}]}}, "minItems"),
        ({"spec": {"controller": {"globalBatchSize": "8"}}}, "globalBatchSize"),
        ({"spec": {"run": {"volume": {"claim": "a"}}}}, "claim"),
        ({"volume": {"accessModes": ["ReadWriteTwice"]}}, "accessModes"),
        ({"imagePullPolicy": "Sometimes"}, "imagePullPolicy"),
        ({"name": "Upper"}, "name"),
        ({"name": "a" * 41}, "name"),
    ],
)
def test_typos_are_refused(helm: Path, values: Values, word: str) -> None:
    with pytest.raises(HelmError, match=word):
        rendered(helm, STACK, values)


@pytest.mark.parametrize("release", ["a" * 41, "1st", "a.b"])
def test_a_release_whose_name_no_stack_may_have_says_so(helm: Path, release: str) -> None:
    with pytest.raises(HelmError, match="a stack cannot be called"):
        run(helm, "template", release, str(STACK))

    assert run(helm, "template", release, str(STACK), "--set=name=short")
