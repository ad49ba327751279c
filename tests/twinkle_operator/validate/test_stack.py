"""The refused stacks of tests/kube/invalid, without an API server; tests/kube/test_crd.py shows them to a real one."""

import copy
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kube.cases import base, cases, examples
from tests.kube.specs import stacks
from tests.twinkle_operator.crd.test_schema import nodes
from tests.twinkle_operator.test_beyond_cel import ANYTHING
from twinkle_operator.crd.definition import stack_schema
from twinkle_operator.problem import Problem
from twinkle_operator.validate import check
from twinkle_operator.validate.stack import refusals


def errors(stack: dict[str, Any], before: dict[str, Any] | None = None) -> list[Problem]:
    return [problem for problem in check(stack, before) if problem.severity == "error"]


def test_there_are_enough_of_them() -> None:
    kinds = Counter(case.by for case in cases().values())

    assert set(kinds) == {"cel", "schema", "update"}
    assert kinds.total() >= 40
    assert kinds["cel"] >= 20
    assert kinds["update"] >= 5


def test_the_valid_stack_is_valid() -> None:
    assert check(base()) == []


@pytest.mark.parametrize("name", examples())
def test_examples_are_valid(name: str) -> None:
    assert errors(examples()[name]) == []


@pytest.mark.parametrize("name", cases())
def test_refused_with_a_sentence_about_the_field(name: str) -> None:
    case = cases()[name]
    found = refusals(case.stack(), case.old())

    assert [problem for problem in found if case.refused in problem.message and problem.where.startswith(case.where)]
    if (old := case.old()) is not None:
        assert errors(old) == []
        assert errors(case.stack()) == []  # only the update is refused


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(stacks())
def test_a_stack_that_can_run_is_valid(stack: dict[str, Any]) -> None:
    assert errors(stack) == []
    assert errors(stack, stack) == []


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(ANYTHING)
def test_nothing_makes_it_raise(value: Any) -> None:
    check({"spec": value, "metadata": value})
    check({"metadata": {"name": "a"}, "spec": {**base()["spec"], "run": value}})
    check({**base(), "spec": {**base()["spec"], "deviceGroups": [value, *base()["spec"]["deviceGroups"]]}})


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_other_value_anywhere_is_taken_or_refused(data: st.DataObject) -> None:
    stack = copy.deepcopy(base())
    holder: Any = stack["spec"]
    while isinstance(holder, dict | list) and holder:
        key = data.draw(st.sampled_from(list(range(len(holder)) if isinstance(holder, list) else holder)))
        if not isinstance(holder[key], dict | list) or not holder[key] or data.draw(st.booleans()):
            holder[key] = data.draw(ANYTHING)
            break
        holder = holder[key]
    check(stack)


def test_all_that_is_wrong_is_told_at_once() -> None:
    stack = base()
    stack["spec"]["imag"] = "x"
    stack["spec"]["suspend"] = "no"
    stack["spec"]["storage"]["capacity"] = "8GiB"
    stack["spec"]["deviceGroups"][1]["mesh"]["tp"] = 2

    assert [(problem.where, problem.message.split(";")[0]) for problem in check(stack)] == [
        ("spec.imag", "unknown field"),
        ("spec.suspend", "must be of type boolean, not string"),
        ("spec.storage.capacity", '"8GiB" is no quantity: give bytes, or a number with Ki, Mi, Gi or Ti: 8Gi'),
        ("spec.deviceGroups[1].mesh.tp", "this version trains along dp alone"),
    ]


def test_labels_of_the_stack_are_checked_and_a_queue_is_named_there() -> None:
    stack = base()
    stack["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus"}
    assert check(stack) == []
    stack["metadata"]["labels"] = {"team": 3}

    assert [problem.where for problem in check(stack)] == ["metadata.labels[team]"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", 3, "must be of type string, not integer"),
        ("namespace", True, "must be of type string, not boolean"),
        ("uid", ["u"], "must be of type string, not array"),
        ("labels", ["a"], "must be of type object, not array"),
        ("annotations", "a", "must be of type object, not string"),
    ],
)
def test_metadata_has_the_types_of_an_api_server(field: str, value: Any, message: str) -> None:
    found = check({**base(), "metadata": {"name": "a", field: value}})

    assert [(problem.where, problem.message) for problem in found] == [(f"metadata.{field}", message)]
    assert check({**base(), "metadata": {"name": "a", "namespace": None, "labels": None}}) == []


def test_a_stack_without_a_name() -> None:
    assert [problem.where for problem in check({**base(), "metadata": {}})] == ["metadata.name"]


def test_every_rule_of_the_crd_is_broken_by_one_of_them() -> None:
    said = [problem.message for case in cases().values() for problem in refusals(case.stack(), case.old())]
    rules = {
        rule["message"] for _, schema in nodes(stack_schema()) for rule in schema.get("x-kubernetes-validations", ())
    }

    assert len(rules) > 50
    assert [rule for rule in rules if not any(rule in sentence for sentence in said)] == []
