"""The Python examples of a page in docs/, heading by heading, and how they are run."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

DOCS = Path(__file__).resolve().parents[2] / "docs"
FILE = re.compile(r"# (\w+\.py)\n")
RAY = ("import ray", 'initialize("ray"')


@dataclass
class Section:
    """What stands under one heading: its python fences, each with the line it begins at."""

    page: Path
    title: str
    fences: list[tuple[int, str]] = field(default_factory=list)

    def run(
        self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        namespace: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Run the examples one after the other, in one namespace; one that begins with a file's name is that file."""
        if any(word in source for _, source in self.fences for word in RAY):
            request.getfixturevalue("ray_cluster")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        namespace = {"__name__": "guide"} if namespace is None else namespace
        for line, source in self.fences:
            name = FILE.match(source)
            if name is not None:
                (tmp_path / name[1]).write_text(source)
                monkeypatch.delitem(sys.modules, name[1].removesuffix(".py"), raising=False)
            else:
                exec(compile("\n" * line + source, str(self.page), "exec"), namespace)

    def broken(self, promise: re.Pattern[str], printed: str) -> list[str]:
        """What comments say is printed, and is not."""
        return [text for _, source in self.fences for text in promise.findall(source) if text not in printed]


def sections(page: Path) -> list[Section]:
    """The headings of a page that have examples."""
    return [section for section in _sections(page) if section.fences]


def _sections(page: Path) -> Iterator[Section]:
    tokens, section = MarkdownIt().parse(page.read_text()), Section(page, "")
    for i, token in enumerate(tokens):
        if token.type == "heading_open":
            yield section
            section = Section(page, tokens[i + 1].content)
        elif token.type == "fence" and token.info.strip() == "python":
            assert token.map is not None
            section.fences.append((token.map[0] + 1, token.content))
    yield section
