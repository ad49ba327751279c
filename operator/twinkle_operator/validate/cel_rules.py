"""The CEL rules of a schema, evaluated here as the API server evaluates them there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import cel
from cel import stdlib

from twinkle_operator import quantity
from twinkle_operator.problem import MapKey, Path, Problem
from twinkle_operator.validate.structure import Schema, identity

ABSENT = object()
_NAME = ("metadata", "name")
"""All that rules of the root read."""
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "quantity": str,
    "isQuantity": quantity.is_quantity,
    "compareTo": quantity.compare,
    "sum": stdlib.sum_,
}


def problems(
    schema: Schema, value: Any, before: Any = ABSENT, path: Path = (), ill: frozenset[Path] = frozenset()
) -> Iterator[Problem]:
    """What the rules of a schema refuse.

    Args:
        value: with its defaults filled in.
        before: the same before an update, with defaults; rules about changes hold for what was there alone.
        ill: paths that do not fit the schema; a rule that would read one is not evaluated.
    """
    rules = schema.get("x-kubernetes-validations", ())
    if rules and not _is_ill(path, ill):
        context = cel.Context({"self": value} | ({} if before is ABSENT else {"oldSelf": before}), _FUNCTIONS)
        for rule in rules:
            if before is not ABSENT or "oldSelf" not in rule["rule"]:
                yield from _broken(rule, context, path)
    for key, inner, each, old in _children(schema, value, before):
        yield from problems(inner, each, old, (*path, key), ill)


def _children(schema: Schema, value: Any, before: Any) -> Iterator[tuple[str | int, Schema, Any, Any]]:
    """What lies directly below: its key, its schema, and what it is now and was before."""
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", {})
        olds = before if isinstance(before, dict) else {}
        for name, each in value.items():
            key = name if name in known else MapKey(name)
            yield key, known.get(name, other), each, olds.get(name, ABSENT)
    elif isinstance(value, list):
        inner = schema.get("items", {})
        keyed = {identity(schema, each): each for each in before} if isinstance(before, list) else {}
        for index, each in enumerate(value):
            key = identity(schema, each)
            yield index, inner, each, ABSENT if key is None else keyed.get(key, ABSENT)


def _is_ill(path: Path, ill: frozenset[Path]) -> bool:
    """Whether rules of this object may meet what does not fit the schema."""
    reads = path or _NAME
    return any(each[: len(reads)] == reads for each in ill)


def _broken(rule: Mapping[str, str], context: cel.Context, path: Path) -> Iterator[Problem]:
    try:
        if _compiled(rule["rule"]).execute(context) is True:
            return
        sentence = _compiled(rule["messageExpression"]).execute(context) if "messageExpression" in rule else None
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        sentence = f"{rule['message']} (not evaluated: {error})"
    field = tuple(rule.get("fieldPath", "").split(".")[1:])
    yield Problem((*path, *field), _line(sentence) or rule["message"])


def _line(sentence: object) -> str:
    """A sentence that the API server would print: one line of text; else nothing."""
    return sentence if isinstance(sentence, str) and "\n" not in sentence else ""


@cache
def _compiled(text: str) -> cel.Program:
    return cel.compile(text)
