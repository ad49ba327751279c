"""Fixtures of the charts' tests. What needs a program (helm, promtool) is marked `kube`: `make test-kube` runs it."""

import os
import shutil
from pathlib import Path

import pytest

from e2e import assets


def need(found: Path | str | None, sentence: str) -> Path:
    """The program, or the test is skipped with this sentence; under CI it must be there."""
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(sentence)
    return Path(found)


@pytest.fixture(scope="session")
def helm() -> Path:
    """The program helm."""
    return need(assets.find("helm"), "no helm: run 'make kube-assets', which needs Go")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """The program promtool."""
    return need(shutil.which("promtool"), "no promtool: on Debian and Ubuntu install prometheus")
