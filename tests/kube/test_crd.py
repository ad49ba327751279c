"""The CRD on a real API server: it takes what is valid, refuses the rest with a sentence, and agrees with
`twinkle validate` about both."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes import client

from tests.kube.cases import Case, base, cases, examples
from tests.kube.cluster import ApiServer
from tests.kube.conftest import STACK_CRD
from tests.kube.specs import stacks
from twinkle_operator.crd import definition
from twinkle_operator.crd.definition import stack_schema
from twinkle_operator.spec import Spec
from twinkle_operator.validate import check
from twinkle_operator.validate.stack import refusals
from twinkle_operator.validate.structure import with_defaults
from twinkle_operator.words import GROUP, PLURAL, VERSION

Object = dict[str, Any]


class Stacks:
    """TrainingStacks of one namespace, as kubectl sends them: an unknown field is an error."""

    def __init__(self, api: client.ApiClient, namespace: str):
        self.api = client.CustomObjectsApi(api)
        self.place = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}

    def create(self, stack: Object, dry_run: str | None = None) -> Object:
        """The object as the server has it."""
        made: Object = self.api.create_namespaced_custom_object(
            body=stack, field_validation="Strict", dry_run=dry_run, **self.place
        )
        return made

    def replace(self, stack: Object, dry_run: str | None = None) -> None:
        name = stack["metadata"]["name"]
        self.api.replace_namespaced_custom_object(
            name=name, body=stack, field_validation="Strict", dry_run=dry_run, **self.place
        )


@pytest.fixture
def on_server(api_server: ApiServer, stack_crd: None, namespace: str) -> Stacks:
    return Stacks(api_server.client(), namespace)


@pytest.fixture(scope="module")
def anywhere(api_server: ApiServer, stack_crd: None, new_namespace: Callable[[], str]) -> Stacks:
    return Stacks(api_server.client(), new_namespace())


def errors(stack: Object, before: Object | None = None) -> list[str]:
    return [f"{problem.where}: {problem.message}" for problem in check(stack, before) if problem.severity == "error"]


@pytest.mark.parametrize("name", cases())
def test_server_and_validator_refuse_with_the_same_sentence(name: str, on_server: Stacks) -> None:
    case = cases()[name]
    refused = answer(case, on_server)

    assert case.where in refused
    assert case.refused in refused
    if case.by != "schema":  # sentences of ours: the same to the last letter
        told = [problem for problem in check(case.stack(), case.old()) if case.refused in problem.message]
        assert [problem for problem in told if problem.where in refused and problem.message in refused]


def answer(case: Case, on_server: Stacks) -> str:
    """Why the API server refuses."""
    stack = case.stack()
    if (old := case.old()) is not None:
        stack["metadata"]["resourceVersion"] = on_server.create(old)["metadata"]["resourceVersion"]
    with pytest.raises(client.ApiException) as refused:
        on_server.create(stack) if old is None else on_server.replace(stack)
    assert refused.value.status in (400, 422)
    return str(json.loads(refused.value.body)["message"])


@pytest.mark.parametrize("name", examples())
def test_examples_are_taken(name: str, on_server: Stacks) -> None:
    on_server.create(examples()[name])


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(stack=stacks(trained=False))
def test_server_and_validator_take_the_same_stacks_and_fill_in_the_same_defaults(
    stack: Object, anywhere: Stacks
) -> None:
    made = anywhere.create(stack, dry_run="All")["spec"]

    assert made == with_defaults(stack_schema(), stack)["spec"]
    assert msgspec.convert(made, Spec) == msgspec.convert(stack["spec"], Spec)


STRAY_VALUES = st.sampled_from(
    [
        None, True, 0, 1, 2, 3, -1, 1.5, 2.0, 1024, 2**31, "", "a", "A b", "é", "a\nb", "head", "sampler", "trainer",
        "torch", "vllm", "cuda", "cpu", "8Gi", "1e3", "16Mi", "hf://x/y", "ms://", "/runs", "/models", "/", "/a/../b",
        "2.58.0", "x=1", "~x", "mesh=1", "a" * 300, [], {}, [1], [{}], [None], {"a": 1}, {"name": "x"}, ["a=1", "b=2"],
    ]
)  # fmt: skip


@st.composite
def strayed(draw: st.DrawFn) -> Object:
    """The valid stack with all its defaults, in which one or two things are something else, or gone."""
    stack = with_defaults(stack_schema(), base())
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        holder, key = draw(st.sampled_from(list(fields(stack["spec"]))))
        if draw(st.integers(0, 5)) == 0:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(draw(STRAY_VALUES))
    return stack


def fields(value: Any) -> Iterator[tuple[Any, Any]]:
    """Everything inside a value, as (holder, key)."""
    for key in list(value) if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0):
        yield value, key
        yield from fields(value[key])


@pytest.fixture(scope="module")
def there(anywhere: Stacks) -> Object:
    """The valid stack, on the server."""
    return anywhere.create(base())


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(stack=strayed())
def test_server_and_validator_agree_on_whatever_a_stack_is_changed_to(
    stack: Object, anywhere: Stacks, there: Object
) -> None:
    stack["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
    try:
        anywhere.replace(stack, dry_run="All")
        refused = ""
    except client.ApiException as error:
        refused = str(json.loads(error.body)["message"])

    assert bool(refused) == bool(refusals(stack, there)), refused


CHANGES: dict[str, Callable[[Object], object]] = {
    "overrides": lambda spec: spec["run"].update(overrides=["loop.steps=60"]),
    "path of the claim": lambda spec: spec["run"]["volume"].update(path="/data"),
    "order of groups": lambda spec: spec["deviceGroups"].reverse(),
    "suspend": lambda spec: spec.update(suspend=True),
    "mesh, suspended": lambda spec: spec["deviceGroups"][2]["mesh"].update(dp=4),
    "claim, suspended": lambda spec: spec["run"]["volume"].update(claimName="others"),
    "a group less, suspended": lambda spec: spec["deviceGroups"].pop(0),
    "resume with another mesh": lambda spec: spec.update(suspend=False) or spec["deviceGroups"][0]["mesh"].update(dp=1),
}


def test_what_a_stack_may_change_while_it_runs_and_while_it_is_suspended(on_server: Stacks) -> None:
    on_server.create(base())
    for change in CHANGES.values():
        there = on_server.api.get_namespaced_custom_object(name="base", **on_server.place)
        wanted = copy.deepcopy(there)
        change(wanted["spec"])

        assert errors(wanted, there) == []
        on_server.replace(wanted)


def test_kubectl_applies_the_file_and_shows_the_columns(api_server: ApiServer, stack_crd: None, namespace: str) -> None:
    api_server.kubectl("apply", f"--filename={STACK_CRD}")
    api_server.kubectl("apply", f"--namespace={namespace}", "--filename=-", stdin=json.dumps(base()))
    ready = {"type": "Ready", "status": "False", "reason": "MissingField", "message": "192 lack reward"}
    status = {
        "conditions": [{**ready, "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "queue": {"summary": "320/512"},
        "samplers": "2/2",
        "progress": {"step": 7},
    }
    patch = json.dumps({"status": status})
    api_server.kubectl(
        "patch",
        "tstack",
        "base",
        f"--namespace={namespace}",
        "--subresource=status",
        "--type=merge",
        f"--patch={patch}",
    )
    heads, row = api_server.kubectl("get", "tstack", f"--namespace={namespace}").splitlines()

    assert heads.split() == ["NAME", "READY", "QUEUE", "SAMPLERS", "STEP", "REASON", "AGE"]
    assert row.split()[:6] == ["base", "False", "320/512", "2/2", "7", "MissingField"]
    assert "base" in api_server.kubectl("get", "twinkle", f"--namespace={namespace}", "--output=name")


def test_kubectl_says_the_sentence_and_explains_every_field(
    api_server: ApiServer, stack_crd: None, namespace: str
) -> None:
    stack = cases()["override-of-batch"].stack()
    said = api_server.kubectl("apply", f"--namespace={namespace}", "--filename=-", stdin=json.dumps(stack), fails=True)
    explained = api_server.kubectl("explain", "tstack", "--recursive")

    assert "decided by controller.globalBatchSize; set it there" in said
    assert "globalBatchSize" in explained
    assert definition()["metadata"]["name"] in api_server.kubectl("get", "crd", "--output=name")
