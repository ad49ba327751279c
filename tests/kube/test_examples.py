"""Every example on a real API server: it is taken as it stands, and so is the RayCluster that is made of it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from kubernetes import client

from tests.kube.cluster import ApiServer
from twinkle_operator import render
from twinkle_operator.observed import Stack
from twinkle_operator.spec import Spec
from twinkle_operator.words import GROUP, KIND, PLURAL, VERSION

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: str(path.name))
def test_an_example_is_applied(
    api_server: ApiServer, stack_crd: None, kuberay_crds: None, namespace: str, example: Path
) -> None:
    api = client.CustomObjectsApi(api_server.client())
    found = [each for each in yaml.safe_load_all(example.read_text()) if each["kind"] == KIND]
    for each in found:
        made: dict[str, Any] = api.create_namespaced_custom_object(
            GROUP, VERSION, namespace, PLURAL, each, field_validation="Strict"
        )
        metadata = made["metadata"]
        stack = Stack(
            name=metadata["name"], namespace=namespace, uid=metadata["uid"], generation=1,
            labels=metadata.get("labels", {}),
        )  # fmt: skip
        cluster = render.cluster(stack, msgspec.convert(made["spec"], Spec))
        api.create_namespaced_custom_object(
            "ray.io", "v1", namespace, "rayclusters", cluster, field_validation="Strict", dry_run="All"
        )

    assert len(found) == 1
