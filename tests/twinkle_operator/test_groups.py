"""What keeps the pods of a cluster, in words for the one who wrote the stack."""

from __future__ import annotations

import msgspec
import pytest

from tests.twinkle_operator.simulate import SPEC
from twinkle_operator.groups import Said, unready
from twinkle_operator.observed import Cluster, Observed
from twinkle_operator.spec import Spec

FAILED = (
    '(combined from similar events): Failed to create head Pod default/, Pod "demo-head-x7k2p" is invalid: '
    "spec.containers[0].imagePullPolicy: Unsupported value"
)


@pytest.mark.parametrize(
    ("reason", "message", "said"),
    [
        (
            "FailedToCreateHeadPod",
            FAILED,
            Said(
                "InvalidPodTemplate",
                "podTemplate of head: spec.containers[0].imagePullPolicy: Unsupported value",
            ),
        ),
        (
            "FailedToCreateHeadPod",
            'pods "demo-head-x" is forbidden: exceeded quota',
            Said(
                "FailedToCreateHeadPod",
                '0 of 1 pods of head ready; KubeRay: pods "demo-head-x" is forbidden: exceeded quota',
            ),
        ),
        (
            "InvalidRayClusterSpec",
            "the spec is invalid: no head",
            Said("InvalidRayClusterSpec", "0 of 1 pods of head ready; KubeRay: the spec is invalid: no head"),
        ),
    ],
)
def test_a_pod_that_the_api_server_refuses_is_an_invalid_template(reason: str, message: str, said: Said) -> None:
    cluster = Cluster(uid="c")
    observed = Observed(cluster=cluster, warnings=((reason, message),))

    assert unready(msgspec.convert(SPEC, Spec), observed, cluster) == said
