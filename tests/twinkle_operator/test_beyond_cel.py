"""What CEL cannot see, of stacks that the API server took."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kube.cases import base
from tests.kube.specs import stacks
from twinkle_operator.beyond_cel import UNTRAINED_AXES, problems
from twinkle_operator.problem import Problem, written

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(
        ["spec", "deviceGroups", "podTemplate", "metadata", "labels", "mesh", "volumes", "containers", "hostPath"]
    ), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def in_trainer(**template: Any) -> dict[str, Any]:
    stack = base()
    stack["spec"]["deviceGroups"][1]["podTemplate"] = template
    return stack


def only(stack: dict[str, Any]) -> Problem:
    (problem,) = problems(stack)
    return problem


@given(stacks())
def test_a_stack_that_can_run_has_no_errors(stack: dict[str, Any]) -> None:
    assert [problem for problem in problems(stack) if problem.severity == "error"] == []


@given(ANYTHING, ANYTHING)
def test_nothing_makes_it_raise(spec: Any, template: Any) -> None:
    problems({"spec": spec, "metadata": template})
    problems(in_trainer(metadata=template, spec=spec))
    problems(in_trainer(spec={"volumes": spec, "containers": template, "hostNetwork": spec}))


@pytest.mark.parametrize("axis", UNTRAINED_AXES)
def test_a_trainer_has_dp_alone(axis: str) -> None:
    stack = base()
    stack["spec"]["deviceGroups"][1]["mesh"][axis] = 2
    found = only(stack)

    assert (found.where, found.severity, found.reason) == (
        f"spec.deviceGroups[1].mesh.{axis}",
        "error",
        "UnsupportedMesh",
    )
    assert f"{axis} is 2" in found.message


def test_axes_of_size_one_and_samplers_may_be_spelled_out() -> None:
    stack = base()
    stack["spec"]["deviceGroups"][1]["mesh"] = {"dp": 2, **dict.fromkeys(UNTRAINED_AXES, 1)}

    assert problems(stack) == []


@pytest.mark.parametrize("index", [0, 1])
def test_no_model_runs_on_an_npu(index: int) -> None:
    stack = base()
    stack["spec"]["deviceGroups"][index]["deviceType"] = "npu"

    assert only(stack).reason == "UnsupportedDevice"


def test_another_ray_is_a_warning() -> None:
    stack = base()
    stack["spec"]["rayVersion"] = "2.9.0"

    assert (only(stack).severity, only(stack).where) == ("warning", "spec.rayVersion")


def test_suspending_a_run_without_a_volume_is_a_warning() -> None:
    stack = base()
    stack["spec"]["suspend"] = True
    assert problems(stack) == []
    del stack["spec"]["run"]["volume"]

    assert (only(stack).severity, only(stack).where, only(stack).reason) == ("warning", "spec.suspend", "NoVolume")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("kueue.x-k8s.io/queue-name", "gpus", "MisplacedLabel"),
        ("twinkle.dev/device-group", "other", "ReservedLabel"),
        ("ray.io/cluster", "other", "ReservedLabel"),
        ("a b", "x", "InvalidLabel"),
        ("team", "a b", "InvalidLabel"),
        ("team", True, "InvalidLabel"),
        ("team", "x" * 64, "InvalidLabel"),
    ],
)
def test_labels_of_pods(key: str, value: object, reason: str) -> None:
    found = only(in_trainer(metadata={"labels": {key: value}}))

    assert (found.reason, found.severity) == (reason, "error")
    assert found.where == f"spec.deviceGroups[1].podTemplate.metadata.labels[{key}]"


def test_labels_that_are_fine() -> None:
    assert problems(in_trainer(metadata={"labels": {"example.org/team": "rl", "empty": "", "x" * 63: "y" * 63}})) == []


@pytest.mark.parametrize(
    ("pod", "where"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"hostPID": True}, "hostPID"),
        ({"serviceAccountName": "robot"}, "serviceAccountName"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volumes[0].hostPath"),
        (
            {"containers": [{"name": "ray"}, {"name": "b", "securityContext": {"privileged": True}}]},
            "containers[1].securityContext.privileged",
        ),
        (
            {"initContainers": [{"name": "b", "securityContext": {"privileged": True}}]},
            "initContainers[0].securityContext.privileged",
        ),
    ],
)
def test_what_reaches_beyond_the_pod_is_a_warning(pod: dict[str, Any], where: str) -> None:
    found = only(in_trainer(spec=pod))

    assert (found.severity, found.where) == ("warning", f"spec.deviceGroups[1].podTemplate.spec.{where}")


def test_defaults_and_the_head_are_looked_at_too() -> None:
    stack = base()
    stack["spec"] |= {
        "serviceAccountName": "robot",
        "podDefaults": {"hostNetwork": True},
        "head": {"podTemplate": {"spec": {"hostIPC": True}}},
    }

    assert [problem.where for problem in problems(stack)] == [
        "spec.serviceAccountName",
        "spec.podDefaults.hostNetwork",
        "spec.head.podTemplate.spec.hostIPC",
    ]


def test_paths_are_written_as_the_api_server_writes_them() -> None:
    assert written(("spec", "deviceGroups", 1, "mesh")) == "spec.deviceGroups[1].mesh"
    assert written(()) == ""
