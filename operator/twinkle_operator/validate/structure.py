"""What a structural schema refuses, in the API server's words, and the defaults that it fills in."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from twinkle_operator.problem import MapKey, Path, Problem

Schema = Mapping[str, Any]

UNKNOWN_FIELD = "UnknownField"
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
}


def with_defaults(schema: Schema, value: Any) -> Any:
    """A copy as the API server stores it: null is left out, and what was left out has its default."""
    if isinstance(value, dict):
        known = schema.get("properties", {})
        is_map = "additionalProperties" in schema
        filled = {name: each for name, each in value.items() if each is not None or not (is_map or name in known)}
        for name, field in known.items():
            if name not in filled and "default" in field:
                filled[name] = copy.deepcopy(field["default"])
        inner = schema.get("additionalProperties", {})
        return {name: with_defaults(known.get(name, inner), each) for name, each in filled.items()}
    if isinstance(value, list):
        return [with_defaults(schema.get("items", {}), each) for each in value]
    return value


def problems(schema: Schema, value: Any, path: Path = ()) -> Iterator[Problem]:
    """Everything in a value that does not fit its schema; rules in CEL are not looked at."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str) or isinstance(value, bool):
            yield Problem(path, f"must be of type integer or string, not {_kind(value)}")
    elif not schema.get("type"):
        return
    elif not _fits(schema["type"], value):
        yield Problem(path, f"must be of type {schema['type']}, not {_kind(value)}")
    elif schema["type"] == "object":
        yield from _object(schema, value, path)
    elif schema["type"] == "array":
        yield from _array(schema, value, path)
    else:
        yield from _scalar(schema, value, path)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence: "; did you mean x?" for the known name that looks most like it, else nothing."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _object(schema: Schema, value: dict[str, Any], path: Path) -> Iterator[Problem]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield Problem((*path, name), f"Required value. {known[name].get('description', '')}".strip())
    inner = schema.get("additionalProperties")
    most = schema.get("maxProperties")
    if most is not None and len(value) > most:
        yield Problem(path, f"Too many: {len(value)}: must have at most {most} items")
    for name, each in value.items():
        if name in known:
            yield from problems(known[name], each, (*path, name))
        elif inner is not None:
            yield from problems(inner, each, (*path, MapKey(name)))
        elif known and not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield Problem((*path, name), f"unknown field{nearest(name, known)}", reason=UNKNOWN_FIELD)


def _array(schema: Schema, value: list[Any], path: Path) -> Iterator[Problem]:
    most, least = schema.get("maxItems", len(value)), schema.get("minItems", 0)
    if len(value) > most:
        yield Problem(path, f"Too many: {len(value)}: must have at most {most} items")
    if len(value) < least:
        yield Problem(path, f"should have at least {least} items, not {len(value)}")
    for index, each in enumerate(value):
        yield from problems(schema.get("items", {}), each, (*path, index))
    seen: set[str] = set()
    for index, each in enumerate(value):
        if (key := identity(schema, each)) is not None:
            if key in seen:
                yield Problem((*path, index), f"Duplicate value: {key}")
            seen.add(key)


def identity(schema: Schema, item: Any) -> str | None:
    """What tells an item of a list-map from its neighbours, as JSON; None where the list has no keys."""
    keys = schema.get("x-kubernetes-list-map-keys")
    if not keys or not isinstance(item, dict):
        return None
    return json.dumps({key: item.get(key) for key in keys}, separators=(",", ":"))


def _scalar(schema: Schema, value: Any, path: Path) -> Iterator[Problem]:
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield Problem(path, f"Too long: may not be more than {schema['maxLength']} bytes")
    if "minimum" in schema and value < schema["minimum"]:
        yield Problem(path, f"should be greater than or equal to {schema['minimum']}, not {value}")
    if "maximum" in schema and value > schema["maximum"]:
        yield Problem(path, f"should be less than or equal to {schema['maximum']}, not {value}")
    if "enum" in schema and value not in schema["enum"]:
        choices = ", ".join(json.dumps(each) for each in schema["enum"])
        yield Problem(path, f"Unsupported value: {json.dumps(value)}: supported values: {choices}")


def _fits(kind: str, value: Any) -> bool:
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind]) and not (kind == "integer" and isinstance(value, bool))


def _kind(value: Any) -> str:
    """A value's type in the schema's words."""
    if value is None:
        return "null"
    return next((kind for kind in ("boolean", "object", "array", "string", "integer") if _fits(kind, value)), "number")
