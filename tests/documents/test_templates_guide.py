"""docs/templates.md: every python example as written, and every name that a reader may look for."""

import re
from pathlib import Path

import pytest

from tests.documents.guide import DOCS, Section, sections
from twinkle.hub import ALIASES_VARIABLE, OFFLINE_VARIABLE
from twinkle.hub.settings import HubConfig
from twinkle.template.registry import TEMPLATES
from twinkle.template.tool_calls import STYLES
from twinkle.template.truncation import TRUNCATIONS

PAGE = DOCS / "templates.md"
TEXT = PAGE.read_text()
PROMISE = re.compile(r"print\(.*\)  # (.+)$", re.MULTILINE)


@pytest.mark.parametrize("section", sections(PAGE), ids=lambda section: section.title)
def test_the_examples_of_a_section_run_as_written(
    section: Section,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(ALIASES_VARIABLE, "{}")  # an example sets it; this puts back what was there
    section.run(request, tmp_path, monkeypatch)

    assert section.broken(PROMISE, capsys.readouterr().out) == []


def test_the_examples_promise_something() -> None:
    assert len(PROMISE.findall(TEXT)) >= 10


@pytest.mark.parametrize(
    "names", [TEMPLATES, STYLES, TRUNCATIONS, HubConfig.__dataclass_fields__, (ALIASES_VARIABLE, OFFLINE_VARIABLE)]
)
def test_every_name_is_mentioned(names: list[str]) -> None:
    assert [name for name in names if not re.search(rf"[`.]{name}\b|\b{name}=|\"{name}\"", TEXT)] == []
