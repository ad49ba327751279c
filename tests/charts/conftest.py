"""Fixtures of the charts' tests. What needs a program (helm, promtool) is marked `kube`: `make test-kube` runs it."""

from pathlib import Path

import pytest

from e2e import assets
from tests.kube.conftest import need


@pytest.fixture(scope="session")
def helm() -> Path:
    """The program helm."""
    need("helm")
    return assets.program("helm")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus's checker of rules."""
    need(assets.PROMTOOL)
    return assets.program(assets.PROMTOOL)
