"""What `twinkle validate` says of pod templates, against a real API server's word on pods."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client

from tests.kube.cluster import ApiServer
from twinkle_operator.validate.pod_specs import CHOICES, problems

PLACES = {
    "V1PodSpec": lambda name, word: {name: word},
    "V1Container": lambda name, word: {"containers": [{"name": "ray", "image": "a:1", name: word}]},
    "V1ContainerPort": lambda name, word: {
        "containers": [{"name": "ray", "image": "a:1", "ports": [{"containerPort": 80, name: word}]}]
    },
    "V1Toleration": lambda name, word: {"tolerations": [{"key": "gpu", "operator": "Exists", name: word}]},
}


def taken(api_server: ApiServer, namespace: str, pod: dict[str, Any]) -> bool:
    """Whether the API server takes a pod of that spec."""
    spec = {"containers": [{"name": "ray", "image": "a:1"}], "automountServiceAccountToken": False, **pod}
    body = {"metadata": {"name": "p"}, "spec": spec}
    try:
        client.CoreV1Api(api_server.client()).create_namespaced_pod(namespace, body, dry_run="All")
    except client.ApiException as error:
        if error.status != 422:
            raise
        return False
    return True


@pytest.mark.parametrize("field", CHOICES)
def test_words_are_those_of_the_api_server(api_server: ApiServer, namespace: str, field: str) -> None:
    kind, name = field.split(".")
    for word in ("", *CHOICES[field], "Sometimes"):
        pod = PLACES[kind](name, word)
        if (name, word) == ("dnsPolicy", "None"):
            pod["dnsConfig"] = {"nameservers": ["10.0.0.1"]}
        is_fine = not list(problems({"head": {"podTemplate": {"spec": pod}}}))

        assert is_fine == taken(api_server, namespace, pod) == (word != "Sometimes"), word


def test_a_mount_needs_its_volume(api_server: ApiServer, namespace: str) -> None:
    container = {"name": "ray", "image": "a:1", "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}

    assert not taken(api_server, namespace, {"containers": [container]})
    assert taken(api_server, namespace, {"containers": [container], "volumes": [{"name": "cache", "emptyDir": {}}]})
