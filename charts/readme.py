"""The table of values in a chart's README, from the comments in its values.yaml.

A comment that begins with `# --` directly above a key describes it, as for helm-docs (a program that needs Go).
A mapping that has one is a value by itself; one that has none is looked into.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import yaml

MARK = "<!-- Below this line `make charts` writes, from the comments in values.yaml. -->"


class UndocumentedError(ValueError):
    """A key of values.yaml has no comment; the message names it and its line."""


class Value(NamedTuple):
    """One row of the table: the key as `--set` takes it, the default as JSON, what the comment says."""

    key: str
    default: str
    text: str


def documented(source: str) -> Iterator[Value]:
    """The values of a values.yaml, in its order.

    Raises:
        UndocumentedError: a key that is no mapping, or an empty one, has no comment.
    """
    root = yaml.compose(source, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise UndocumentedError("values.yaml holds no mapping of keys to values")
    yield from _within(root, "", source.splitlines())


def _within(mapping: yaml.MappingNode, above: str, lines: list[str]) -> Iterator[Value]:
    for key, value in mapping.value:
        name, text = f"{above}{key.value}", _comment(lines, key.start_mark.line)
        if text:
            yield Value(name, _json(value), text)
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _within(value, f"{name}.", lines)
        else:
            raise UndocumentedError(f"values.yaml:{key.start_mark.line + 1}: {name} has no comment '# -- ...' above it")


def _comment(lines: list[str], at: int) -> str:
    """The comment directly above line `at`; empty if it does not begin with `# --`."""
    words: list[str] = []
    for line in reversed(lines[:at]):
        text = line.strip()
        if not text.startswith("#"):
            return ""
        if text.startswith("# --"):
            return " ".join([text.removeprefix("# --").strip(), *reversed(words)])
        words.append(text.removeprefix("#").strip())
    return ""


def _json(node: yaml.Node) -> str:
    return json.dumps(yaml.safe_load(yaml.serialize(node)), ensure_ascii=False)


def table(values: Iterator[Value]) -> str:
    """The values as a table in Markdown."""
    rows = [f"| `{each.key}` | `{_cell(each.default)}` | {_cell(each.text)} |" for each in values]
    return "\n".join(["| value | default | what it is |", "|---|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def renewed(readme: str, values_yaml: str) -> str:
    """A README with its table made anew; what stands above the mark is kept."""
    head, mark, _ = readme.partition(MARK)
    if not mark:
        raise UndocumentedError(f"the README has no line {MARK!r}, below which the table goes")
    return f"{head}{MARK}\n\n## Values\n\n{table(documented(values_yaml))}\n"
