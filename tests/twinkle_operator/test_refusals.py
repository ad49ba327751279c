"""Refusals in the words of the one who wrote the stack."""

from __future__ import annotations

import json

from tests.twinkle_operator import raw
from twinkle_operator import strip
from twinkle_operator.errors import Busy, Forbidden, NamespaceEnds, NameTaken, Refused, api_error
from twinkle_operator.refusals import Refusals, outdated_schema, refusal

STACK = strip.stack(raw.stack(1))
CLUSTER = {
    "kind": "RayCluster",
    "metadata": {"name": "s", "namespace": "n"},
    "spec": {"workerGroupSpecs": [{"groupName": "sampler"}, {"groupName": "trainer"}]},
}


def typed(*lines: str) -> Refused:
    text = "failed to create typed patch object (n/s; ray.io/v1, Kind=RayCluster): errors:\n  " + "\n  ".join(lines)
    error = api_error("PATCH", 500, json.dumps({"kind": "Status", "message": text}).encode())
    assert isinstance(error, Refused)
    return error


def test_a_typo_names_the_field_and_the_device_group() -> None:
    error = typed(".spec.workerGroupSpecs[1].template.spec.contaners: field not declared in schema")
    refused = refusal(STACK, CLUSTER, error)

    assert (refused.kind, refused.name, refused.generation, refused.reason) == (
        "RayCluster",
        "s",
        1,
        "InvalidPodTemplate",
    )
    assert refused.message == (
        "RayCluster s: podTemplate.spec.contaners of device group trainer: field not declared in schema"
    )


def test_a_typo_in_the_head_names_the_head() -> None:
    refused = refusal(STACK, CLUSTER, typed(".spec.headGroupSpec.template.spec.x: field not declared in schema"))

    assert "podTemplate.spec.x of the head: field not declared" in refused.message


def test_the_causes_of_a_422_are_told() -> None:
    causes = [{"field": "spec.headGroupSpec.template.spec.containers[0].resources", "message": "must match quantity"}]
    body = json.dumps({"message": "invalid", "details": {"causes": causes}}).encode()
    refused = refusal(STACK, CLUSTER, api_error("PATCH", 422, body))

    assert "podTemplate.spec.containers[0].resources of the head: must match quantity" in refused.message


def test_a_refusal_without_a_path_keeps_the_servers_words() -> None:
    assert "no idea" in refusal(STACK, CLUSTER, api_error("PATCH", 422, b'{"message": "no idea"}')).message


def test_a_crd_without_our_fields_is_too_old_and_no_fault_of_a_template() -> None:
    assert outdated_schema(CLUSTER, typed(".spec.authOptions: field not declared in schema")) == "spec.authOptions"
    assert outdated_schema(CLUSTER, typed(".spec.headGroupSpec.template.spec.x: field not declared in schema")) == ""
    assert outdated_schema({**CLUSTER, "kind": "NetworkPolicy"}, typed(".spec.x: field not declared in schema")) == ""


def test_final_refusals_hold_until_the_generation_changes_and_others_for_one_pass() -> None:
    held = Refusals()
    held.add(STACK, refusal(STACK, CLUSTER, typed(".spec.headGroupSpec.template.x: field not declared in schema")))
    policy = {"kind": "NetworkPolicy", "metadata": {"name": "s", "namespace": "n"}}
    held.add(STACK, refusal(STACK, policy, NameTaken("belongs to somebody else")))
    assert {each.reason for each in held.of(STACK)} == {"InvalidPodTemplate", "NameTaken"}
    assert held.final(STACK, CLUSTER)
    assert not held.final(STACK, policy)

    held.retry(STACK)
    assert {each.reason for each in held.of(STACK)} == {"InvalidPodTemplate"}
    changed = strip.stack(raw.stack(2, metadata={**raw.stack(2)["metadata"], "generation": 2}))
    assert held.of(changed) == ()
    assert not held.final(changed, CLUSTER)


def test_kinds_of_answers() -> None:
    assert isinstance(api_error("x", 500, b'{"message": "boom"}'), Busy)
    assert isinstance(api_error("x", 503, b"<html>"), Busy)
    assert type(api_error("x", 403, b'{"message": "quota"}')) is Forbidden
    ends = b'{"details": {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}}'
    assert isinstance(api_error("x", 403, ends), NamespaceEnds)
    assert api_error("x", 429, b"", "7").retry_after == 7.0
    assert api_error("x", 429, b'{"details": {"retryAfterSeconds": 3}}').retry_after == 3.0
    assert api_error("x", 429, b"", "Wed, 21 Oct 2026 07:28:00 GMT").retry_after is None
    assert len(api_error("x", 500, b"y" * 100_000).message) == 4096
