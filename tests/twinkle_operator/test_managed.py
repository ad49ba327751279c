"""Which fields of a live object are ours."""

from __future__ import annotations

import copy
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from twinkle_operator.managed import digest, owned

FIELDS = {
    "f:metadata": {"f:labels": {"f:team": {}}, "f:ownerReferences": {'k:{"uid":"u"}': {}}},
    "f:spec": {
        "f:replicas": {},
        "f:args": {'v:"b"': {}},
        "f:containers": {
            'k:{"name":"after"}': {".": {}, "f:name": {}},
            'k:{"name":"ray"}': {".": {}, "f:image": {}, "f:name": {}},
        },
    },
}


def live(**changes: Any) -> dict[str, Any]:
    made = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": "a",
            "namespace": "n",
            "uid": "1",
            "labels": {"team": "rl", "of": "others"},
            "ownerReferences": [{"uid": "u", "name": "s"}, {"uid": "v"}],
            "managedFields": [
                {"manager": "kuberay", "operation": "Update", "fieldsV1": {"f:spec": {"f:other": {}}}},
                {"manager": "twinkle-operator", "operation": "Apply", "subresource": "status", "fieldsV1": {}},
                {"manager": "twinkle-operator", "operation": "Apply", "fieldsV1": FIELDS},
            ],
        },
        "spec": {
            "replicas": 2,
            "other": 1,
            "args": ["a", "b"],
            "containers": [
                {"name": "sidecar", "image": "x"},
                {"name": "ray", "image": "i", "imagePullPolicy": "Always"},
                {"name": "after"},
            ],
        },
        "status": {"state": "ready"},
    }
    made["spec"] = {**made["spec"], **changes}  # type: ignore[dict-item]
    return made


APPLIED = {
    "metadata": {"labels": {"team": "rl"}, "ownerReferences": [{"uid": "u", "name": "s"}]},
    "spec": {"replicas": 2, "args": ["b"], "containers": [{"image": "i", "name": "ray"}, {"name": "after"}]},
}
"""Items of a list are in the list's order, whatever that of the fields is."""


def test_owned_is_what_was_applied_whatever_others_added() -> None:
    assert owned(live()) == APPLIED


def test_an_object_that_was_never_applied_has_nothing_of_ours() -> None:
    raw = live()
    raw["metadata"]["managedFields"].pop()

    assert owned(raw) == {}


def test_a_field_that_somebody_removed_is_missing() -> None:
    raw = live()
    del raw["metadata"]["labels"]["team"]
    raw["spec"]["containers"] = []

    assert owned(raw)["metadata"]["labels"] == {}
    assert owned(raw)["spec"]["containers"] == []


def test_the_digest_of_a_manifest_is_that_of_what_it_made() -> None:
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayCluster", **copy.deepcopy(APPLIED)}
    manifest["metadata"] |= {"name": "a", "namespace": "n"}

    assert digest(manifest) == digest(owned(live()))
    assert digest(manifest) != digest(owned(live(replicas=3)))


FORGED = st.recursive(
    st.sampled_from(({}, None, 1, "x", [])),
    lambda below: st.dictionaries(
        st.sampled_from((".", "f:x", "f:args", "f:containers", "i:x", "v:", "k:1", "k:{}", "k:{", "z", "f:spec")),
        below,
        max_size=4,
    ),
    max_leaves=12,
)


@given(FORGED)
def test_managed_fields_that_somebody_forged_break_nothing(fields: Any) -> None:
    raw = live()
    raw["metadata"]["managedFields"][2]["fieldsV1"] = {"f:spec": fields}
    spec = owned(raw).get("spec", {})

    assert all(name in raw["spec"] for name in spec) or spec == raw["spec"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_keys_never_changes_a_digest(spec: dict[str, Any], chance: random.Random) -> None:
    shuffled = list(spec.items())
    chance.shuffle(shuffled)

    assert digest({"spec": spec}) == digest({"spec": dict(shuffled)})
