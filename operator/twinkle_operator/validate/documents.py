"""YAML with the line of every field, as far as it is JSON: that is what an API server gets of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

from twinkle_operator.problem import MOST_SAID, Path
from twinkle_operator.text import one_line

MOST_VALUES = 100_000
"""Of a document, with what its aliases repeat: nine lines of them can stand for a billion."""
MOST_DEEP = 100
"""Mappings and lists in each other."""


class FileProblem(Exception):
    """A file out of which no stack is read, in one sentence; `line` counts from 1."""

    def __init__(self, message: str, line: int):
        super().__init__(one_line(message, MOST_SAID))
        self.line = line


class Document(msgspec.Struct, frozen=True):
    """One document: its value as JSON has it, and where its fields stand.

    `twice` are keys that stand twice in one mapping, of which YAML takes the last.
    """

    value: Any
    lines: dict[Path, int]
    twice: list[Path]

    def line(self, path: Path) -> int:
        """The line of a field, or of the innermost mapping that should have held it."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


class _Loader(yaml.SafeLoader):
    """Dates stay text, as in JSON."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (the base class declares it)
        first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def documents(text: str) -> Iterator[Document]:
    """The documents of a file.

    Raises:
        FileProblem: it is no YAML, or none that an API server could be sent.
    """
    try:
        loader = _Loader(text)
        while loader.check_node():
            if (root := loader.get_node()) is not None:
                document = Document(None, {(): root.start_mark.line + 1}, [])
                value = _Reader(loader, document).read(root, ())
                yield msgspec.structs.replace(document, value=value)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise FileProblem(f"no YAML: {error.problem}", mark.line + 1 if mark else 1) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise FileProblem(f"no YAML: character #x{error.character:04x} is not allowed", line) from error
    except RecursionError as error:
        raise FileProblem("no YAML for Kubernetes: nested too deeply", 1) from error


class _Reader:
    def __init__(self, loader: _Loader, document: Document):
        self.loader, self.document = loader, document
        self.entered: list[yaml.Node] = []
        self.count = 0

    def read(self, node: yaml.Node, path: Path) -> Any:
        self.count += 1
        if self.count > MOST_VALUES:
            raise FileProblem(f"no YAML for Kubernetes: more than {MOST_VALUES} values", node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        if len(path) > MOST_DEEP:
            raise FileProblem("no YAML for Kubernetes: nested too deeply", node.start_mark.line + 1)
        if node in self.entered:
            raise FileProblem("no YAML for Kubernetes: an anchor that holds itself", node.start_mark.line + 1)
        self.entered.append(node)
        value = self.mapping(node, path) if isinstance(node, yaml.MappingNode) else self.sequence(node, path)
        self.entered.pop()
        return value

    def scalar(self, node: yaml.ScalarNode) -> Any:
        line, given = node.start_mark.line + 1, repr(node.value[:40])
        try:
            value = self.loader.construct_object(node, deep=True)
        except (ValueError, LookupError, AttributeError) as error:  # by the constructors of tags that are written out
            raise FileProblem(f"no YAML: {given} is no {node.tag.rpartition(':')[2]}", line) from error
        if not _is_json(value):
            raise FileProblem(f"no YAML for Kubernetes: {given} has no form in JSON; quote it", line)
        return value

    def sequence(self, node: yaml.Node, path: Path) -> list[Any]:
        for index, each in enumerate(node.value):
            self.document.lines[(*path, index)] = each.start_mark.line + 1
        return [self.read(each, (*path, index)) for index, each in enumerate(node.value)]

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        given = {id(key) for key, _ in node.value}
        self.loader.flatten_mapping(node)
        values: dict[str, Any] = {}
        own: set[str] = set()
        for key_node, value_node in node.value:
            key = self.key(key_node)
            where = (*path, key)
            if id(key_node) in given:
                if key in own:
                    self.document.twice.append(where)
                own.add(key)
            self.document.lines[where] = key_node.start_mark.line + 1
            values[key] = self.read(value_node, where)
        return values

    def key(self, node: yaml.Node) -> str:
        """As JSON has it."""
        if not isinstance(node, yaml.ScalarNode):
            raise FileProblem("no YAML for Kubernetes: a key that is no text", node.start_mark.line + 1)
        key = self.scalar(node)
        return "null" if key is None else str(key).lower() if isinstance(key, bool) else str(key)


def _is_json(value: Any) -> bool:
    """Whether a scalar can be sent: text in UTF-8, a number of 64 bits, true, false or null."""
    if isinstance(value, str):
        return not any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return value is None or (isinstance(value, float) and math.isfinite(value))
