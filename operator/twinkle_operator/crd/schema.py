"""Structural schemas (OpenAPI v3, as Kubernetes restricts it) from the Python types."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import inspect

from twinkle_operator.crd.pod_template import POD_TEMPLATE
from twinkle_operator.rules import Rule, one_of

Schema = dict[str, Any]

LIST_KEYS = {"deviceGroups": "name", "conditions": "type"}
"""Lists whose items have an identity; an update of one item leaves the others alone."""
_INT32 = 2**31 - 1
_LONGEST_WORD = 64


def struct_schema(made_from: type[msgspec.Struct], *, by_people: bool) -> Schema:
    """The schema of a class of `spec` or `state`.

    What people write (`by_people`) has defaults, and its words are checked by CEL, for a sentence; what the operator
    writes has neither: the API server must not add fields to a status, and words there are enums.
    """
    return _Writer(by_people).struct(inspect.type_info(made_from))


class _Writer:
    def __init__(self, by_people: bool):
        self.by_people = by_people

    def struct(self, info: inspect.Type) -> Schema:
        assert isinstance(info, inspect.StructType)
        schema: Schema = {"type": "object", "description": " ".join((info.cls.__doc__ or "").split())}
        if required := [field.encode_name for field in info.fields if field.required]:
            schema["required"] = required
        schema["properties"] = {field.encode_name: self.field(field) for field in info.fields}
        return schema | _validations(getattr(info.cls, "rules", ()))

    def field(self, field: inspect.Field) -> Schema:
        schema = self.any(field.type)
        default = default_of(field)
        if self.by_people and default is not None:
            schema["default"] = default
            if not isinstance(default, dict | list):
                schema["description"] += f" Default: {default if isinstance(default, str) else json.dumps(default)}."
        if key := LIST_KEYS.get(field.encode_name):
            schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
        return schema

    def any(self, info: inspect.Type) -> Schema:
        if isinstance(info, inspect.Metadata):
            return self.described(info)
        if isinstance(info, inspect.UnionType):
            (inner,) = (each for each in info.types if not isinstance(each, inspect.NoneType))
            return self.any(inner)
        if isinstance(info, inspect.StructType):
            return self.struct(info)
        if isinstance(info, inspect.ListType):
            return {"type": "array", "items": self.any(info.item_type), "x-kubernetes-list-type": "atomic"} | _sizes(
                info, "Items"
            )
        if isinstance(info, inspect.DictType):
            return self.mapping(info)
        return self.scalar(info)

    def described(self, info: inspect.Metadata) -> Schema:
        """Descriptions and rules of an annotation; those of the field win over those of its type."""
        extra = info.extra or {}
        schema = POD_TEMPLATE if extra.get("is_pod_template") else self.any(info.type)
        return {**schema, **(info.extra_json_schema or {}), **_validations(extra.get("rules", ()), schema)}

    def mapping(self, info: inspect.DictType) -> Schema:
        if isinstance(info.value_type, inspect.AnyType):
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        return {"type": "object", "additionalProperties": self.any(info.value_type)} | _sizes(info, "Properties")

    def scalar(self, info: inspect.Type) -> Schema:
        if isinstance(info, inspect.BoolType):
            return {"type": "boolean"}
        if isinstance(info, inspect.IntType):
            form = "int32" if info.le is not None and info.le <= _INT32 else "int64"
            bounds = {"minimum": info.ge, "maximum": info.le}
            return {
                "type": "integer",
                "format": form,
                **{key: each for key, each in bounds.items() if each is not None},
            }
        if isinstance(info, inspect.StrType):
            return {"type": "string"} | ({} if info.max_length is None else {"maxLength": info.max_length})
        if isinstance(info, inspect.LiteralType):
            return self.words(tuple(map(str, info.values)))
        raise TypeError(f"{info} has no place in a structural schema: use text, numbers, lists or classes.")

    def words(self, choices: tuple[str, ...]) -> Schema:
        if self.by_people:
            return {"type": "string", "maxLength": _LONGEST_WORD, **_validations((one_of(choices),))}
        return {"type": "string", "enum": list(choices)}


def default_of(field: inspect.Field) -> Any:
    """The default as YAML has it; None where there is none. A part with defaults of its own starts as {}."""
    made = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if made is msgspec.NODEFAULT or made is None:
        return None
    if isinstance(made, msgspec.Struct) and made == type(made)():
        return {}
    return msgspec.to_builtins(made)


def _validations(rules: Iterable[Rule], schema: Schema | None = None) -> Schema:
    found = [*(schema or {}).get("x-kubernetes-validations", ()), *(rule.schema() for rule in rules)]
    return {"x-kubernetes-validations": found} if found else {}


def _sizes(info: inspect.ListType | inspect.DictType, what: str) -> Schema:
    sizes = {f"min{what}": info.min_length, f"max{what}": info.max_length}
    return {key: size for key, size in sizes.items() if size is not None}
