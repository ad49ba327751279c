"""docs/kubernetes.md and examples/: what they name is there, and every example is a valid stack."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.guide import DOCS
from transfer_queue.ledger.explain import CODES
from twinkle_operator import refusals
from twinkle_operator.life import UNKNOWN
from twinkle_operator.status_document import reason_of
from twinkle_operator.words import REFUSED

ROOT = DOCS.parent
TEXT = (DOCS / "kubernetes.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
OF_KUBERNETES = {
    "Unschedulable", "ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "CreateContainerConfigError",
    "CrashLoopBackOff", "OOMKilled",
    "Error", "PodFailed", "FailedToCreateHeadPod", "FailedToCreateWorkerPod",
}  # fmt: skip
MADE = (r'\bSaid\(\s*"(\w+)"', r'\bword\([^()]*, "(\w+)"\)', r'\bunknown\([^"]*"(\w+)"', r'"error", "([A-Z]\w+)"',
        r'Ended\("(?:complete|invalid)", "(\w+)"', r'\breason, message = \(?"(\w+)"')  # fmt: skip
"""How the operator's source makes a reason of its own."""


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


def reasons() -> set[str]:
    """Every word of the operator's own, and of the queue's, that a condition can have."""
    source = "".join(path.read_text() for path in (ROOT / "operator" / "twinkle_operator").glob("*.py"))
    made = {word for pattern in MADE for word in re.findall(pattern, source)} - {UNKNOWN.reason}
    return made | set(refusals.REASONS.values()) | {REFUSED, "NameTaken"} | set(map(reason_of, CODES))


def test_reasons_are_those_of_the_operator_and_each_is_explained() -> None:
    tables = TEXT[TEXT.index("## Conditions") : TEXT.index("## GPUs")]
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", tables)) - OF_KUBERNETES

    assert len(named) >= 40
    assert named == reasons()
