"""The pod that reads: it can read and nothing else."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from tests.twinkle_operator import raw
from twinkle_operator import strip
from twinkle_operator.commands.reader_pod import reader_pod
from twinkle_operator.errors import OperatorError
from twinkle_operator.observed import Stack


def stack(**spec: Any) -> Stack:
    manifest = raw.stack(1)
    manifest["spec"] |= {"run": {"experiment": "x", "volume": {"claimName": "runs"}}, **spec}
    return strip.stack(manifest)


def test_the_pod_is_valid_and_mounts_only_the_claim_and_only_to_read() -> None:
    pod = reader_pod(stack(), None, deadline=60)

    kubernetes_validate.validate(pod, "1.31", strict=True)
    spec = pod["spec"]
    assert [each["persistentVolumeClaim"] for each in spec["volumes"]] == [{"claimName": "runs"}]
    assert spec["containers"][0]["volumeMounts"] == [{"name": "runs", "mountPath": "/runs", "readOnly": True}]
    assert spec["activeDeadlineSeconds"] == 60
    assert spec["automountServiceAccountToken"] is False
    assert "env" not in spec["containers"][0]


def test_it_is_as_restricted_as_pod_security_asks() -> None:
    spec = reader_pod(stack(), None, deadline=60)["spec"]
    container = spec["containers"][0]["securityContext"]

    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert container["allowPrivilegeEscalation"] is False
    assert container["readOnlyRootFilesystem"]


def test_it_goes_where_the_head_is_and_would_be() -> None:
    template = {"spec": {"nodeSelector": {"pool": "rl"}, "securityContext": {"runAsUser": 1000, "fsGroup": 100}}}
    head = {"spec": {"nodeName": "node-7"}}
    spec = reader_pod(stack(head={"podTemplate": template}), head, deadline=60)["spec"]

    assert spec["nodeSelector"] == {"pool": "rl"}
    assert "node-7" in str(spec["affinity"])
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (1000, 100)


def test_an_image_that_only_its_nodes_have_is_not_pulled() -> None:
    template = {"spec": {"containers": [{"name": "ray", "imagePullPolicy": "Never"}]}}

    assert reader_pod(stack(), None, deadline=60)["spec"]["containers"][0].get("imagePullPolicy") is None
    pod = reader_pod(stack(head={"podTemplate": template}), None, deadline=60)
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Never"


def test_it_is_no_pod_of_the_stack() -> None:
    metadata = reader_pod(stack(), None, deadline=60)["metadata"]

    assert "twinkle.dev/stack" not in metadata["labels"]
    assert metadata["ownerReferences"][0]["uid"] == "stack-1"
    assert "controller" not in metadata["ownerReferences"][0]


def test_a_stack_without_a_volume_has_nothing_that_a_pod_could_read() -> None:
    with pytest.raises(OperatorError, match=r"no run\.volume"):
        reader_pod(stack(run={"experiment": "x"}), None, deadline=60)
