"""docs/device_meshes.md: every python example as written, and every name that a reader may look for."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import twinkle
from tests.documents.guide import DOCS, Section, sections
from twinkle import errors, infra

PAGE = DOCS / "device_meshes.md"
TEXT = PAGE.read_text()
PROMISE = re.compile(r"print\(.*\)  # (.+)$", re.MULTILINE)


@pytest.fixture(autouse=True)
def _clean_runtime() -> Iterator[None]:
    yield
    twinkle.initialize("local")


@pytest.mark.parametrize("section", sections(PAGE), ids=lambda section: section.title)
def test_the_examples_of_a_section_run_as_written(
    section: Section,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    section.run(request, tmp_path, monkeypatch)

    assert section.broken(PROMISE, capsys.readouterr().out) == []


def test_the_examples_promise_something() -> None:
    assert len(PROMISE.findall(TEXT)) >= 15


def test_every_public_name_is_mentioned() -> None:
    known = {"Future", "Rank", "Runtime", "current_runtime"}  # what calls return, told of by the calls

    assert [name for name in infra.__all__ if name not in TEXT and name not in known] == []


def test_every_error_of_infra_is_listed() -> None:
    raised = [
        name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.InfraError)
    ]

    assert len(raised) == 4
    assert [name for name in [*raised, "ConfigError"] if f"| `{name}` |" not in TEXT] == []
