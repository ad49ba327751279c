"""Every check of one stack, in the order in which a cluster would make them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from twinkle_operator import beyond_cel
from twinkle_operator.crd.definition import stack_schema
from twinkle_operator.problem import Problem
from twinkle_operator.validate import cel_rules, pod_specs, structure
from twinkle_operator.validate.documents import Document
from twinkle_operator.validate.files import misnamed, repeated

_TEXT, _MAP = {"type": "string"}, {"type": "object"}
METADATA = {
    "type": "object",
    "properties": {"name": _TEXT, "namespace": _TEXT, "uid": _TEXT, "labels": _MAP, "annotations": _MAP},
    "x-kubernetes-preserve-unknown-fields": True,
}
"""What is read of it here; the CRD may say no more of it than that it has a name."""


def check(stack: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> list[Problem]:
    """All problems of a TrainingStack as a person wrote it; errors and warnings, each once.

    `before` is the stack as it is now: then the rules about changes hold, too. Never raises for what is in a stack.
    """
    found = refusals(stack, before)
    found += beyond_cel.problems(stack)
    known = {problem.path for problem in found}
    found += (each for each in pod_specs.problems(_mapping(stack.get("spec"))) if each.path not in known)
    return list(dict.fromkeys(found))


def check_document(document: Document, before: Mapping[str, Any] | None = None) -> list[Problem]:
    """As `check`, and what only a file can have wrong: keys that stand twice, another kind or version of it."""
    return misnamed(document) or [*check(document.value, before), *repeated(document)]


def refusals(stack: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> list[Problem]:
    """What the API server refuses of a stack; it stops at the schema, this goes on with the rules that can be read."""
    root = stack_schema()
    schema = {**root, "properties": {**root["properties"], "metadata": METADATA}}
    value = structure.with_defaults(schema, {**stack, "metadata": _mapping(stack.get("metadata"))})
    unfit = [*_metadata(value["metadata"]), *structure.problems(schema, value)]
    ill = frozenset(problem.path for problem in unfit if problem.reason != structure.UNKNOWN_FIELD)
    old = cel_rules.ABSENT if before is None else structure.with_defaults(schema, dict(before))
    return [*unfit, *cel_rules.problems(schema, value, old, ill=ill)]


def _metadata(metadata: dict[str, Any]) -> Iterator[Problem]:
    """What the API server itself checks of metadata; the name's form is a rule of ours."""
    if metadata.get("name") is None:
        yield Problem(("metadata", "name"), "Required value. Everything of the stack is named from it")
    yield from beyond_cel.label_problems(("metadata", "labels"), metadata.get("labels"))


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
