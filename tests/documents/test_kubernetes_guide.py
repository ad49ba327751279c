"""docs/kubernetes.md and examples/: what they name is there, and every example is a valid stack."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.guide import DOCS

ROOT = DOCS.parent
TEXT = (DOCS / "kubernetes.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
OF_KUBERNETES = {
    "Unschedulable",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "CrashLoopBackOff",
    "OOMKilled",
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: str(path.name))
def test_an_example_is_valid_and_the_page_links_it(example: Path) -> None:
    command = [sys.executable, "-m", "twinkle.cli", "validate", str(example)]
    done = subprocess.run(command, cwd=ROOT, check=False, text=True, capture_output=True, timeout=100)

    assert (done.returncode, done.stdout) == (0, "1 TrainingStack valid.\n"), done.stdout
    assert f"examples/{example.name}" in TEXT


def test_links_lead_somewhere() -> None:
    named = re.findall(r"\]\(([^)#:]+)\)", TEXT)

    assert len(named) >= 5
    assert [name for name in named if not (DOCS / name).exists()] == []


def test_reasons_are_those_of_the_operator() -> None:
    source = "".join(path.read_text() for path in (ROOT / "operator" / "twinkle_operator").rglob("*.py"))
    tables = [line for line in TEXT.splitlines() if line.startswith("|")]
    cells = {word for line in tables for word in re.findall(r"`([A-Z][A-Za-z]+)`", line)}
    named = cells - OF_KUBERNETES - {"RayCluster", "RayJob", "NetworkPolicy", "NAME"}

    assert len(named) >= 25
    assert sorted(word for word in named if f'"{word}"' not in source) == []
