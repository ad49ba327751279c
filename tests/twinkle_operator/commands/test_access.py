"""Which cluster and namespace a person means."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes.config import kube_config

from tests.twinkle_operator.commands.kubeconfig import write_kubeconfig
from twinkle_operator.commands.access import Access
from twinkle_operator.errors import OperatorError


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_kubeconfig(tmp_path, here="https://here.example", there="https://there.example")
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    return path


@pytest.mark.parametrize(
    ("namespace", "context", "host", "wanted"),
    [
        (None, None, "here", "team-here"),
        (None, "there", "there", "team-there"),
        ("mine", "there", "there", "mine"),
    ],
)
def test_the_namespace_is_that_of_the_context(
    kubeconfig: Path, namespace: str | None, context: str | None, host: str, wanted: str
) -> None:
    access = Access(namespace, context)

    assert (access.api.configuration.host, access.namespace) == (f"https://{host}.example", wanted)


def test_a_context_that_there_is_not_is_said_in_a_sentence(kubeconfig: Path) -> None:
    with pytest.raises(OperatorError, match="nowhere"):
        Access(None, "nowhere")
