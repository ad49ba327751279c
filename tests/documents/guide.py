"""The python examples of a guide, section by section, run as they stand there."""

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
PROMISE = re.compile(r"print\(.*\)  # (.*)$", re.MULTILINE)
"""What a comment says that is printed."""


@dataclass
class Section:
    """What stands under one heading: its python fences, each with the line it begins at."""

    title: str
    fences: list[tuple[int, str]] = field(default_factory=list)


def sections(guide: Path) -> Iterator[Section]:
    """The sections with python fences."""
    tokens, section = MarkdownIt().parse(guide.read_text()), Section("")
    for i, token in enumerate(tokens):
        if token.type == "heading_open":
            if section.fences:
                yield section
            section = Section(tokens[i + 1].content)
        elif token.type == "fence" and token.info.strip() == "python":
            assert token.map is not None
            section.fences.append((token.map[0] + 1, token.content))
    if section.fences:
        yield section


def run(guide: Path, section: Section, namespace: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """Execute the fences of a section in this namespace; the promises they make. One that begins with a file's name
    is that file."""
    for line, source in section.fences:
        name = FILE.match(source)
        if name is not None:
            (folder / name[1]).write_text(source)
            patch.delitem(sys.modules, name[1].removesuffix(".py"), raising=False)
        else:
            exec(compile("\n" * line + source, str(guide), "exec"), namespace)
    return [text for _, source in section.fences for text in PROMISE.findall(source)]
