"""docs/samplers.md: every python example as written, one after the other."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import twinkle.sampler
from tests.documents.guide import DOCS, Section, sections
from tests.twinkle.sampler.vllm.conftest import NO_VLLM
from twinkle import errors
from twinkle.data_format import SamplingParams

GUIDE = DOCS / "samplers.md"
TEXT = GUIDE.read_text()
PROMISE = re.compile(r"print\(.*\)  # (.*)$", re.MULTILINE)
"""What a comment says that is printed."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guide")


@pytest.fixture(scope="module")
def namespace() -> Iterator[dict[str, Any]]:
    """One for the whole page: later sections use what earlier ones made."""
    found: dict[str, Any] = {"__name__": "guide"}
    yield found
    if "sampler" in found:
        found["sampler"].close()


@pytest.mark.parametrize("section", sections(GUIDE), ids=lambda section: section.title)
def test_the_examples_of_a_section_run_as_written(
    section: Section,
    namespace: dict[str, Any],
    folder: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if section.title == "vLLMSampler" and find_spec("vllm") is None:
        pytest.skip(NO_VLLM)
    section.run(request, folder, monkeypatch, namespace)

    assert section.broken(PROMISE, capsys.readouterr().out) == []


def test_every_parameter_and_method_is_mentioned() -> None:
    names = [name for name in vars(twinkle.sampler.Sampler) if not name.startswith("_")]
    parameters = list(SamplingParams.__dataclass_fields__)

    assert [name for name in [*names, *parameters] if not re.search(rf"\b{name}\b", TEXT)] == []


def test_the_errors_of_samplers_are_mentioned() -> None:
    own = [each.__name__ for each in errors.SamplerError.__subclasses__()]

    assert len(own) == 3
    assert [name for name in own if f"`{name}`" not in TEXT] == []
