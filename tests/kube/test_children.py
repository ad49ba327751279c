"""What the plan renders, on a real API server with KubeRay's real CRDs: no field is unknown, every value is taken."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from kubernetes import client

from tests.kube.cluster import ApiServer
from tests.kube.specs import stacks
from tests.twinkle_operator.observations import read
from twinkle_operator import render
from twinkle_operator.observed import Pod
from twinkle_operator.resources import CHILDREN
from twinkle_operator.settings import Settings

HEAD = Pod(name="head", uid="head-uid", group="head")


@pytest.fixture(scope="module")
def api(api_server: ApiServer, kuberay_crds: None) -> client.ApiClient:
    return api_server.client()


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stack=stacks())
def test_children_are_what_the_api_server_and_kuberay_take(stack: dict[str, Any], api: client.ApiClient) -> None:
    stack_ = read(stack)
    assert stack_.spec is not None
    children = (
        render.network_policy(stack_, stack_.spec, Settings()),
        render.cluster(stack_, stack_.spec),
        render.job(stack_, stack_.spec, 12345, HEAD, "{}"),
    )
    for child in children:
        child["metadata"]["namespace"] = "default"
        kind = CHILDREN[child["kind"]]
        client.CustomObjectsApi(api).create_namespaced_custom_object(
            kind.group, kind.version, "default", kind.plural, child, dry_run="All", field_validation="Strict"
        )
