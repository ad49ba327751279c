"""docs/transfer_queue.md: every python example as written, and every name that a reader may look for."""

import inspect
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import transfer_queue
from tests.documents.guide import DOCS, Section, sections
from transfer_queue import errors
from transfer_queue.metrics import QueueCollector
from transfer_queue.options import Options
from transfer_queue.wire import Stats, TaskStats
from twinkle.queue_config import AloneConfig

GUIDE = DOCS / "transfer_queue.md"
TEXT = GUIDE.read_text()
PROMISE = re.compile(r"print\(.*\)  # ([\[{(].*?)(?::|$)", re.MULTILINE)
"""What a comment says that is printed: a value, up to the colon behind which it is explained."""


@pytest.mark.parametrize("section", sections(GUIDE), ids=lambda section: section.title)
def test_the_examples_of_a_section_run_as_written(
    section: Section,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One after the other, in one namespace, and they print what their comments say they do."""
    section.run(request, tmp_path, monkeypatch)

    assert section.broken(PROMISE, capsys.readouterr().out) == []


def test_every_public_name_is_mentioned() -> None:
    assert [name for name in transfer_queue.__all__ if name not in errors.BY_NAME and name not in TEXT] == []


def test_every_error_is_listed() -> None:
    listed = TEXT[TEXT.index("## Errors") :]
    known = [name for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, Exception)]

    assert len(known) > 20
    assert [name for name in known if f"`{name}`" not in listed] == []


def test_every_call_of_a_client_is_mentioned() -> None:
    calls = [
        name
        for name in vars(transfer_queue.TransferQueueClient)
        if f"async_{name}" in vars(transfer_queue.TransferQueueClient)
    ]

    assert len(calls) > 10
    assert [name for name in calls if not re.search(rf"(client\.|`){name}\b", TEXT)] == []


def test_every_metric_is_listed_and_no_other() -> None:
    task = TaskStats(1, 1, 0, 0, {"stale": 1}, {"field_missing": 1}, True, 0, 0)
    stats = Stats(
        {"train": task},
        [0],
        0,
        0,
        0,
        0,
        requests={"put": 1},
        errors={"FieldError": 1},
        capacity_bytes=1,
        journal_bytes=1,
    )
    registry = CollectorRegistry()
    registry.register(QueueCollector(lambda: stats))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    emitted = {sample.name for family in families for sample in family.samples if not sample.name.endswith("_created")}
    listed = TEXT[TEXT.index("| metric | labels |") : TEXT.index("## Tuning")]

    assert set(re.findall(r"`(transfer_queue_\w+)`", listed)) == emitted


def test_the_program_has_the_arguments_of_start() -> None:
    """ "...as a program whose settings are the arguments of `start`"."""
    assert AloneConfig().arguments().keys() == Options.__annotations__.keys()


def test_figures_are_elsewhere() -> None:
    assert re.findall(r"\d (?:µs|ms|GB/s|times faster)\b", TEXT.replace("(50 ms)", "")) == []
