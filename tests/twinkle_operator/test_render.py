from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
from hypothesis import given, settings

from tests.kube.specs import stacks
from tests.twinkle_operator.observations import read
from twinkle_operator import render
from twinkle_operator.observed import Pod, Stack
from twinkle_operator.settings import Settings
from twinkle_operator.spec import Spec

HEAD = Pod(name="demo-head", uid="head-uid", group="head", restarts=2)
VERSIONS = ("1.31", "1.36")


def children(stack: Stack, spec: Spec) -> list[dict[str, Any]]:
    return [
        render.network_policy(stack, spec, Settings()),
        render.cluster(stack, spec),
        render.job(stack, spec, 12345, HEAD, "{}"),
    ]


@settings(max_examples=6, deadline=None)
@given(stacks())
def test_policies_and_pods_are_what_kubernetes_knows(stack: dict[str, Any]) -> None:
    given_ = read(stack)
    assert given_.spec is not None
    policy, cluster, job = children(given_, given_.spec)
    templates = [cluster["spec"]["headGroupSpec"]["template"], job["spec"]["submitterPodTemplate"]]
    templates += [group["template"] for group in cluster["spec"]["workerGroupSpecs"]]
    pods = [{"apiVersion": "v1", "kind": "Pod", **template} for template in templates]
    for manifest in (policy, *pods):
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def of(spec: dict[str, Any], **metadata: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    groups = [
        {"name": "sampler", "role": "sampler", "engine": "vllm", "deviceType": "cuda", "mesh": {"dp": 3, "tp": 2},
         "cpusPerRank": 4},
        {"name": "trainer", "role": "trainer", "mesh": {"dp": 2}},
    ]  # fmt: skip
    stack = {"metadata": {"name": "demo", **metadata}, "spec": {"image": "twinkle:1", "deviceGroups": groups} | spec}
    stack["spec"].setdefault("run", {"experiment": "quickstart"})
    given_ = read(stack)
    assert given_.spec is not None
    policy, cluster, job = children(given_, given_.spec)
    return policy, cluster, job


def test_a_device_group_is_a_worker_group_of_whole_replicas() -> None:
    _, cluster, _ = of({})
    sampler, trainer = cluster["spec"]["workerGroupSpecs"]

    assert [sampler[key] for key in ("replicas", "minReplicas", "maxReplicas")] == [3, 3, 3]
    assert sampler["rayStartParams"] == {"num-cpus": "8", "num-gpus": "2"}
    assert sampler["labels"] == {"twinkle.dev/device-group": "sampler"}
    assert sampler["template"]["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 2}
    assert (trainer["replicas"], trainer["rayStartParams"]) == (2, {"num-cpus": "1"})
    assert "resources" not in trainer["template"]["spec"]["containers"][0]


def test_the_cluster_is_shut_and_its_head_trains_nothing() -> None:
    _, cluster, _ = of({})
    spec, head = cluster["spec"], cluster["spec"]["headGroupSpec"]
    (container,) = head["template"]["spec"]["containers"]

    assert spec["authOptions"] == {"mode": "token"}
    assert spec["upgradeStrategy"] == {"type": "Recreate"}
    assert "suspend" not in spec
    assert head["rayStartParams"] == {"num-cpus": "0", "dashboard-host": "0.0.0.0"}
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == {
        "gcs-server": 6379,
        "dashboard": 8265,
        "client": 10001,
        "metrics": 9400,
    }
    assert {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "25"} in container["env"]


def test_only_the_cluster_is_kueues() -> None:
    policy, cluster, job = of({}, labels={"kueue.x-k8s.io/queue-name": "gpus", "team": "rl"})
    labels = [child["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") for child in (policy, cluster, job)]

    assert labels == [None, "gpus", None]
    assert "team" not in cluster["metadata"]["labels"]


def test_a_job_is_bound_to_a_head_and_submitted_once() -> None:
    _, _, job = of({})
    spec, notes = job["spec"], job["metadata"]["annotations"]

    assert spec["clusterSelector"] == {"ray.io/cluster": "demo"}
    assert (spec["submissionMode"], spec["submitterConfig"]) == ("K8sJobMode", {"backoffLimit": 0})
    assert (spec["shutdownAfterJobFinishes"], spec["entrypointNumCpus"]) == (False, 0)
    assert (notes["twinkle.dev/head-uid"], notes["twinkle.dev/head-restarts"]) == ("head-uid", "2")
    assert job["metadata"]["name"] == "demo-12345"
    assert spec["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"


def test_another_spec_is_another_template_and_the_same_spec_is_not() -> None:
    one, two, three = of({})[1], of({"image": "twinkle:2"})[1], of({})[1]
    templates = [each["metadata"]["annotations"]["twinkle.dev/template"] for each in (one, two, three)]

    assert templates[0] == templates[2] != templates[1]
    for cluster, template in zip((one, two, three), templates, strict=True):
        groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
        assert {each["template"]["metadata"]["labels"]["twinkle.dev/template"] for each in groups} == {template}
    assert of({"run": {"experiment": "other"}})[1] == one  # settings of the run leave the pods alone


def test_nobody_else_reaches_the_pods() -> None:
    policy, _, _ = of({})
    own = {"podSelector": {"matchLabels": {"twinkle.dev/stack": "demo"}}}
    rules = copy.deepcopy(policy["spec"]["ingress"])

    assert (policy["spec"]["policyTypes"], "egress" in policy["spec"]) == (["Ingress"], False)
    assert rules[0] == {"from": [own]}
    assert [[port["port"] for port in rule["ports"]] for rule in rules[1:]] == [[8265], [9400]]
    names = [
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for rule in rules[1:]
        for peer in rule["from"]
    ]
    assert names == ["kuberay-system", "twinkle-system", "monitoring"]


def test_egress_is_what_is_written_beside_the_pods_themselves_and_dns() -> None:
    policy, _, _ = of({"networkPolicy": {"egress": [{"ports": [{"port": 443}]}]}})
    own, dns, given_ = policy["spec"]["egress"]

    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert own["to"] == [{"podSelector": {"matchLabels": {"twinkle.dev/stack": "demo"}}}]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert given_ == {"ports": [{"port": 443}]}
